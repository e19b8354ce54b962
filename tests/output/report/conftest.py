"""Result folders as a run would leave them, small and made up: what the reports are tested against."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from wasnow.output.record import (
    AreaRecord,
    FileSum,
    GridRecord,
    InputRecord,
    ModelRecord,
    PixelRecord,
    RunRecord,
    ShiftRecord,
    TransitionRecord,
)
from wasnow.storage.journal import BlockRecord
from wasnow.vocabulary import Vocabulary

UTM = "EPSG:32633"
METRES_10 = (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_400_000.0)
WORDS = ("water", "building", "field")

MakeRun = Callable[..., RunRecord]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """``make_run(transition_codes, words, ...)`` writes a result folder into ``tmp_path`` and answers its record."""

    def make(codes: NDArray[Any] | None = None, words: Sequence[str] = WORDS, **options: Any) -> RunRecord:
        return fake_run(tmp_path, default_codes(Vocabulary(tuple(words))) if codes is None else codes, words, **options)

    return make


def default_codes(vocabulary: Vocabulary, shape: tuple[int, int] = (60, 80)) -> NDArray[Any]:
    """Two rectangles of different change, and a corner that was not processed."""
    codes = np.zeros(shape, vocabulary.dtype)
    codes[5:15, 10:30] = 1
    codes[30:36, 40:50] = vocabulary.n_transitions
    codes[-20:, -20:] = vocabulary.not_processed
    return codes


def grid_record(height: int, width: int, crs: str | None = UTM, transform: Sequence[float] = METRES_10) -> GridRecord:
    a, b, c, d, e, f = transform
    return GridRecord(crs=crs, transform=(a, b, c, d, e, f), width=width, height=height, gsd_m=10.0 if crs else None)


def input_record(path: str, grid: GridRecord, date: str | None, **changes: Any) -> InputRecord:
    record = InputRecord(
        path=path,
        files=(FileSum(name=path, size=1234567, sha256="ab" * 32),),
        driver="GTiff",
        grid=grid,
        dtype="uint16",
        bands=(3, 2, 1),
        band_names=("red", "green", "blue"),
        nodata=(0.0, 0.0, 0.0),
        mask="nodata",
        date=date,
        alignment="as it is",
        overview=None,
        stretch=((12.0, 2040.5), (10.0, 1999.0), (8.0, 1500.25)),
    )
    return record.model_copy(update=changes)


def fake_run(
    folder: Path,
    codes: NDArray[Any],
    words: Sequence[str] = WORDS,
    *,
    crs: str | None = UTM,
    transform: Sequence[float] = METRES_10,
    dates: tuple[str | None, str | None] = ("2009", "2017-06"),
    paths: tuple[str, str] = ("scenes/before.tif", "scenes/after.tif"),
    probability: NDArray[np.uint8] | None = None,
    polygons: int | None = None,
    fit: dict[str, Any] | None = None,
    **changes: Any,
) -> RunRecord:
    """Write ``change.tif``, ``confidence.tif``, ``changes.gpkg`` and ``run.json`` that agree with each other."""
    vocabulary = Vocabulary(tuple(words))
    height, width = codes.shape
    hidden = codes == vocabulary.not_processed
    bands = np.zeros((3, height, width), vocabulary.dtype)
    bands[2] = codes
    if words:
        changed = (codes != 0) & ~hidden
        before, after = np.divmod(codes.astype(int) - 1, len(words))
        bands[0], bands[1] = np.where(changed, before + 1, 0), np.where(changed, after + 1, 0)
    bands[:, hidden] = vocabulary.not_processed
    if probability is None:
        probability = np.where(hidden, 255, np.where(codes > 0, 230, 12)).astype(np.uint8)
    placed = {} if crs is None else {"crs": crs, "transform": Affine(*transform)}
    shape = {"height": height, "width": width, "driver": "GTiff", **placed}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            folder / "change.tif", "w", count=3, dtype=vocabulary.dtype.name, nodata=vocabulary.not_processed, **shape
        ) as sink:
            sink.write(bands)
        with rasterio.open(folder / "confidence.tif", "w", count=1, dtype="uint8", nodata=255, **shape) as sink:
            sink.write(probability, 1)

    area = 100.0 if crs else None
    transitions = []
    for code in np.unique(codes):
        if 0 < code < vocabulary.not_processed:
            kind = vocabulary.transition(int(code))
            pixels = int((codes == code).sum())
            transitions.append(
                TransitionRecord(
                    code=int(code), before=kind.before, after=kind.after, color=kind.color, pixels=pixels,
                    area_m2=None if area is None else pixels * area, polygons=1,
                )
            )  # fmt: skip
    write_polygons(
        folder, codes, vocabulary, crs, transform, transitions if polygons is None else transitions[:polygons]
    )
    grid = grid_record(height, width, crs, transform)
    not_processed = {"nodata in after": int(hidden.sum())} if hidden.any() else {}
    n_changed = sum(row.pixels for row in transitions)
    n_hidden = int(hidden.sum())
    n_unchanged = codes.size - n_changed - n_hidden
    record = RunRecord(
        wasnow="0.1.0",
        status="complete",
        started="2026-01-02T03:04:05+00:00",
        finished="2026-01-02T03:05:06+00:00",
        command=("wasnow", "detect", *paths, "--classes", ", ".join(words), "--out", "my result"),
        environment={"python": "3.11.9", "numpy": "2.4.6", "gdal": "3.10.3", "platform": "Linux x86_64"},
        before=input_record(paths[0], grid, dates[0]),
        after=input_record(paths[1], grid, dates[1], alignment="resampled, cubic"),
        grid=grid,
        working_grid=grid,
        options={"threshold": None, "min_area_m2": 0.0, "resampling": "cubic"},
        model=ModelRecord(
            name="fake", summary="Answers what the test wants.", source="nowhere", fingerprint="0" * 16,
            classes=tuple(words), threshold=0.5, threshold_from="model default", fit=fit,
        ),
        shift=ShiftRecord(rows_px=0.31, cols_px=-0.12, spread_px=0.05, windows=16),
        transitions=tuple(transitions),
        pixels=PixelRecord(
            total=codes.size, changed=n_changed, unchanged=n_unchanged, not_processed=not_processed
        ),
        areas_m2=None
        if area is None
        else AreaRecord(
            total=codes.size * area, changed=n_changed * area, not_processed=n_hidden * area,
            unchanged=n_unchanged * area,
        ),
        polygons=len(transitions),
        blocks=tuple(
            BlockRecord(block=i, row=row, col=col, height=20, width=20, outcome="done", seconds=0.5)
            for i, (row, col) in enumerate((r, c) for r in range(0, height, 20) for c in range(0, width, 20))
        ),
        warnings=(),
        timings_s={"read": 1.5, "model": 20.25, "polygons": 0.5},
        outputs=(
            FileSum(name="change.tif", size=1000, sha256="cd" * 32),
            FileSum(name="confidence.tif", size=900, sha256="ef" * 32),
            FileSum(name="changes.gpkg", size=800, sha256="01" * 32),
            FileSum(name="changes.parquet", size=700, sha256="23" * 32),
        ),
    )  # fmt: skip
    record = record.model_copy(update=changes)
    record.write(folder / "run.json")
    return record


def write_polygons(
    folder: Path,
    codes: NDArray[Any],
    vocabulary: Vocabulary,
    crs: str | None,
    transform: Sequence[float],
    transitions: Sequence[TransitionRecord],
) -> None:
    """One box per transition, around its pixels."""
    boxes = []
    for row in transitions:
        rows, cols = np.nonzero(codes == row.code)
        a, b, c, d, e, f = transform
        (left, right), (top, bottom) = (cols.min(), cols.max() + 1), (rows.min(), rows.max() + 1)
        boxes.append(
            shapely.box(
                a * left + b * top + c, d * left + e * top + f, a * right + b * bottom + c, d * right + e * bottom + f
            )
        )
    n = len(boxes)
    columns: dict[str, Any] = {
        "id": np.arange(1, n + 1, dtype=np.int64),
        "from": np.array([row.before for row in transitions], object),
        "to": np.array([row.after for row in transitions], object),
        "p_change": np.full(n, 0.9),
        "p_from": np.full(n, 0.8),
        "p_to": np.full(n, 0.7),
        "area_m2": np.array([np.nan if row.area_m2 is None else row.area_m2 for row in transitions], np.float64),
        "n_px": np.array([row.pixels for row in transitions], np.int64),
        "date_before": np.array(["2009"] * n, object),
        "date_after": np.array(["2017"] * n, object),
        "edge": np.zeros(n, bool),
        "flags": np.array([""] * n, object),
        "review_status": np.array(["unreviewed"] * n, object),
        "review_reason": np.array([None] * n, object),
        "reviewer": np.array([None] * n, object),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # no CRS: meant so
        pyogrio.raw.write(
            folder / "changes.gpkg",
            geometry=np.array([shapely.to_wkb(shape) for shape in boxes], object),
            field_data=list(columns.values()),
            fields=list(columns),
            layer="changes",
            driver="GPKG",
            geometry_type="Polygon",
            crs=crs,
        )
