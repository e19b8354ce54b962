"""Real imagery. It is not part of the project; tests skip with a reason where it is absent."""

from pathlib import Path

import numpy as np
import pytest

from making import needs_real
from wasnow.data.dataset import open_dataset
from wasnow.data.encodings import DUBAI_WORDS
from wasnow.data.mask_folder import MaskFolder, open_masks
from wasnow.data.pairs import GeneratedPairs, PairRecipe
from wasnow.data.preview import write_preview
from wasnow.errors import DatasetError, SingleDated
from wasnow.vocabulary import NO_LABEL

pytestmark = pytest.mark.real


def test_levir_cd_is_ready() -> None:
    dataset = open_dataset(needs_real("levir-cd"))
    assert dataset.check() == ()
    assert {split: len(samples) for split, samples in dataset.splits.items()} == {"train": 3, "val": 1}
    assert dataset.splits["train"][0].before.shape == (256, 256, 3)


def test_dsifn_cd_is_ready() -> None:
    dataset = open_dataset(needs_real("dsifn-cd"))
    assert dataset.check() == ()
    assert len(dataset.splits["all"]) == 5


def test_french_buildings_are_geotiff_pairs_with_several_label_values(tmp_path: Path) -> None:
    folder = needs_real("france-buildings")
    found = open_dataset(folder / "binary").examine()
    assert found.ready
    assert 0.02 < found.tallies["train"].change_share < 0.3
    with pytest.raises(DatasetError, match="change_values"):
        open_dataset(folder / "instances")
    described = tmp_path / "dataset.yaml"
    described.write_text(
        "before: before/{name}.tif\nafter: after/{name}.tif\nchange_label: label/{name}.tif\n"
        "change_values: {0: unchanged, 1: changed, 2: changed, 3: unchanged}\n"
    )
    for role in ("before", "after", "label"):
        (tmp_path / role).symlink_to((folder / "instances" / role).resolve())
    assert open_dataset(tmp_path).check() == ()


@pytest.fixture(scope="module")
def dubai() -> MaskFolder:
    return open_masks(needs_real("dubai-landcover"))


def test_dubai_is_a_mask_folder_of_five_groups_with_all_its_classes(dubai: MaskFolder) -> None:
    with pytest.raises(SingleDated):
        open_dataset(dubai.root)
    assert dubai.faults == ()
    assert dubai.groups == ("Tile_1", "Tile_3", "Tile_4", "Tile_6", "Tile_7")
    assert dubai.vocabulary.words == DUBAI_WORDS
    # Tile_4 has palettes where the others have RGB, Tile_1 grey pixels without a label.
    assert set(np.unique(dubai[[e.group for e in dubai.entries].index("Tile_4")].classes)) <= {1, 2, 3, 4, 5}
    first = [dubai[i].classes for i, entry in enumerate(dubai.entries) if entry.group == "Tile_1"]
    assert sum(int((classes == NO_LABEL).sum()) for classes in first) == 39985


def test_pairs_generated_from_dubai_have_transitions_between_most_classes(dubai: MaskFolder) -> None:
    kept, held = dubai.split(["Tile_3", "Tile_4", "Tile_6", "Tile_7"])[::-1]
    assert held.groups == ("Tile_1",)
    pairs = GeneratedPairs(held, 12, 0, PairRecipe(size=128))
    occurring = np.zeros((6, 6), bool)
    for sample in (pairs[i] for i in range(12)):
        assert sample.before_classes is not None
        assert sample.after_classes is not None
        changed = sample.change == 1
        assert (sample.before_classes[changed] != sample.after_classes[changed]).all()
        occurring[sample.before_classes[changed], sample.after_classes[changed]] = True
    assert occurring[1:].any(axis=1).sum() >= 4
    assert occurring[:, 1:].any(axis=0).sum() >= 4
    assert not occurring[0].any()
    assert len(kept.groups) == 4


def test_the_preview_of_real_pairs_is_below_half_a_megabyte(tmp_path: Path) -> None:
    page = write_preview(open_dataset(needs_real("levir-cd")), tmp_path / "page.html")
    assert page.stat().st_size < 500_000
