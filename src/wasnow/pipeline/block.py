"""From a window of both dates to codes: the part of a run that is the same on one process, many, or a cluster.

    PairWindow (and masks) -> fed arrays -> tiles in batches -> model -> probabilities -> centre crop or blend
        -> result resolution -> threshold, argmax -> BlockAnswer (codes, confidence, reason: small)

Temperatures make probabilities of log-odds, ``sigmoid(change / T)`` and ``softmax(classes / T)``: 1 where a model was
not calibrated. They change how sure the map says it is, not the map: its own threshold moves along
(see `moved_threshold`). Where probabilities are averaged, by blending or onto another grid, pixels close
to the threshold may still turn over.

`answer_block` reads nothing and writes nothing: the same input gives the same answer wherever it runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from wasnow.models.contract import ChangeModel, infer
from wasnow.output.layout import CONFIDENCE_MISSING, CONFIDENCE_SCALE
from wasnow.raster.blend import Blender, halo, scale_matrix, scaled_range
from wasnow.raster.pair import PairWindow, Reason
from wasnow.raster.radiometry import Stretch
from wasnow.raster.tiles import Block, Tile, Window
from wasnow.vocabulary import Vocabulary

Array = NDArray[np.float32]
Masks = NDArray[np.uint8]


@dataclass(frozen=True)
class Feed:
    """How a model wants its pixels: the stretch of each date (None: native numbers) and what fills the gaps."""

    before: Stretch | None
    after: Stretch | None
    fill_before: tuple[float, ...]
    fill_after: tuple[float, ...]

    def arrays(self, seen: PairWindow) -> tuple[Array, Array]:
        """Both dates as the model wants them, finite everywhere."""
        gaps = ~seen.valid
        return (
            _fed(seen.before, self.before, self.fill_before, gaps),
            _fed(seen.after, self.after, self.fill_after, gaps),
        )


def _fed(values: Array, stretch: Stretch | None, fill: tuple[float, ...], gaps: NDArray[np.bool_]) -> Array:
    fed = values.copy() if stretch is None else stretch.apply(values)
    if gaps.any():
        fed[:, gaps] = np.asarray(fill, np.float32)[:, None]
    return fed


@dataclass(frozen=True)
class Rules:
    """What turns probabilities into codes, fixed for a run.

    Attributes:
        vocabulary: the words, in logit order.
        threshold: change probability above which a pixel counts as changed.
        class_thresholds: per word, in logit order; a pixel must be above those of its two classes too. Empty: none.
        change_temperature, class_temperature: divide the log-odds of change, and the class logits.
        landcover: also keep the classes of both dates where nothing changed.
        factor: result pixels per working pixel, in length.
        result_shape: (rows, cols) of the result grid.
        working_shape: (rows, cols) of the working grid.
        blend: weighted blending instead of centre crop.
        batch: tiles per call of the model.
        bf16: let the model multiply in bfloat16 where that is safe.
    """

    vocabulary: Vocabulary
    threshold: float
    factor: float
    result_shape: tuple[int, int]
    working_shape: tuple[int, int]
    blend: bool = False
    batch: int = 1
    bf16: bool = False
    class_thresholds: tuple[float, ...] = ()
    change_temperature: float = 1.0
    class_temperature: float = 1.0
    landcover: bool = False

    def result_window(self, core: Window) -> Window:
        """The result pixels whose centres lie in a core of the working grid."""
        if self.factor == 1:
            return core
        row, row_stop = scaled_range(core.row, core.row_stop, self.factor, self.result_shape[0])
        col, col_stop = scaled_range(core.col, core.col_stop, self.factor, self.result_shape[1])
        return Window(row, col, row_stop - row, col_stop - col)


@dataclass(frozen=True)
class BlockAnswer:
    """What is kept of a block, on the result grid.

    Attributes:
        window: where.
        codes: ``(3, h, w)`` before_class, after_class, transition; the vocabulary's not-processed value where flagged.
        confidence: ``(1 or 3, h, w)`` uint8: probability x 254 of change (and of both classes); 255 where flagged.
        reason: ``(h, w)`` uint8 of `Reason`.
        landcover: ``(2, h, w)`` class codes 1..K of both dates, changed or not; None unless the rules ask for it.
    """

    window: Window
    codes: NDArray[np.unsignedinteger]
    confidence: NDArray[np.uint8]
    reason: NDArray[np.uint8]
    landcover: NDArray[np.unsignedinteger] | None = None

    def not_processed(self) -> dict[str, int]:
        """Pixels per reason, in words."""
        counts = np.bincount(self.reason.ravel(), minlength=len(Reason))
        return {Reason(i).text: int(n) for i, n in enumerate(counts) if n and i != Reason.PROCESSED}


def answer_block(
    model: ChangeModel, feed: Feed, rules: Rules, block: Block, seen: PairWindow, priors: Masks | None = None
) -> BlockAnswer:
    """Answer one block.

    Args:
        model: bound and fitted.
        feed: how it wants its pixels.
        rules: how its probabilities become codes.
        block: which tiles.
        seen: both dates over ``block.read``, clipped to the working grid.
        priors: ``(2, W, h, w)`` over the same window, for a `GuidedModel`: where its words are at each date.
    """
    window = rules.result_window(block.core)
    channels = 5 if len(rules.vocabulary) else 1
    answer = np.zeros((channels, window.height, window.width), np.float32)
    reason = _reasons(rules, block, seen, window)
    if block.core.size and window.size and seen.valid[block.core.within(seen.window)].any():
        if rules.blend:
            area = _grown(block.core, halo(rules.factor)).clip(*rules.working_shape)
            blender: Blender | None = None
            for tile, probabilities in _answers(model, feed, rules, block, seen, priors):
                blender = blender or Blender(len(probabilities), area)
                blender.add(probabilities, tile.read)
            if blender is not None:
                answer = _best(_resampled(blender.result(), area, window, rules.factor))
        else:
            for tile, probabilities in _answers(model, feed, rules, block, seen, priors):
                part = rules.result_window(tile.core)
                if part.size == 0:
                    continue
                area = _grown(tile.core, halo(rules.factor)).clip(*rules.working_shape).intersect(tile.read)
                kept = probabilities[(slice(None), *area.within(tile.read))]
                answer[(slice(None), *part.within(window))] = _best(_resampled(kept, area, part, rules.factor))
    return _coded(rules, window, answer, reason)


def _grown(window: Window, by: int) -> Window:
    return Window(window.row - by, window.col - by, window.height + 2 * by, window.width + 2 * by)


def _answers(
    model: ChangeModel, feed: Feed, rules: Rules, block: Block, seen: PairWindow, priors: Masks | None
) -> Iterator[tuple[Tile, Array]]:
    """Probabilities ``(1 + 2K, h, w)`` over each tile's read window, tiles without a valid pixel left out."""
    before, after = feed.arrays(seen)
    valid = seen.valid
    # A raster smaller than a tile: mirror it until the model has its multiple of the stride. Repeated edges look like
    # nothing on the ground, and networks see far enough for that to spoil the answer inside.
    outside = [
        (0, block.read.row_stop - seen.window.row_stop),
        (0, block.read.col_stop - seen.window.col_stop),
    ]
    if outside != [(0, 0), (0, 0)]:
        before, after = (np.pad(values, [(0, 0), *outside], mode="reflect") for values in (before, after))
        valid = np.pad(valid, outside)
        priors = None if priors is None else np.pad(priors, [(0, 0), (0, 0), *outside])
    tiles = [tile for tile in block.tiles if valid[tile.read.within(block.read)].any()]
    for start in range(0, len(tiles), rules.batch):
        some = tiles[start : start + rules.batch]
        cuts = [tile.read.within(block.read) for tile in some]
        masks = None if priors is None else np.stack([priors[:, :, rows, cols] for rows, cols in cuts]) > 0
        with torch.inference_mode(), _precision(rules.bf16):
            logits = infer(
                model,
                torch.from_numpy(np.stack([before[:, rows, cols] for rows, cols in cuts])),
                torch.from_numpy(np.stack([after[:, rows, cols] for rows, cols in cuts])),
                torch.from_numpy(np.stack([valid[None, rows, cols] for rows, cols in cuts])),
                None if masks is None else torch.from_numpy(masks),
            )
        with torch.inference_mode():
            parts = [torch.sigmoid(logits.change.float() / rules.change_temperature)]
            parts += [(each.float() / rules.class_temperature).softmax(dim=1) for each in logits.land_cover or ()]
            probabilities = torch.cat(parts, dim=1).cpu().numpy()
        yield from zip(some, probabilities, strict=True)


@contextmanager
def _precision(bf16: bool) -> Iterator[None]:
    """Bfloat16 where that is safe, on whatever device the model is; or as it comes."""
    kinds = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])] if bf16 else []
    with ExitStack() as stack:
        for kind in kinds:
            stack.enter_context(torch.autocast(kind, torch.bfloat16))
        yield


def _resampled(probabilities: Array, area: Window, result: Window, factor: float) -> Array:
    """From ``area`` of the working grid to ``result`` of the result grid."""
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
        # Class by class, over whole maps: four times as fast as argmax along the first axis. NaN stays NaN.
        top[...] = part[0]
        for number in range(1, classes):
            np.copyto(place, number, where=part[number] > top)
            np.maximum(top, part[number], out=top)
    return best


def _reasons(rules: Rules, block: Block, seen: PairWindow, window: Window) -> NDArray[np.uint8]:
    """Why pixels of the result window are not processed, taken from the working pixel that holds their centre."""
    if rules.factor == 1:
        return seen.reason[window.within(seen.window)].copy()
    rows = np.floor((np.arange(window.row, window.row_stop) + 0.5) / rules.factor).astype(np.int64)
    cols = np.floor((np.arange(window.col, window.col_stop) + 0.5) / rules.factor).astype(np.int64)
    rows = np.clip(rows, 0, rules.working_shape[0] - 1) - seen.window.row
    cols = np.clip(cols, 0, rules.working_shape[1] - 1) - seen.window.col
    return seen.reason[np.ix_(rows, cols)]


def _coded(rules: Rules, window: Window, answer: Array, reason: NDArray[np.uint8]) -> BlockAnswer:
    # A sum over few numbers of at most a few hundred is finite if all of them are.
    finite = np.isfinite(answer.sum(axis=0))
    if not finite.all():
        reason[(reason == Reason.PROCESSED) & ~finite] = Reason.NOT_FINITE
        answer = np.where(finite, answer, np.float32(0))
    flagged = reason != Reason.PROCESSED
    landcover: NDArray[np.unsignedinteger] | None = None
    if len(answer) == 1:
        codes = rules.vocabulary.encode((answer[0] > rules.threshold) & ~flagged)
        shown = answer
    else:
        before, after = answer[1].astype(np.int32), answer[3].astype(np.int32)
        codes = rules.vocabulary.encode((answer[0] > _thresholds(rules, before, after)) & ~flagged, before, after)
        shown = answer[[0, 2, 4]]
        if rules.landcover:
            landcover = (np.stack([before, after]) + 1).astype(rules.vocabulary.dtype)
            landcover[:, flagged] = rules.vocabulary.not_processed
    confidence = np.rint(shown * CONFIDENCE_SCALE).astype(np.uint8)
    if flagged.any():
        codes[:, flagged] = rules.vocabulary.not_processed
        confidence[:, flagged] = CONFIDENCE_MISSING
    return BlockAnswer(window, codes, confidence, reason, landcover)


def _thresholds(rules: Rules, before: NDArray[np.int32], after: NDArray[np.int32]) -> float | Array:
    """What each pixel's change probability must exceed: the common threshold and those of its two classes."""
    if not rules.class_thresholds:
        return rules.threshold
    of_class = np.maximum(np.asarray(rules.class_thresholds, np.float32), np.float32(rules.threshold))
    highest: Array = np.maximum(of_class[before], of_class[after])
    return highest
