"""What a worker must know to answer any block of a run, and the worker itself.

    Order ──(this process, a pipe, a network)──> Worker: opens the rasters, loads the model once
    block number ──────────────────────────────> read ──> answer ──> Answer: record, codes and confidence, no logits

An order is plain values, and the same block of the same order has the same answer wherever it is asked for. So blocks
may be answered twice, in any order, and by anyone; who does it is told in `wasnow.pipeline.backends`.
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
from wasnow.pipeline.acceleration import OPENVINO, Precision, accelerated
from wasnow.pipeline.block import BlockAnswer, Feed, Masks, Rules, answer_block
from wasnow.pipeline.feature_cache import FeatureStore, Remembering
from wasnow.pipeline.plan import ModelReference, chosen_device
from wasnow.priors.store import Priors
from wasnow.raster.gdal import gdal_settings
from wasnow.raster.pair import Pair, PairReader, PairWindow, PlacedSource, Reason
from wasnow.raster.tiles import Block, Tiling
from wasnow.storage.journal import BlockRecord

Arrays = dict[str, NDArray[Any]]
T = TypeVar("T")

TRIES = 3
"""How often a block is tried alone before it is held to be what kills its workers."""


@dataclass(frozen=True)
class KeptFeatures:
    """Where image features are kept.

    Attributes:
        folder: that all workers share.
        limit_bytes: what it may take.
        identity: of the network that makes them, from `wasnow.pipeline.feature_cache.model_identity`.
        writers: how many workers fill it at the same time.
    """

    folder: Path
    limit_bytes: int
    identity: str
    writers: int = 1


@dataclass(frozen=True)
class Order:
    """All that is the same for every block of a run.

    Attributes:
        pair: the rasters on their working grid.
        tiling: of that grid; a block is named by its number there.
        feed: how the model wants its pixels.
        rules: how its probabilities become codes.
        model: bound and fitted; None where ``reference`` says how to come by it.
        reference: how another process comes by it; None where it must be sent.
        device, precision: of the options of the run.
        keep_going: flag what cannot be read.
        priors: masks for a model that wants some.
        features: where image features are kept; None where they are not.
        threads: of the network in each worker; None leaves them as they are.
        version: of the wasnow that gave the order.
    """

    pair: Pair
    tiling: Tiling
    feed: Feed
    rules: Rules
    model: ChangeModel | None
    reference: ModelReference | None = None
    device: str = "auto"
    precision: Precision = "32"
    keep_going: bool = False
    priors: Priors | None = None
    features: KeptFeatures | None = None
    threads: int | None = None
    version: str = wasnow.__version__

    def sent(self, *, workers: int, threads: int | None) -> bytes:
        """The order for other processes: paths that hold anywhere, the network by reference where it has one.

        Raises:
            UsageError: the model cannot be sent.
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
        """Every file and folder of this machine that a worker opens."""
        return paths_of(self.pair, self.priors, self.reference, self.features.folder if self.features else None)


def paths_of(
    pair: Pair, priors: Priors | None = None, reference: ModelReference | None = None, features: Path | None = None
) -> tuple[Path, ...]:
    """Every file and folder of this machine that must be seen to answer blocks; URLs are left out."""
    sources = (pair.before.source, pair.after.source)
    found = [Path(name) for source in sources for name in (source.path, *source.files)]
    found += [priors.folder] if priors is not None else []
    found += [features] if features is not None else []
    found += [reference.path] if reference is not None and reference.path is not None else []
    return tuple(dict.fromkeys(path.absolute() for path in found if path.exists()))


def order_received(sent: bytes, threads: int | None = None) -> Order:
    """What `Order.sent` sent.

    Args:
        sent: by it.
        threads: of the network, where the order leaves them to the worker.
    """
    order: Order = pickle.loads(sent)
    return order if order.threads is not None else replace(order, threads=threads)


def _absolute(placed: PlacedSource) -> PlacedSource:
    path = Path(placed.source.path)
    # What is no file of this machine is a URL, or a name that GDAL alone understands.
    source = replace(placed.source, path=str(path.absolute())) if path.exists() else placed.source
    return PlacedSource(source, placed.placement)


@dataclass(frozen=True)
class Answer:
    """What comes back of a block: small, and all that the journal needs.

    Attributes:
        record: what became of it.
        arrays: by name; empty where no pixel was processed.
        seconds: by phase.
        left_out: features that were not kept, by reason.
    """

    record: BlockRecord
    arrays: Arrays
    seconds: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """The pixels of a block, read but not answered yet."""

    block: Block
    window: PairWindow
    masks: Masks | None
    error: str | None
    seconds: float


class Worker:
    """Answers the blocks of one order. The rasters are opened once for each thread, the model is loaded once.

    Args:
        order: what to do.
        lanes: how many blocks may be answered at the same time, by as many threads.

    Raises:
        CheckpointError, UsageError: the model cannot be had here.
        WorkersLost: this is another version of wasnow than the one that gave the order.
    """

    def __init__(self, order: Order, lanes: int = 1) -> None:
        if order.version != wasnow.__version__:
            raise WorkersLost(
                f"a worker has wasnow {wasnow.__version__} and the run is of {order.version}; install the same version"
            )
        self.order = order
        if order.threads is not None:
            torch.set_num_threads(order.threads)
        network = order.model
        if network is None:
            if order.reference is None:
                raise ValueError("an order names its model or brings it along")
            network = order.reference.load("cpu" if order.device == OPENVINO else chosen_device(order.device))
        self._model = accelerated(network, device=order.device, precision=order.precision)
        self._remembering: Remembering | None = None
        if (kept := order.features) is not None:
            store = FeatureStore(kept.folder, kept.limit_bytes, writers=kept.writers)
            self._remembering = Remembering(self._model, store, kept.identity)
        self._own = threading.local()
        self._readers: list[PairReader] = []
        self._lanes = threading.BoundedSemaphore(lanes)

    def read(self, index: int) -> Seen:
        """The pixels of a block; any thread may call this.

        Raises:
            RasterUnreadable: a file is damaged there, and the run is not told to go on.
        """
        at = time.perf_counter()
        order, block = self.order, self.order.tiling[index]
        with gdal_settings():
            reader: PairReader | None = getattr(self._own, "reader", None)
            if reader is None:
                reader = self._own.reader = order.pair.open()
                self._readers.append(reader)
            window = block.read.clip(*order.pair.working.shape)
            seen, error = reader.read_around_damage(window) if order.keep_going else (reader.read(window), None)
            masks = None if order.priors is None else order.priors.read_pair(window, order.pair.working)
        return Seen(block, seen, masks, error, time.perf_counter() - at)

    def answer(self, seen: Seen, waited: float = 0.0) -> Answer:
        """The answer to a block that was read; as many at a time as there are lanes, whatever thread calls.

        Args:
            seen: from `read`.
            waited: seconds for which the reading held the caller up.
        """
        order, memory = self.order, self._remembering
        with self._lanes:
            if order.threads is not None and torch.get_num_threads() != order.threads:
                # OpenMP counts for each thread of the process by itself.
                torch.set_num_threads(order.threads)
            before = (memory.reused, memory.encoded, dict(memory.store.left_out)) if memory else (0, 0, {})
            at = time.perf_counter()
            answered = answer_block(memory or self._model, order.feed, order.rules, seen.block, seen.window, seen.masks)
            took = time.perf_counter() - at
            after = (memory.reused, memory.encoded, dict(memory.store.left_out)) if memory else (0, 0, {})
        record, arrays = _stored(seen, answered, took, (after[0] - before[0], after[1] - before[1]))
        left_out = {reason: count - before[2].get(reason, 0) for reason, count in after[2].items()}
        seconds = {"read": seen.seconds, "waiting for pixels": waited, "model": took}
        return Answer(record, arrays, seconds, {reason: count for reason, count in left_out.items() if count})

    def close(self) -> None:
        """Close all files; no thread may be reading."""
        for reader in self._readers:
            reader.close()
        self._readers.clear()


def _stored(
    seen: Seen, answer: BlockAnswer, seconds: float, tiles: tuple[int, int]
) -> tuple[BlockRecord, dict[str, np.ndarray[Any, Any]]]:
    window = answer.window
    flagged = answer.not_processed()
    empty = sum(flagged.values()) == window.size
    record = BlockRecord(
        block=seen.block.index,
        row=window.row,
        col=window.col,
        height=window.height,
        width=window.width,
        outcome="failed" if seen.error is not None else "empty" if empty else "done",
        seconds=round(seconds, 4),
        not_processed=flagged,
        error=seen.error,
        tiles_reused=tiles[0],
        tiles_encoded=tiles[1],
    )
    arrays: Arrays = {"codes": answer.codes, "confidence": answer.confidence}
    if answer.landcover is not None:
        arrays["landcover"] = answer.landcover
    return record, {} if empty else arrays


def poisoned(order: Order, index: int) -> Answer:
    """The record of a block that nobody lived to answer: all its pixels flagged, to be tried again by the next run."""
    window = order.rules.result_window(order.tiling[index].core)
    record = BlockRecord(
        block=index,
        row=window.row,
        col=window.col,
        height=window.height,
        width=window.width,
        outcome="failed",
        seconds=0.0,
        not_processed={Reason.WORKER_DIED.text: window.size},
        error=f"its worker died each time that it was tried alone ({TRIES} times): out of memory, or a broken file",
    )
    return Answer(record, {})


class ReadAhead:
    """A worker whose own threads read the next blocks while it answers one."""

    def __init__(self, worker: Worker, threads: int) -> None:
        self._worker = worker
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="wasnow-read")
        self._reads: dict[int, Future[Seen]] = {}

    def answer(self, index: int, then: Sequence[int] = ()) -> Answer:
        """The answer to a block, while those that come next are read."""
        for each in (index, *then):
            if each not in self._reads:
                self._reads[each] = self._pool.submit(self._worker.read, each)
        for each in set(self._reads) - {index, *then}:
            self._reads.pop(each).cancel()
        at = time.perf_counter()
        seen = self._reads.pop(index).result()
        return self._worker.answer(seen, time.perf_counter() - at)

    def close(self) -> None:
        """Stop reading, close all files."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._worker.close()


def told_plainly(call: Callable[[], T]) -> T:
    """What a call in another process gives; its errors as such that can be sent.

    Raises:
        WasnowError: as it was raised.
        RuntimeError: anything else, in words: exceptions of libraries may not survive the journey.
    """
    try:
        return call()
    except WasnowError:
        raise
    except Exception as error:
        raise RuntimeError(f"in a worker: {type(error).__name__}: {error}") from error
