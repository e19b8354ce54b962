"""Run a model within the memory of its device: after an out-of-memory error, smaller batches, then smaller tiles.

    batch of 8 ── out of memory ─> 4 + 4 ── out of memory ─> 2 + 2 + 2 + 2 ... ─> single tiles
    tile       |---------------|
    halves     |----------|          each half overlaps the other by the margin of the model;
                    |----------|     both are cut in the middle

The smaller size is kept for the following batches. Halved batches give the same predictions; halved tiles differ where
the receptive field of the model is larger than its margin.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from wasnow.errors import OutOfMemory

Predict = Callable[..., Tensor]


class MemoryLimit:
    """The largest batch and tile that fit so far.

    Attributes:
        notes: what was reduced, as sentences for the record.

    Args:
        name: of the model, for messages.
        margin: overlap of halved tiles, in pixels.
        stride: sides of tiles are multiples of it.
    """

    def __init__(self, name: str, margin: int, stride: int) -> None:
        self._name = name
        self._margin = margin
        self._stride = stride
        self._batch: int | None = None
        self._pixels: int | None = None
        self.notes: tuple[str, ...] = ()

    def run(self, predict: Predict, *inputs: Tensor) -> Tensor:
        """Return ``predict(*inputs)``, computed in parts where that is necessary.

        Args:
            predict: maps inputs ``(B, C, H, W)`` to ``(B, K, H, W)`` on the CPU.
            *inputs: tensors of one batch; the last two dimensions are rows and columns.

        Raises:
            OutOfMemory: a tile of twice the margin does not fit.
        """
        batch, (height, width) = len(inputs[0]), inputs[0].shape[-2:]
        if self._batch is not None and batch > self._batch:
            parts = [tuple(each[i : i + self._batch] for each in inputs) for i in range(0, batch, self._batch)]
            return torch.cat([self.run(predict, *part) for part in parts])
        if self._pixels is not None and height * width > self._pixels:
            return self._halved(predict, inputs)
        try:
            return predict(*inputs)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
        # Outside the handler: the traceback of the error holds the tensors of the failed call.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if batch > 1:
            self._batch = batch // 2
        else:
            self._pixels = height * width - 1
        self.notes = self._notes()
        return self.run(predict, *inputs)

    def _halved(self, predict: Predict, inputs: tuple[Tensor, ...]) -> Tensor:
        """Predict two overlapping halves along the longer axis."""
        axis = -2 if inputs[0].shape[-2] >= inputs[0].shape[-1] else -1
        length = inputs[0].shape[axis]
        middle = length // 2
        side = -(-(middle + self._margin) // self._stride) * self._stride
        if side >= length or side < 1:
            raise OutOfMemory(
                f"{self._name} does not fit into memory with a tile of {inputs[0].shape[-1]} x {inputs[0].shape[-2]} "
                "px; use --device cpu, or close other programs that use the device"
            )
        first = self.run(predict, *(each.narrow(axis, 0, side) for each in inputs))
        second = self.run(predict, *(each.narrow(axis, length - side, side) for each in inputs))
        cut = middle - (length - side)
        return torch.cat([first.narrow(axis, 0, middle), second.narrow(axis, cut, side - cut)], dim=axis)

    def _notes(self) -> tuple[str, ...]:
        notes = []
        if self._batch is not None:
            notes.append(
                "the device ran out of memory: batches were halved; a smaller --batch avoids the failed attempts"
            )
        if self._pixels is not None:
            notes.append(
                "the device ran out of memory: tiles were divided; a smaller --tile avoids the failed attempts"
            )
        return tuple(notes)


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
