"""Load a model onto a device by its name or path. Every command and every function of wasnow loads models here.

"semantic-cd-mini"      checkpoint of the package   ──┐
"runs/a/best.safetensors", "runs/a"   checkpoint    ──┼──> model on its device
"irmad"                 no weights: fits the scene  ──┘
"hrscd"                 a network without weights   ──> UsageError
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from wasnow.errors import CheckpointError, UsageError
from wasnow.models import registry
from wasnow.models.contract import ChangeModel, SceneModel

OPENVINO = "openvino"
"""The value of ``--device`` that is not a device of torch: OpenVINO compiles the network for the CPU."""


def load(model: str | os.PathLike[str] = registry.DEFAULT, *, device: str = "auto") -> ChangeModel | SceneModel:
    """Return a model that is ready for inference.

    Args:
        model: a name of ``wasnow models``, a checkpoint, or the folder of a training run.
        device: ``auto``, ``cpu``, ``cuda``, ...; ``openvino`` loads onto the CPU.

    Raises:
        UnknownModel: neither a name nor a path; names similar models.
        UsageError: a network without weights, or a device that is not available.
        CheckpointError: the checkpoint cannot be used.
    """
    name = os.fspath(model)
    path = registry.shipped(name)
    if path is None and name not in registry.MODELS and _is_path(name):
        path = Path(name)
    if path is not None:
        return load_network(path, device=resolve_device(device, openvino=True))
    if name in registry.MODELS and registry.MODELS[name].network:
        raise UsageError(
            f"{name} is a network and needs weights; pass the path of a checkpoint instead "
            f"(made by 'wasnow train {name}' or 'wasnow convert WEIGHTS --model {name}')"
        )
    return registry.build(name)


def load_network(path: str | os.PathLike[str], *, device: str = "auto") -> ChangeModel:
    """Return the network of a checkpoint.

    Args:
        path: a checkpoint, the folder of a training run, or the name of a model that is part of the package.
        device: ``auto`` or a device of torch.

    Raises:
        UsageError: the device is not available.
        CheckpointError: the checkpoint cannot be used.
    """
    from wasnow.models import checkpoint

    return checkpoint.load(path, device=resolve_device(device))


def resolve_device(device: str, *, openvino: bool = False) -> str:
    """Return a device of torch that works here; ``auto`` is a GPU if torch finds one.

    Args:
        device: ``auto`` or a device of torch.
        openvino: accept ``openvino``, which takes its weights from the CPU.

    Raises:
        UsageError: torch cannot compute on that device.
    """
    if openvino and device == OPENVINO:
        return "cpu"
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        # Reading a result back fails on devices without data, such as meta.
        float(torch.ones(1, device=device).sum())
    except Exception as error:  # every device backend has errors of its own
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UsageError(f"--device {device} is not available here ({reason[:200]}); use --device cpu") from None
    return device


@dataclass(frozen=True)
class ModelReference:
    """How another process loads the network of a run: from its file, instead of from pickled weights.

    Attributes:
        name: of ``wasnow models``, or the absolute path of a checkpoint or a run folder.
        classes: the class words to bind; None keeps the network's own.
        fingerprint: of its weights.
    """

    name: str
    classes: tuple[str, ...] | None
    fingerprint: str | None

    @classmethod
    def of(
        cls, model: str | os.PathLike[str], classes: tuple[str, ...] | None, fingerprint: str | None
    ) -> ModelReference:
        """The reference of a model that `load` loaded here.

        Args:
            model: as passed to `load`.
            classes: the bound class words.
            fingerprint: of its weights.
        """
        name = os.fspath(model)
        # Links stay as the user named them: another machine may resolve them differently.
        return cls(name if name in registry.MODELS else os.path.abspath(name), classes, fingerprint)  # noqa: PTH100

    @property
    def path(self) -> Path | None:
        """The file or folder that must exist; None for a model of the package."""
        return None if self.name in registry.MODELS else Path(self.name)

    def load(self, device: str) -> ChangeModel:
        """Return the network, bound to its class words.

        Raises:
            CheckpointError: it cannot be read, or its weights differ.
        """
        model = cast(ChangeModel, load(self.name, device=device))
        if model.card.weights.fingerprint != self.fingerprint:
            raise CheckpointError(
                self.name,
                "a worker reads other weights here than the run was started with",
                "make the same file visible to all workers, and install the same version of wasnow",
            )
        return model if self.classes is None else model.bind(self.classes)


def _is_path(name: str) -> bool:
    return "/" in name or os.sep in name or name.endswith(".safetensors") or Path(name).exists()
