"""Survey of a pair before inference: a sample of valid pixels and the shift between the dates.

Reads all pixels of a raster up to `BUDGET_PX`, and evenly spaced squares of a larger one, so that time and memory are
bounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wasnow.raster.pair import PairReader, PairWindow, Reason
from wasnow.raster.tiles import Window

SQUARE = 256
BUDGET_PX = 2**24
"""Most pixels to read: 256 squares."""
LIGHT_BUDGET_PX = 2**22
"""Most pixels to read if only the stretch and the shift are needed and no model is fitted."""
KEPT_BYTES = 160 * 2**20
"""Most bytes of samples to keep, both dates together."""
SHIFT_SQUARES = 25
COARSE_SIDE = 4096
"""Side of the middle part of a pair that is searched for large shifts, in pixels of the working grid."""

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Shift:
    """Displacement of the after image against the before image, in pixels of the working grid.

    Attributes:
        rows_px: positive is down.
        cols_px: positive is right.
        spread_px: median distance of single windows from the median displacement.
        windows: number of windows with an estimate.
    """

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
    """Result of `survey`.

    Attributes:
        before: ``(N, Cb)`` float32 samples of pixels valid at both dates.
        after: ``(N, Ca)`` samples of the same pixels.
        shift: None if it could not be estimated.
        read_px: pixels read.
        valid_px: pixels read that are valid at both dates.
    """

    before: Samples
    after: Samples
    shift: Shift | None
    read_px: int
    valid_px: int

    def pixels(self, chunk: int = 2**18) -> Iterator[tuple[Samples, Samples]]:
        """Iterate over the samples in chunks, always in the same order."""
        for start in range(0, len(self.before), chunk):
            yield self.before[start : start + chunk], self.after[start : start + chunk]


def sample_windows(height: int, width: int, budget_px: int = BUDGET_PX) -> list[Window]:
    """Return squares of a fixed lattice: all of them, or every n-th row and column within the budget.

    Args:
        height: rows of the raster.
        width: columns of the raster.
        budget_px: most pixels to read; at least one square is returned.
    """
    down, across = -(-height // SQUARE), -(-width // SQUARE)
    step_down = step_across = 1
    # Thin out the axis with more squares until the rest fits the budget.
    while -(-down // step_down) * -(-across // step_across) * SQUARE**2 > max(budget_px, SQUARE**2):
        if -(-down // step_down) >= -(-across // step_across):
            step_down += 1
        else:
            step_across += 1
    # Centred, because the edge of an image is often empty.
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
    """Survey a pair; without a pixel that is valid at both dates, the samples are empty.

    Args:
        reader: the open pair.
        budget_px: most pixels to read.
        skip_unreadable: skip damaged parts of a file (the run flags those pixels later).
        progress: called with (squares done, number of squares).

    Raises:
        RasterUnreadable: a file is damaged.
    """
    height, width = reader.pair.working.shape
    windows = sample_windows(height, width, budget_px)
    bands = reader.pair.before.source.n_bands + reader.pair.after.source.n_bands
    most = max(1, KEPT_BYTES // (4 * bands))
    # Every k-th valid pixel of each square: fixed in advance, so that the selection is deterministic.
    keep_every = max(1, math.ceil(sum(window.size for window in windows) / most))
    # Read only if no pixel of the sampled squares is valid at both dates.
    sampled = set(windows)
    others = (window for window in sample_windows(height, width, height * width) if window not in sampled)
    before: list[Samples] = []
    after: list[Samples] = []
    candidates: list[tuple[Future[float], Window]] = []
    read_px = valid_px = 0
    # Textures are computed while the next square is read, and shifts in parallel; the order is kept.
    with ThreadPoolExecutor(2, thread_name_prefix="wasnow-survey") as pool:
        for done, window in enumerate((*windows, *others)):
            if done >= len(windows) and valid_px:
                break
            if progress is not None:
                progress(min(done, len(windows)), len(windows))
            pair_window = reader.read_around_damage(window)[0] if skip_unreadable else reader.read(window)
            read_px += window.size
            valid = pair_window.valid
            valid_px += int(valid.sum())
            before.append(pair_window.before[:, valid][:, ::keep_every].T)
            after.append(pair_window.after[:, valid][:, ::keep_every].T)
            if (
                min(window.height, window.width) >= 64
                and valid.mean() > 0.95
                and not (pair_window.reason == Reason.UNREADABLE).any()
            ):
                candidates.append((pool.submit(_texture, pair_window), window))
                # Wait for earlier textures, so that only a few squares are in memory.
                candidates[max(0, len(candidates) - 4)][0].result()
        ranked = sorted(
            ((texture.result(), window) for texture, window in candidates), key=lambda candidate: -candidate[0]
        )
        best = [window for _, window in ranked[:SHIFT_SQUARES]]
        shift = estimate_shift((reader.read(window) for window in sorted(best)), pool)
        if shift is None or shift.spread_px > max(2.0, shift.length_px / 5):
            shift = _large_shift(reader, skip_unreadable) or shift
    return Survey(np.concatenate(before), np.concatenate(after), shift, read_px, valid_px)


def _grey(values: Samples) -> Samples:
    """Mean over bands, with missing pixels set to the mean of the others."""
    grey = values.mean(axis=0)
    known = np.isfinite(grey)
    return np.where(known, grey, grey[known].mean() if known.any() else 0).astype(np.float32)


def _texture(window: PairWindow) -> float:
    """Mean edge strength of the date with less of it; low for water and clouds."""
    return min(float(_edges(_grey(values)).mean()) for values in (window.before, window.after))


def _edges(grey: Samples) -> Samples:
    """Gradient magnitude."""
    rows, cols = np.gradient(grey)
    return np.asarray(np.hypot(rows, cols), np.float32)


def estimate_shift(windows: Iterable[PairWindow], pool: ThreadPoolExecutor | None = None) -> Shift | None:
    """Return the median displacement of after against before, by phase correlation of edge strength.

    Edge strength rather than brightness: seasons change brightness, but not the position of edges. Windows whose
    peak is farther than an eighth of their side are left out.

    Args:
        windows: both dates of each window.
        pool: computes several windows in parallel; None for one after the other.

    Returns:
        None if fewer than three windows (in a small image: none) have an estimate.
    """
    estimates = list(pool.map(_displacement, windows) if pool is not None else map(_displacement, windows))
    found = [estimate for estimate in estimates if estimate is not None]
    if len(found) < min(3, max(1, len(estimates))):
        return None
    shifts = np.asarray(found)
    middle = np.median(shifts, axis=0)
    spread = float(np.median(np.hypot(*(shifts - middle).T)))
    return Shift(float(middle[0]), float(middle[1]), spread, len(found))


def _large_shift(reader: PairReader, skip_unreadable: bool) -> Shift | None:
    """Return a shift beyond the range of single windows, from a coarse copy of the middle of the pair.

    The shift is accepted if it aligns the edges of both dates clearly better than none, then refined at full
    resolution.
    """
    height, width = reader.pair.working.shape
    side_rows, side_cols = min(height, COARSE_SIDE), min(width, COARSE_SIDE)
    factor = max(2, -(-max(side_rows, side_cols) // 512))
    if min(side_rows, side_cols) // factor < 64:
        return None
    top, left = (height - side_rows) // 2, (width - side_cols) // 2
    strips: list[tuple[Samples, Samples]] = []
    for row in range(top, top + side_rows - factor + 1, factor * 64):
        rows = min(factor * 64, (top + side_rows - row) // factor * factor)
        window = Window(row, left, rows, side_cols // factor * factor)
        pair_window = reader.read_around_damage(window)[0] if skip_unreadable else reader.read(window)
        strips.append((_reduced(pair_window.before, factor), _reduced(pair_window.after, factor)))
    before, after = (_edges(_grey(np.concatenate(dates)[None])) for dates in zip(*strips, strict=True))
    offset = _phase_offset(before, after)
    if offset is None or np.abs(offset).max() > min(before.shape) / 3:
        return None
    rows, cols = (-round(each) for each in offset)
    aligned, plain = _correlation(before, after, rows, cols), _correlation(before, after, 0, 0)
    if aligned < 0.3 or aligned < plain + 0.15:
        return None
    shift = Shift(-offset[0] * factor, -offset[1] * factor, factor / 2, 1)
    return _refined(reader, shift, skip_unreadable)


def _refined(reader: PairReader, shift: Shift, skip_unreadable: bool) -> Shift:
    """Measure the rest of a large shift on windows of full resolution, moved by it."""
    rows, cols = round(shift.rows_px), round(shift.cols_px)
    frame = Window(0, 0, *reader.pair.working.shape)
    moved = []
    for window in sample_windows(*reader.pair.working.shape, SHIFT_SQUARES * SQUARE**2):
        there = Window(window.row + rows, window.col + cols, window.height, window.width)
        if there.intersect(frame) != there or min(window.height, window.width) < 64:
            continue
        read = (lambda each: reader.read_around_damage(each)[0]) if skip_unreadable else reader.read
        first, second = read(window), read(there)
        moved.append(PairWindow(window, first.before, second.after, np.maximum(first.reason, second.reason)))
    rest = estimate_shift(moved)
    if rest is None or rest.length_px > 2 * shift.spread_px + 2:
        return shift
    return Shift(rows + rest.rows_px, cols + rest.cols_px, rest.spread_px, rest.windows)


def _reduced(values: Samples, factor: int) -> Samples:
    """Return ``(h / factor, w / factor)`` means over bands and cells; NaN without data."""
    bands, height, width = values.shape
    cells = values.reshape(bands, height // factor, factor, width // factor, factor)
    known = np.isfinite(cells)
    count = known.sum(axis=(0, 2, 4))
    total = np.where(known, cells, 0).sum(axis=(0, 2, 4), dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def _correlation(before: Samples, after: Samples, rows: int, cols: int) -> float:
    """Return the correlation of two images over their overlap, with after displaced by (rows, cols)."""
    height, width = before.shape
    first = before[max(0, -rows) : height - max(0, rows), max(0, -cols) : width - max(0, cols)]
    second = after[max(0, rows) : height - max(0, -rows), max(0, cols) : width - max(0, -cols)]
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def _displacement(window: PairWindow) -> tuple[float, float] | None:
    """Return (rows, cols) by which after is displaced in one window; None without texture or with a distant peak."""
    before, after = _edges(_grey(window.before)), _edges(_grey(window.after))
    offset = _phase_offset(before, after)
    if offset is None or max(map(abs, offset)) > min(before.shape) / 8:
        return None
    return -offset[0], -offset[1]


def _phase_offset(before: Samples, after: Samples) -> tuple[float, float] | None:
    """Return the (rows, cols) that register after to before, by phase correlation; None for constant images."""
    from skimage.registration import phase_cross_correlation

    if before.std() == 0 or after.std() == 0:
        return None
    taper = np.outer(np.hanning(before.shape[0]), np.hanning(before.shape[1]))
    before, after = (before - before.mean()) * taper, (after - after.mean()) * taper
    offset, _, _ = phase_cross_correlation(  # type: ignore[no-untyped-call]
        before, after, upsample_factor=20, normalization=None
    )
    return float(offset[0]), float(offset[1])
