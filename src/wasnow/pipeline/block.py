"""Predict one block: from a window of both dates to codes, confidence and reasons.

    PairWindow (and prior masks) -> scaled arrays -> tiles in batches -> model -> probabilities
        -> centre crop or blending -> result resolution -> threshold, argmax -> BlockPrediction (small)

Probabilities are ``sigmoid(change / T)`` and ``softmax(classes / T)`` with the fitted temperatures T, which are 1 for
an uncalibrated model. Temperature scaling changes the reported confidence, not the map: the model's own threshold is
transformed in the same way. Where probabilities are averaged, by blending or by resampling, pixels close to the
threshold may still change.

`predict_block` reads and writes no files: the same input gives the same result in any process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from wasnow.models.contract import ChangeModel, infer
from wasnow.output.layout import CONFIDENCE_MISSING, CONFIDENCE_SCALE
from wasnow.pipeline.memory import MemoryLimit
from wasnow.raster.blend import Blender, halo, scale_matrix, scaled_range
from wasnow.raster.pair import PairWindow, Reason
from wasnow.raster.radiometry import Stretch
from wasnow.raster.tiles import Block, Tile, Window
from wasnow.vocabulary import Vocabulary

Array = NDArray[np.float32]
Masks = NDArray[np.uint8]


@dataclass(frozen=True)
class InputScaling:
    """How pixel values are prepared for the model.

    Attributes:
        before: the stretch of the earlier date; None keeps the numbers of the file.
        after: the same for AFTER.
        fill_before: one value per band, after stretching, for pixels that are not valid.
        fill_after: the same for AFTER.
    """

    before: Stretch | None
    after: Stretch | None
    fill_before: tuple[float, ...]
    fill_after: tuple[float, ...]

    def arrays(self, pixels: PairWindow) -> tuple[Array, Array]:
        """Both dates ``(C, h, w)`` as the model takes them, finite everywhere."""
        invalid = ~pixels.valid
        return (
            _scaled(pixels.before, self.before, self.fill_before, invalid),
            _scaled(pixels.after, self.after, self.fill_after, invalid),
        )


def _scaled(values: Array, stretch: Stretch | None, fill: tuple[float, ...], invalid: NDArray[np.bool_]) -> Array:
    scaled = values.copy() if stretch is None else stretch.apply(values)
    if invalid.any():
        scaled[:, invalid] = np.asarray(fill, np.float32)[:, None]
    return scaled


@dataclass(frozen=True)
class InferenceSettings:
    """How tiles become codes; the same for all blocks of a run.

    Attributes:
        vocabulary: the class words, in logit order.
        threshold: change probability, 0..1, above which a pixel counts as changed.
        class_thresholds: per word, in logit order; the change probability must also exceed those of the pixel's two
            classes. Empty: none.
        change_temperature: divides the log-odds of change.
        class_temperature: divides the class logits.
        landcover: also keep the classes of both dates where nothing changed.
        factor: result pixels per working pixel, in length.
        result_shape: (rows, cols) of the result grid.
        working_shape: (rows, cols) of the working grid.
        blend: weighted blending of overlapping tiles instead of centre crop.
        batch: tiles per call of the model.
        bf16: let the model multiply in bfloat16 where torch considers that safe.
        symmetric: average the predictions of both orders of the dates.
    """

    vocabulary: Vocabulary
    threshold: float
    factor: float
    result_shape: tuple[int, int]
    working_shape: tuple[int, int]
    blend: bool = False
    batch: int = 1
    bf16: bool = False
    symmetric: bool = False
    class_thresholds: tuple[float, ...] = ()
    change_temperature: float = 1.0
    class_temperature: float = 1.0
    landcover: bool = False

    def result_window(self, core: Window) -> Window:
        """Return the result pixels whose centres lie in a window of the working grid."""
        if self.factor == 1:
            return core
        row, row_stop = scaled_range(core.row, core.row_stop, self.factor, self.result_shape[0])
        col, col_stop = scaled_range(core.col, core.col_stop, self.factor, self.result_shape[1])
        return Window(row, col, row_stop - row, col_stop - col)


@dataclass(frozen=True)
class BlockPrediction:
    """The result of one block, on the result grid.

    Attributes:
        window: its place there.
        codes: ``(3, h, w)`` before_class, after_class, transition; the vocabulary's not-processed value where flagged.
        confidence: ``(1 or 3, h, w)`` uint8: probability x 254 of change (and of both classes); 255 where flagged.
        reason: ``(h, w)`` uint8 of `Reason`.
        landcover: ``(2, h, w)`` class codes 1..K of both dates, changed or not; None unless the settings ask for them.
    """

    window: Window
    codes: NDArray[np.unsignedinteger]
    confidence: NDArray[np.uint8]
    reason: NDArray[np.uint8]
    landcover: NDArray[np.unsignedinteger] | None = None

    def not_processed(self) -> dict[str, int]:
        """Return the number of pixels per reason, by the text of the reason."""
        counts = np.bincount(self.reason.ravel(), minlength=len(Reason))
        return {Reason(i).text: int(n) for i, n in enumerate(counts) if n and i != Reason.PROCESSED}


def predict_block(
    model: ChangeModel,
    scaling: InputScaling,
    settings: InferenceSettings,
    block: Block,
    pixels: PairWindow,
    priors: Masks | None = None,
    limit: MemoryLimit | None = None,
) -> BlockPrediction:
    """Predict one block.

    Args:
        model: bound and fitted.
        scaling: how pixel values are prepared.
        settings: how probabilities become codes.
        block: its tiles.
        pixels: both dates over ``block.read``, clipped to the working grid.
        priors: ``(2, W, h, w)`` prior masks over the same window; None for a model that takes none.
        limit: the memory limit found by earlier blocks; None for a new one.
    """
    limit = limit or memory_limit(model)
    window = settings.result_window(block.core)
    channels = 5 if len(settings.vocabulary) else 1
    best = np.zeros((channels, window.height, window.width), np.float32)
    reason = _reasons(settings, block, pixels, window)
    if block.core.size and window.size and pixels.valid[block.core.within(pixels.window)].any():
        tiles = _tile_probabilities(model, scaling, settings, block, pixels, priors, limit)
        if settings.blend:
            area = _grown(block.core, halo(settings.factor)).clip(*settings.working_shape)
            blender: Blender | None = None
            for tile, probabilities in tiles:
                blender = blender or Blender(len(probabilities), area)
                blender.add(probabilities, tile.read)
            if blender is not None:
                best = _best(_resampled(blender.result(), area, window, settings.factor))
        else:
            for tile, probabilities in tiles:
                part = settings.result_window(tile.core)
                if part.size == 0:
                    continue
                area = _grown(tile.core, halo(settings.factor)).clip(*settings.working_shape).intersect(tile.read)
                kept = probabilities[(slice(None), *area.within(tile.read))]
                best[(slice(None), *part.within(window))] = _best(_resampled(kept, area, part, settings.factor))
    return _coded(settings, window, best, reason)


def _grown(window: Window, by: int) -> Window:
    return Window(window.row - by, window.col - by, window.height + 2 * by, window.width + 2 * by)


def _tile_probabilities(
    model: ChangeModel,
    scaling: InputScaling,
    settings: InferenceSettings,
    block: Block,
    pixels: PairWindow,
    priors: Masks | None,
    limit: MemoryLimit,
) -> Iterator[tuple[Tile, Array]]:
    """Probabilities ``(1 + 2K, h, w)`` over the read window of each tile; tiles without a valid pixel are skipped."""
    before, after = scaling.arrays(pixels)
    valid = pixels.valid
    # A raster smaller than a tile: mirror it until the size is a multiple of the model's stride. Repeated edges look
    # like nothing on the ground, and the receptive field of a network is large enough to be affected inside.
    outside = [
        (0, block.read.row_stop - pixels.window.row_stop),
        (0, block.read.col_stop - pixels.window.col_stop),
    ]
    if outside != [(0, 0), (0, 0)]:
        before, after = (np.pad(values, [(0, 0), *outside], mode="reflect") for values in (before, after))
        valid = np.pad(valid, outside)
        priors = None if priors is None else np.pad(priors, [(0, 0), (0, 0), *outside])
    tiles = [tile for tile in block.tiles if valid[tile.read.within(block.read)].any()]
    for start in range(0, len(tiles), settings.batch):
        batch = tiles[start : start + settings.batch]
        windows = [tile.read.within(block.read) for tile in batch]
        masks = None if priors is None else np.stack([priors[:, :, rows, cols] for rows, cols in windows]) > 0
        inputs = [
            torch.from_numpy(np.stack([before[:, rows, cols] for rows, cols in windows])),
            torch.from_numpy(np.stack([after[:, rows, cols] for rows, cols in windows])),
            torch.from_numpy(np.stack([valid[None, rows, cols] for rows, cols in windows])),
        ]
        if masks is not None:
            inputs.append(torch.from_numpy(masks))
        probabilities = limit.run(partial(_probabilities, model, settings), *inputs).numpy()
        yield from zip(batch, probabilities, strict=True)


def _probabilities(
    model: ChangeModel,
    settings: InferenceSettings,
    before: torch.Tensor,
    after: torch.Tensor,
    valid: torch.Tensor,
    masks: torch.Tensor | None = None,
) -> torch.Tensor:
    """``(B, 1 + 2K, h, w)`` probabilities of change and of the classes of both dates, on the CPU."""
    found = _one_order(model, settings, before, after, valid, masks)
    if not settings.symmetric:
        return found
    back = _one_order(model, settings, after, before, valid, None if masks is None else masks.flip(1))
    classes = (back.shape[1] - 1) // 2
    after_classes, before_classes = back[:, 1 : 1 + classes], back[:, 1 + classes :]
    return (found + torch.cat([back[:, :1], before_classes, after_classes], dim=1)) / 2


def _one_order(
    model: ChangeModel,
    settings: InferenceSettings,
    before: torch.Tensor,
    after: torch.Tensor,
    valid: torch.Tensor,
    masks: torch.Tensor | None,
) -> torch.Tensor:
    with torch.inference_mode(), _precision(settings.bf16):
        logits = infer(model, before, after, valid, masks)
    with torch.inference_mode():
        parts = [torch.sigmoid(logits.change.float() / settings.change_temperature)]
        parts += [(each.float() / settings.class_temperature).softmax(dim=1) for each in logits.land_cover or ()]
        return torch.cat(parts, dim=1).cpu()


def memory_limit(model: ChangeModel) -> MemoryLimit:
    """Return a memory limit for the tiles of a model."""
    return MemoryLimit(model.card.name, model.card.margin, model.card.stride)


@contextmanager
def _precision(bf16: bool) -> Iterator[None]:
    """Autocast to bfloat16 on every device that the model may be on; without ``bf16`` nothing."""
    kinds = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])] if bf16 else []
    with ExitStack() as stack:
        for kind in kinds:
            stack.enter_context(torch.autocast(kind, torch.bfloat16))
        yield


def _resampled(probabilities: Array, area: Window, result: Window, factor: float) -> Array:
    """Resample from ``area`` of the working grid to ``result`` of the result grid."""
    if factor == 1:
        return probabilities if area == result else probabilities[(slice(None), *result.within(area))]
    down = scale_matrix(result.row, result.row_stop, area.row, area.row_stop, factor)
    across = scale_matrix(result.col, result.col_stop, area.col, area.col_stop, factor)
    return np.asarray(down @ probabilities @ across.T, np.float32)


def _best(probabilities: Array) -> Array:
    """``(1 + 2K, h, w)`` probabilities to ``(5, h, w)``: p_change, class and its p before, class and its p after."""
    classes = (len(probabilities) - 1) // 2
    if classes == 0:
        return probabilities
    best = np.zeros((5, *probabilities.shape[1:]), np.float32)
    best[0] = probabilities[0]
    for place, top, part in (
        (best[1], best[2], probabilities[1 : 1 + classes]),
        (best[3], best[4], probabilities[1 + classes :]),
    ):
        # Class by class over whole maps: four times as fast as argmax along the first axis. NaN stays NaN.
        top[...] = part[0]
        for number in range(1, classes):
            np.copyto(place, number, where=part[number] > top)
            np.maximum(top, part[number], out=top)
    return best


def _reasons(settings: InferenceSettings, block: Block, pixels: PairWindow, window: Window) -> NDArray[np.uint8]:
    """The reason of each result pixel, taken from the working pixel that contains its centre."""
    if settings.factor == 1:
        return pixels.reason[window.within(pixels.window)].copy()
    rows = np.floor((np.arange(window.row, window.row_stop) + 0.5) / settings.factor).astype(np.int64)
    cols = np.floor((np.arange(window.col, window.col_stop) + 0.5) / settings.factor).astype(np.int64)
    rows = np.clip(rows, 0, settings.working_shape[0] - 1) - pixels.window.row
    cols = np.clip(cols, 0, settings.working_shape[1] - 1) - pixels.window.col
    return pixels.reason[np.ix_(rows, cols)]


def _coded(settings: InferenceSettings, window: Window, best: Array, reason: NDArray[np.uint8]) -> BlockPrediction:
    # The sum of a few numbers of at most a few hundred is finite exactly if all of them are.
    finite = np.isfinite(best.sum(axis=0))
    if not finite.all():
        reason[(reason == Reason.PROCESSED) & ~finite] = Reason.NOT_FINITE
        best = np.where(finite, best, np.float32(0))
    flagged = reason != Reason.PROCESSED
    landcover: NDArray[np.unsignedinteger] | None = None
    if len(best) == 1:
        codes = settings.vocabulary.encode((best[0] > settings.threshold) & ~flagged)
        probabilities = best
    else:
        before, after = best[1].astype(np.int32), best[3].astype(np.int32)
        changed = (best[0] > _thresholds(settings, before, after)) & ~flagged
        codes = settings.vocabulary.encode(changed, before, after)
        probabilities = best[[0, 2, 4]]
        if settings.landcover:
            landcover = (np.stack([before, after]) + 1).astype(settings.vocabulary.dtype)
            landcover[:, flagged] = settings.vocabulary.not_processed
    confidence = np.rint(probabilities * CONFIDENCE_SCALE).astype(np.uint8)
    if flagged.any():
        codes[:, flagged] = settings.vocabulary.not_processed
        confidence[:, flagged] = CONFIDENCE_MISSING
    return BlockPrediction(window, codes, confidence, reason, landcover)


def _thresholds(settings: InferenceSettings, before: NDArray[np.int32], after: NDArray[np.int32]) -> float | Array:
    """The threshold of each pixel: the highest of the common threshold and those of its two classes."""
    if not settings.class_thresholds:
        return settings.threshold
    of_class = np.maximum(np.asarray(settings.class_thresholds, np.float32), np.float32(settings.threshold))
    highest: Array = np.maximum(of_class[before], of_class[after])
    return highest
