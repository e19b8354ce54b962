"""Faster execution of a network: folded norms on every device, OpenVINO on request.

    model ─ accelerated ─┬─ any device     ─> norms folded (`wasnow.nn.fused`)
                         └─ --device openvino ─> OpenVinoModel: compiled by OpenVINO for this processor

`OpenVinoModel` is a `ChangeModel` around another one. For each tile shape, torch.export exports the network, OpenVINO
compiles it, and the first output is compared with that of torch, so that a failed conversion is an error and not a map.

OpenVINO reports each import to its vendor if the package ``openvino-telemetry`` is installed. Importing that package is
prevented here.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from wasnow.errors import UsageError
from wasnow.models.contract import ChangeLogits, ChangeModel, FeatureModel, ModelCard
from wasnow.models.loading import OPENVINO
from wasnow.nn.fused import fused

Precision = Literal["32", "bf16"]

TOLERANCE = {"32": 1e-3, "bf16": 0.1}
"""How far the mean answer of a converted network may lie from torch's, over the mean size of the answers."""

_TELEMETRY = "openvino_telemetry"

Parts = tuple[Tensor, ...]


def accelerated(model: ChangeModel, *, device: str = "auto", precision: Precision = "32") -> ChangeModel:
    """The model as tiles should be shown to it: the same answers up to rounding.

    Args:
        model: bound to its words; fitted scene models, and all that are no networks, come back as they are.
        device: of the options of a run.
        precision: of numbers inside OpenVINO; elsewhere the caller chooses it.

    Raises:
        UsageError: OpenVINO is asked for and is not there, or the model is no network.
    """
    if device == OPENVINO:
        return through_openvino(model, precision=precision)
    return fused(model) if isinstance(model, nn.Module) else model


def require_openvino() -> None:
    """Nothing, where the package is there.

    Raises:
        UsageError: it is not.
    """
    if find_spec(OPENVINO) is None:
        raise UsageError("--device openvino needs OpenVINO, which is not installed; pip install 'wasnow[openvino]'")


def through_openvino(model: ChangeModel, *, precision: Precision = "32") -> OpenVinoModel:
    """A network that OpenVINO runs; it satisfies `FeatureModel` where the network does.

    Raises:
        UsageError: the package is not there, or the model is no network.
    """
    require_openvino()
    if not isinstance(model, nn.Module):
        raise UsageError(f"{model.card.name} is no network, and OpenVINO runs networks; use --device cpu")
    if isinstance(model, FeatureModel):
        return OpenVinoEncoding(model, precision=precision)
    return OpenVinoModel(model, precision=precision)


class OpenVinoModel:
    """A network, compiled for the processor: a `ChangeModel`.

    Args:
        network: an ``nn.Module`` of the contract, on the processor, bound to its words; its copy is put into eval mode.
        precision: ``32`` counts as torch does; ``bf16`` rounds inside, where the processor has units for it.
    """

    def __init__(self, network: ChangeModel, *, precision: Precision = "32") -> None:
        self._network = network
        self._precision: Precision = precision
        self._inside = cast(ChangeModel, fused(cast(nn.Module, network)))
        self._compiled: dict[tuple[object, ...], Callable[[Parts], Parts]] = {}
        self._unchanged_channel = False

    @property
    def card(self) -> ModelCard:
        """Of the network."""
        return self._network.card

    def bind(self, classes: Sequence[str]) -> OpenVinoModel:
        """A model for other class words, compiled at its first tile."""
        return through_openvino(self._network.bind(classes), precision=self._precision)

    def __call__(self, before: Tensor, after: Tensor, valid: Tensor, priors: Tensor | None = None) -> ChangeLogits:
        """See `ChangeModel`, and `GuidedModel` for one that takes masks.

        Raises:
            UsageError: the network cannot be converted, or answers otherwise when it is.
        """

        def whole(*images: Tensor) -> Parts:
            return self._parts(self._inside(*images))

        images = (before, after, valid) if priors is None else (before, after, valid, priors)
        return self._logits(self._run("network", whole, images))

    def _parts(self, logits: ChangeLogits) -> Parts:
        self._unchanged_channel = logits.unchanged_channel
        return tuple(part for part in (logits.change, logits.before, logits.after) if part is not None)

    def _logits(self, parts: Parts) -> ChangeLogits:
        change, *classes = parts
        before, after = classes or (None, None)
        return ChangeLogits(change, before, after, unchanged_channel=self._unchanged_channel)

    # ------------------------------------------------------------------------------------------------------ conversion

    def _run(self, what: str, function: Callable[..., Parts], inputs: Parts) -> Parts:
        """Run the network compiled for this shape, or for a larger batch of it; compile it first if there is none."""
        batch = len(inputs[0])
        kind = (what, *(tuple(each.shape[1:]) for each in inputs))
        fits = [cast(int, size) for *known, size in self._compiled if tuple(known) == kind and cast(int, size) >= batch]
        if not fits:
            answer, run = self._convert(function, inputs)
            self._compiled[(*kind, batch)] = run
            return answer
        # The last batch of a run is smaller than the others: filled up, which costs less than to compile once more.
        more = min(fits) - batch
        filled = tuple(torch.cat([each, each[-1:].expand(more, *each.shape[1:])]) if more else each for each in inputs)
        return tuple(part[:batch] for part in self._compiled[(*kind, min(fits))](filled))

    def _convert(self, function: Callable[..., Parts], inputs: Parts) -> tuple[Parts, Callable[[Parts], Parts]]:
        """Torch's own answer to the first batch, and what gives the same from now on."""
        with _plain_torch():
            inputs = tuple(each.clone() for each in inputs)
            # Before it is written down: words that are looked up once are looked up now.
            expected = tuple(part.clone() for part in function(*inputs))
            try:
                run = _compiled(_Graph(cast(nn.Module, self._inside), function), inputs, self._precision)
                found = run(inputs)
            except Exception as error:  # whatever two foreign compilers raise
                reason = " ".join(str(error).split())[:160] or type(error).__name__
                raise UsageError(
                    f"OpenVINO cannot run {self.card.name} ({reason}); use --device cpu, which can"
                ) from error
        for one, other in zip(found, expected, strict=True):
            off = (one - other).abs().mean() / other.abs().mean().clamp(min=1e-6) if one.shape == other.shape else None
            # Written so that NaN is not near anything.
            if off is None or not off <= TOLERANCE[self._precision]:
                told = "of another shape" if off is None else f"off by {100 * float(off):.2g} %"
                raise UsageError(f"through OpenVINO {self.card.name} answers otherwise ({told}); use --device cpu")
        return expected, run


class OpenVinoEncoding(OpenVinoModel):
    """The same for a network that looks once and answers any words: its halves are compiled each for itself."""

    @property
    def encoder_parts(self) -> tuple[str, ...]:
        """See `FeatureModel`."""
        return cast(FeatureModel, self._network).encoder_parts

    def encode(self, before: Tensor, after: Tensor, valid: Tensor | None = None) -> Parts:
        """See `FeatureModel`."""
        network = cast(FeatureModel, self._inside)
        images = (before, after) if valid is None else (before, after, valid)
        return self._run("encode", lambda *each: network.encode(*each), images)

    def answer(self, features: Parts, size: tuple[int, int]) -> ChangeLogits:
        """See `FeatureModel`."""
        network = cast(FeatureModel, self._inside)

        def answered(*each: Tensor) -> Parts:
            return self._parts(network.answer(each, size))

        return self._logits(self._run(f"answer at {size[0]} x {size[1]}", answered, features))


class _Graph(nn.Module):
    """A function of a network as a module of its own: what torch.export takes."""

    def __init__(self, network: nn.Module, function: Callable[..., Parts]) -> None:
        super().__init__()
        self.network = network
        self._function = function

    def forward(self, *inputs: Tensor) -> Parts:
        """Tensors in, tensors out."""
        return self._function(*inputs)


def _compiled(graph: nn.Module, inputs: Parts, precision: Precision) -> Callable[[Parts], Parts]:
    """What OpenVINO makes of a network for inputs of these shapes."""
    with _no_telemetry(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about itself
        openvino: Any = import_module(OPENVINO)
        written = openvino.convert_model(torch.export.export(graph.eval(), inputs))
        written.reshape({place: list(each.shape) for place, each in enumerate(inputs)})
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            # Threads pinned to cores wait for whoever else runs there.
            "ENABLE_CPU_PINNING": False,
        }
        program = openvino.Core().compile_model(written, "CPU", settings)

    def run(given: Parts) -> Parts:
        arrays = [np.ascontiguousarray(each.numpy()) for each in given]
        answers = program(arrays, share_inputs=True)
        return tuple(torch.from_numpy(np.asarray(answers[place])) for place in range(len(program.outputs)))

    return run


@contextmanager
def _plain_torch() -> Iterator[None]:
    """Without the modes that the caller may be in: tensors of inference mode cannot be exported, autocast rounds."""
    with ExitStack() as stack:
        for mode in (torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False)):
            stack.enter_context(mode)
        yield


@contextmanager
def _no_telemetry() -> Iterator[None]:
    """OpenVINO is imported as if its telemetry were not installed; where the caller has it in use, it stays."""
    hide = _TELEMETRY not in sys.modules
    if hide:
        # None makes the import system say that there is no such module.
        sys.modules[_TELEMETRY] = cast(Any, None)
    try:
        yield
    finally:
        if hide:
            sys.modules.pop(_TELEMETRY, None)
