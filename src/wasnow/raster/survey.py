"""One look over the pair before any tile is answered: a sample of pixels, the stretch of each date, the shift between.

Reads squares of the working grid in a fixed lattice; every pixel of a raster up to `BUDGET_PX`, and evenly spread
squares of a larger one, so the time and the memory are bounded whatever the raster.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wasnow.errors import InputError
from wasnow.raster.pair import PairReader, PairWindow, Reason
from wasnow.raster.tiles import Window

SQUARE = 256
BUDGET_PX = 2**24
"""Pixels that are read at most: 256 squares."""
LIGHT_BUDGET_PX = 2**22
"""Pixels that are enough where only the stretch and the shift are wanted, and nothing is fitted."""
KEPT_BYTES = 160 * 2**20
"""Bytes of samples that are kept at most, both dates together."""
SHIFT_SQUARES = 25

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Shift:
    """How far the after image lies off, in pixels of the working grid; positive is down and right."""

    rows_px: float
    cols_px: float
    spread_px: float
    windows: int

    @property
    def length_px(self) -> float:
        """Euclidean length."""
        return math.hypot(self.rows_px, self.cols_px)


@dataclass(frozen=True)
class Survey:
    """What the look found.

    Attributes:
        before: ``(N, Cb)`` float32 samples of pixels valid at both dates.
        after: ``(N, Ca)`` at the same places.
        shift: None where no square had enough texture at both dates.
        read_px: pixels read; ``valid_px`` of them could be compared.
    """

    before: Samples
    after: Samples
    shift: Shift | None
    read_px: int
    valid_px: int

    def pixels(self, chunk: int = 2**18) -> Iterator[tuple[Samples, Samples]]:
        """The samples in chunks, always in the same order."""
        for start in range(0, len(self.before), chunk):
            yield self.before[start : start + chunk], self.after[start : start + chunk]


def sample_windows(height: int, width: int, budget_px: int = BUDGET_PX) -> list[Window]:
    """Squares of a fixed lattice: all of them, or every n-th row and column of squares within the budget."""
    down, across = -(-height // SQUARE), -(-width // SQUARE)
    step_down = step_across = 1
    # Thin out the axis that has more squares left, until the rest fits the budget.
    while -(-down // step_down) * -(-across // step_across) * SQUARE**2 > max(budget_px, SQUARE**2):
        if -(-down // step_down) >= -(-across // step_across):
            step_down += 1
        else:
            step_across += 1
    # Centred, so that the edge of the image, often empty, is not favoured.
    first_row, first_col = ((down - 1) % step_down) // 2, ((across - 1) % step_across) // 2
    return [
        Window(row * SQUARE, col * SQUARE, min(SQUARE, height - row * SQUARE), min(SQUARE, width - col * SQUARE))
        for row in range(first_row, down, step_down)
        for col in range(first_col, across, step_across)
    ]


def survey(
    reader: PairReader,
    *,
    budget_px: int = BUDGET_PX,
    skip_unreadable: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Survey:
    """Look over a pair.

    Args:
        reader: the open pair.
        budget_px: pixels to read at most.
        skip_unreadable: go on where a file is damaged (the run flags those pixels later).
        progress: called with (squares done, squares in all).

    Raises:
        InputError: not one pixel is valid at both dates.
        RasterUnreadable: a file is damaged.
    """
    height, width = reader.pair.working.shape
    windows = sample_windows(height, width, budget_px)
    bands = reader.pair.before.source.n_bands + reader.pair.after.source.n_bands
    most = max(1, KEPT_BYTES // (4 * bands))
    # Every k-th valid pixel of each square: fixed in advance, so the order and the choice never vary.
    keep_every = max(1, math.ceil(sum(window.size for window in windows) / most))
    before: list[Samples] = []
    after: list[Samples] = []
    candidates: list[tuple[Future[float], Window]] = []
    read_px = valid_px = 0
    # What is counted of one square is counted while the next is read, and shifts two by two; the order stays.
    with ThreadPoolExecutor(2, thread_name_prefix="wasnow-survey") as beside:
        for done, window in enumerate(windows):
            if progress is not None:
                progress(done, len(windows))
            seen = reader.read_around_damage(window)[0] if skip_unreadable else reader.read(window)
            read_px += window.size
            valid = seen.valid
            valid_px += int(valid.sum())
            before.append(seen.before[:, valid][:, ::keep_every].T)
            after.append(seen.after[:, valid][:, ::keep_every].T)
            if (
                min(window.height, window.width) >= 64
                and valid.mean() > 0.95
                and not (seen.reason == Reason.UNREADABLE).any()
            ):
                candidates.append((beside.submit(_texture, seen), window))
                # No more than a few squares in memory, however slow the counting.
                candidates[max(0, len(candidates) - 4)][0].result()
        if valid_px == 0:
            raise InputError(
                f"no pixel is valid at both dates ({read_px} looked at); check nodata, masks and overlap with "
                "wasnow info"
            )
        ranked = sorted(((texture.result(), window) for texture, window in candidates), key=lambda each: -each[0])
        best = [window for _, window in ranked[:SHIFT_SQUARES]]
        shift = estimate_shift((reader.read(window) for window in sorted(best)), beside)
    return Survey(np.concatenate(before), np.concatenate(after), shift, read_px, valid_px)


def _grey(values: Samples) -> Samples:
    """Mean over bands, missing pixels filled with the mean of the rest."""
    grey = values.mean(axis=0)
    known = np.isfinite(grey)
    return np.where(known, grey, grey[known].mean() if known.any() else 0).astype(np.float32)


def _texture(seen: PairWindow) -> float:
    """Mean edge strength of the weaker date: flat water and clouds score low."""
    return min(float(_edges(_grey(values)).mean()) for values in (seen.before, seen.after))


def _edges(grey: Samples) -> Samples:
    """Gradient magnitude."""
    rows, cols = np.gradient(grey)
    return np.asarray(np.hypot(rows, cols), np.float32)


def estimate_shift(windows: Iterable[PairWindow], pool: ThreadPoolExecutor | None = None) -> Shift | None:
    """Median displacement of after against before over windows, by phase correlation of edge strength.

    Edge strength rather than brightness, since crops and seasons change brightness but not where edges lie. Windows
    whose peak lies further off than an eighth of their side are left out; None where fewer than three (or, in a small
    image, none) remain.

    Args:
        windows: both dates over each.
        pool: works on several at once.
    """
    told = list(pool.map(_displacement, windows) if pool is not None else map(_displacement, windows))
    found = [one for one in told if one is not None]
    if len(found) < min(3, max(1, len(told))):
        return None
    shifts = np.asarray(found)
    middle = np.median(shifts, axis=0)
    spread = float(np.median(np.hypot(*(shifts - middle).T)))
    return Shift(float(middle[0]), float(middle[1]), spread, len(found))


def _displacement(seen: PairWindow) -> tuple[float, float] | None:
    """Rows and columns by which after lies off in one window; None without texture, or where the peak lies too far."""
    from skimage.registration import phase_cross_correlation

    before, after = _edges(_grey(seen.before)), _edges(_grey(seen.after))
    if before.std() == 0 or after.std() == 0:
        return None
    taper = np.outer(np.hanning(before.shape[0]), np.hanning(before.shape[1]))
    before, after = (before - before.mean()) * taper, (after - after.mean()) * taper
    forth, _, _ = phase_cross_correlation(  # type: ignore[no-untyped-call]
        before, after, upsample_factor=20, normalization=None
    )
    if np.abs(forth).max() > min(before.shape) / 8:
        return None
    return -float(forth[0]), -float(forth[1])
