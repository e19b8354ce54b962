"""A worker predicts the blocks of a run. This module defines what it receives, what it returns, and the worker itself.

    RunSpec ──(this process, a pipe, a network)──> Worker: opens the rasters, loads the model once
    block number ────────────────────────────────> read ──> predict ──> BlockResult: record, codes and confidence

A run specification consists of plain values, and a block of it has the same result in every process. Blocks may
therefore be computed in any order, by any worker, and more than once. `wasnow.pipeline.backends` distributes them.
"""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

import wasnow
from wasnow.errors import UsageError, WasnowError, WorkersLost
from wasnow.models.contract import ChangeModel
from wasnow.models.loading import ModelReference, resolve_device
from wasnow.pipeline.acceleration import Precision, accelerated
from wasnow.pipeline.block import (
    BlockPrediction,
    InferenceSettings,
    InputScaling,
    Masks,
    memory_limit,
    predict_block,
)
from wasnow.pipeline.feature_cache import CachedFeatureModel, FeatureStore
from wasnow.priors.store import Priors
from wasnow.raster.gdal import gdal_settings
from wasnow.raster.pair import Pair, PairReader, PairWindow, PlacedSource, Reason
from wasnow.raster.tiles import Block, Tiling
from wasnow.storage.journal import BlockRecord

Arrays = dict[str, NDArray[Any]]
T = TypeVar("T")

ATTEMPTS = 3
"""How often a block may crash its worker while no other block runs, before it is flagged."""


@dataclass(frozen=True)
class FeatureCacheSpec:
    """Where image features are cached.

    Attributes:
        folder: shared by all workers.
        limit_bytes: largest size of all its files together.
        identity: of the network that computes the features, from `wasnow.pipeline.feature_cache.model_identity`.
        writers: number of workers that write to it at the same time.
    """

    folder: Path
    limit_bytes: int
    identity: str
    writers: int = 1


@dataclass(frozen=True)
class RunSpec:
    """All that is the same for every block of a run.

    Attributes:
        pair: the rasters on their working grid.
        tiling: of that grid; it numbers the blocks.
        scaling: how pixel values are prepared for the model.
        settings: how tiles become codes.
        model: bound and fitted; None where ``reference`` says how to load it.
        reference: how another process loads the model; None for a model that must be pickled.
        device: of the options of the run.
        precision: of the options of the run.
        keep_going: flag what cannot be read.
        priors: prior masks for a model that takes them.
        features: where image features are cached; None for no cache.
        threads: torch threads in each worker; None keeps their number.
        version: the wasnow version that made this specification.
    """

    pair: Pair
    tiling: Tiling
    scaling: InputScaling
    settings: InferenceSettings
    model: ChangeModel | None
    reference: ModelReference | None = None
    device: str = "auto"
    precision: Precision = "32"
    keep_going: bool = False
    priors: Priors | None = None
    features: FeatureCacheSpec | None = None
    threads: int | None = None
    version: str = wasnow.__version__

    def serialise(self, *, workers: int, threads: int | None) -> bytes:
        """Return the specification for other processes: absolute paths, and the network by reference if it has one.

        Args:
            workers: number of processes that will use it.
            threads: torch threads in each of them; None keeps their number.

        Raises:
            UsageError: the model cannot be pickled.
        """
        pair = Pair(_absolute(self.pair.before), _absolute(self.pair.after), self.pair.working)
        priors = None if self.priors is None else replace(self.priors, folder=self.priors.folder.absolute())
        features = self.features
        if features is not None:
            features = replace(features, folder=features.folder.absolute(), writers=workers)
        model = self.model if self.reference is None else None
        try:
            return pickle.dumps(
                replace(self, pair=pair, priors=priors, features=features, model=model, threads=threads)
            )
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            name = self.model.card.name if self.model is not None else "the model"
            raise UsageError(
                f"{name} cannot be sent to other processes ({' '.join(str(error).split())[:120]}); save it as a "
                "checkpoint and name that, define its class in a module, or leave --workers and --scheduler out"
            ) from None

    def paths(self) -> tuple[Path, ...]:
        """Return every local file and folder that a worker opens."""
        return local_paths(self.pair, self.priors, self.reference, self.features.folder if self.features else None)


def local_paths(
    pair: Pair, priors: Priors | None = None, reference: ModelReference | None = None, features: Path | None = None
) -> tuple[Path, ...]:
    """Return every local file and folder that a worker must be able to open; URLs are left out.

    Args:
        pair: the rasters.
        priors: the prior folder, if any.
        reference: of the model, if it has one.
        features: the folder of cached features, if any.
    """
    sources = (pair.before.source, pair.after.source)
    paths = [Path(name) for source in sources for name in (source.path, *source.files)]
    paths += [priors.folder] if priors is not None else []
    paths += [features] if features is not None else []
    paths += [reference.path] if reference is not None and reference.path is not None else []
    return tuple(dict.fromkeys(path.absolute() for path in paths if path.exists()))


def deserialise(data: bytes, threads: int | None = None) -> RunSpec:
    """Return the specification that `RunSpec.serialise` wrote.

    Args:
        data: its bytes.
        threads: torch threads where the specification leaves their number to the worker.
    """
    spec: RunSpec = pickle.loads(data)
    return spec if spec.threads is not None else replace(spec, threads=threads)


def _absolute(placed: PlacedSource) -> PlacedSource:
    path = Path(placed.source.path)
    # Anything that is not a local file is a URL or a name that only GDAL understands.
    source = replace(placed.source, path=str(path.absolute())) if path.exists() else placed.source
    return PlacedSource(source, placed.placement)


@dataclass(frozen=True)
class BlockResult:
    """The result of one block: small, and all that the journal stores.

    Attributes:
        record: its outcome.
        arrays: by name; empty where no pixel was processed.
        seconds: by phase.
        not_cached: number of tiles whose features were not cached, by reason.
        notes: sentences for the record of the run.
    """

    record: BlockRecord
    arrays: Arrays
    seconds: Mapping[str, float] = field(default_factory=dict)
    not_cached: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BlockPixels:
    """The pixels of a block, before prediction.

    Attributes:
        block: the block.
        window: both dates over it.
        masks: prior masks ``(2, W, h, w)`` over it; None for a model that takes none.
        error: why a part of it could not be read.
        seconds: that reading took.
    """

    block: Block
    window: PairWindow
    masks: Masks | None
    error: str | None
    seconds: float


class Worker:
    """Predicts the blocks of one run. The rasters are opened once per thread, the model is loaded once.

    Args:
        spec: the run.
        concurrency: how many blocks may be predicted at the same time, each by a thread of its own.

    Raises:
        CheckpointError, UsageError: the model cannot be loaded here.
        WorkersLost: this is another version of wasnow than the one that made the specification.
    """

    def __init__(self, spec: RunSpec, concurrency: int = 1) -> None:
        if spec.version != wasnow.__version__:
            raise WorkersLost(
                f"a worker has wasnow {wasnow.__version__} and the run uses {spec.version}; install the same version"
            )
        self.spec = spec
        if spec.threads is not None:
            torch.set_num_threads(spec.threads)
        network = spec.model
        if network is None:
            if spec.reference is None:
                raise ValueError("a run specification needs a model or a reference to one")
            network = spec.reference.load(resolve_device(spec.device, openvino=True))
        self._model = accelerated(network, device=spec.device, precision=spec.precision)
        self._cached: CachedFeatureModel | None = None
        if (cache := spec.features) is not None:
            store = FeatureStore(cache.folder, cache.limit_bytes, writers=cache.writers)
            self._cached = CachedFeatureModel(self._model, store, cache.identity)
        self._limit = memory_limit(self._model)
        self._local = threading.local()
        self._readers: list[PairReader] = []
        self._free = threading.BoundedSemaphore(concurrency)

    def read(self, index: int) -> BlockPixels:
        """Return the pixels of a block; may be called from any thread.

        Raises:
            RasterUnreadable: a file is damaged there, and the run does not keep going.
        """
        start = time.perf_counter()
        spec, block = self.spec, self.spec.tiling[index]
        with gdal_settings():
            reader: PairReader | None = getattr(self._local, "reader", None)
            if reader is None:
                reader = self._local.reader = spec.pair.open()
                self._readers.append(reader)
            window = block.read.clip(*spec.pair.working.shape)
            pixels, error = reader.read_around_damage(window) if spec.keep_going else (reader.read(window), None)
            masks = None if spec.priors is None else spec.priors.read_pair(window, spec.pair.working)
        return BlockPixels(block, pixels, masks, error, time.perf_counter() - start)

    def predict(self, pixels: BlockPixels, waited: float = 0.0) -> BlockResult:
        """Return the result of a block; calls from more threads than the worker's concurrency wait.

        Args:
            pixels: from `read`.
            waited: seconds for which the caller waited for them.
        """
        spec, cached = self.spec, self._cached
        with self._free:
            if spec.threads is not None and torch.get_num_threads() != spec.threads:
                # OpenMP keeps a thread count for each thread of the process.
                torch.set_num_threads(spec.threads)
            before = (cached.reused, cached.encoded, dict(cached.store.not_cached)) if cached else (0, 0, {})
            start = time.perf_counter()
            prediction = predict_block(
                cached or self._model,
                spec.scaling,
                spec.settings,
                pixels.block,
                pixels.window,
                pixels.masks,
                self._limit,
            )
            seconds = time.perf_counter() - start
            after = (cached.reused, cached.encoded, dict(cached.store.not_cached)) if cached else (0, 0, {})
        tiles = (after[0] - before[0], after[1] - before[1])
        record, arrays = _record_and_arrays(pixels, prediction, seconds, tiles)
        not_cached = {reason: count - before[2].get(reason, 0) for reason, count in after[2].items()}
        timings = {"read": pixels.seconds, "waiting for pixels": waited, "model": seconds}
        not_cached = {reason: count for reason, count in not_cached.items() if count}
        return BlockResult(record, arrays, timings, not_cached, self._limit.notes)

    def close(self) -> None:
        """Close all files; no thread may be reading."""
        for reader in self._readers:
            reader.close()
        self._readers.clear()


def _record_and_arrays(
    pixels: BlockPixels, prediction: BlockPrediction, seconds: float, tiles: tuple[int, int]
) -> tuple[BlockRecord, dict[str, np.ndarray[Any, Any]]]:
    window = prediction.window
    flagged = prediction.not_processed()
    empty = sum(flagged.values()) == window.size
    record = BlockRecord(
        block=pixels.block.index,
        row=window.row,
        col=window.col,
        height=window.height,
        width=window.width,
        outcome="failed" if pixels.error is not None else "empty" if empty else "done",
        seconds=round(seconds, 4),
        not_processed=flagged,
        error=pixels.error,
        tiles_reused=tiles[0],
        tiles_encoded=tiles[1],
    )
    arrays: Arrays = {"codes": prediction.codes, "confidence": prediction.confidence}
    if prediction.landcover is not None:
        arrays["landcover"] = prediction.landcover
    return record, {} if empty else arrays


def crashed_block(spec: RunSpec, index: int) -> BlockResult:
    """Return the result of a block that crashed every worker: all pixels flagged; the next run tries it again."""
    window = spec.settings.result_window(spec.tiling[index].core)
    record = BlockRecord(
        block=index,
        row=window.row,
        col=window.col,
        height=window.height,
        width=window.width,
        outcome="failed",
        seconds=0.0,
        not_processed={Reason.WORKER_DIED.text: window.size},
        error=f"its worker crashed in {ATTEMPTS} attempts without other blocks: out of memory, or a damaged file",
    )
    return BlockResult(record, {})


class ReadAhead:
    """A worker whose own threads read the next blocks while it predicts one.

    Args:
        worker: the worker.
        threads: number of reading threads.
    """

    def __init__(self, worker: Worker, threads: int) -> None:
        self._worker = worker
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="wasnow-read")
        self._reads: dict[int, Future[BlockPixels]] = {}

    def predict(self, index: int, upcoming: Sequence[int] = ()) -> BlockResult:
        """Return the result of a block, while the upcoming ones are read."""
        for each in (index, *upcoming):
            if each not in self._reads:
                self._reads[each] = self._pool.submit(self._worker.read, each)
        for each in set(self._reads) - {index, *upcoming}:
            self._reads.pop(each).cancel()
        start = time.perf_counter()
        pixels = self._reads.pop(index).result()
        return self._worker.predict(pixels, time.perf_counter() - start)

    def close(self) -> None:
        """Stop reading, close all files."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._worker.close()


def with_picklable_errors(call: Callable[[], T]) -> T:
    """Call a function in a worker process, so that every error can be sent back.

    Raises:
        WasnowError: as the function raised it.
        RuntimeError: with the text of any other exception; those of libraries may not be picklable.
    """
    try:
        return call()
    except WasnowError:
        raise
    except Exception as error:
        raise RuntimeError(f"in a worker: {type(error).__name__}: {error}") from error
