"""The training run: stages of steps on lightning-fabric, resumable bit for bit.

    start ─> network                weights to begin with (start.py)
    for stage in stages:            who learns, from which loss
        for step in stage:
            batch(seed, step) ─> network ─> loss of the whole batch ─> gradient ─> optimizer(rate(step)) ─> average
            now and then:  log · validate (never on the test split) · keep the best · save the state

A step depends on nothing but the state after the step before: the data, the augmentation, the rate and the seeds of
dropout are functions of (seed, step). So a run that was killed anywhere and resumed does the lost steps again, and they
come out the same.
"""

from __future__ import annotations

import math
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, distributed, nn

from wasnow import __version__
from wasnow._system import kept_memory
from wasnow.data.transforms import Augment, ColorJitter, SensorJitter
from wasnow.errors import Interrupted, OutOfMemory, ResumeRefused, TrainingDiverged, UsageError, did_you_mean
from wasnow.evaluation import answering, change_labels, count, labels, predict
from wasnow.evaluation.metrics import Confusion
from wasnow.models.checkpoint import BEST, LAST, Provenance, save
from wasnow.models.contract import ChangeModel, Checkpointing, FeatureModel
from wasnow.output.report.codes import dates_png, photos_jpeg
from wasnow.priors.samples import with_priors
from wasnow.training import losses
from wasnow.training.config import LossName, Stage, TrainConfig
from wasnow.training.devices import (
    Answers,
    deterministic,
    is_out_of_memory,
    loading_was_killed,
    make_fabric,
    memory_advice,
    memory_mb,
    of_whole_batch,
    stop_signals,
)
from wasnow.training.features import FeatureStore, check_features, encoder_rests
from wasnow.training.feed import Batch, Feed, Roles, Subset, Transform, roles, torch_seed
from wasnow.training.logging import Progress, Silent, Watch
from wasnow.training.losses import LossFunction
from wasnow.training.optim import (
    Average,
    factor,
    freeze,
    make_optimizer,
    never_trained,
    optimizer_tensors,
    restore_optimizer,
    set_rate,
    training_mode,
)
from wasnow.training.page import training_page
from wasnow.training.run_folder import LOG_NAME, REPORT_NAME, VALIDATIONS_NAME, RunFolder, State, Table
from wasnow.training.start import check_options, digest, find_start, network, take_weights
from wasnow.training.words import WithoutWords
from wasnow.vocabulary import Vocabulary, join_words

if TYPE_CHECKING:
    from wasnow.data.samples import Samples
    from wasnow.priors.store import PairMasks

LOSSES: Mapping[LossName, LossFunction] = {
    "ding": losses.ding_loss,
    "scannet": partial(losses.ding_loss, margin=0.1),
    "scannet-pseudo": losses.scannet_loss,
    "changemask": losses.changemask_loss,
    "changemamba": losses.changemamba_loss,
    "change": losses.change_loss,
    "change-dice": losses.change_dice_loss,
    "classes": losses.class_loss,
    "joint": losses.joint_loss,
}

FEWEST_STEPS = 50
"""Validating once an epoch means at least this many steps apart, so that a handful of pairs is not all validation."""


@dataclass(frozen=True)
class Trained:
    """What a finished run came to.

    Attributes:
        folder: of the run.
        checkpoint: the best weights, or the last where nothing selects.
        select: the score that chose them.
        score: its value, 0..1; None where nothing selects or it was never defined.
        step: after which they were taken.
    """

    folder: Path
    checkpoint: Path
    select: str
    score: float | None
    step: int


@dataclass(frozen=True)
class Span:
    """A stage and the steps ``first`` to ``stop - 1`` that it takes."""

    stage: Stage
    first: int
    stop: int


def train(
    config: TrainConfig,
    splits: Mapping[str, Samples],
    output: str | os.PathLike[str],
    *,
    resume: bool = False,
    overwrite: bool = False,
    priors: PairMasks | None = None,
    data_name: str | None = None,
    transform: Transform | None = None,
    watch: Watch | None = None,
) -> Trained:
    """Train as the configuration says, into a run folder.

    Args:
        config: what to do.
        splits: by name; ``train`` or ``all`` is trained on, ``val`` (or pairs held back) selects, nothing else is seen.
        output: the run folder; made if need be.
        resume: go on with the run in it, if there is one.
        overwrite: drop the run in it, if there is one.
        priors: masks of the pairs, for a model that wants them.
        data_name: what the report calls the data.
        transform: a sample and random numbers to a training sample; None: `wasnow.data.transforms.Augment`.
        watch: told what happens.

    Raises:
        UsageError: the configuration does not fit the data or the model, or the model wants masks and there are none.
        VocabularyError: the masks are not of the words that the model wants.
        CheckpointError: ``start`` is not to be had, or is another model's.
        ResumeRefused: the folder holds another run.
        OutputError: the folder holds a run and ``resume`` is False, or it cannot be written.
        TrainingDiverged: the loss or a gradient is no longer a number.
        OutOfMemory: a batch does not fit; says which setting to lower.
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    check_options(config)
    fabric = make_fabric(config)
    parts = _left_out(roles(dict(splits), holdback=config.holdback, seed=config.seed), config.leave_out)
    folder = RunFolder(Path(output))
    watch = watch if watch is not None and fabric.is_global_zero else Silent()
    with deterministic(), _locked(folder, fabric), kept_memory(), stop_signals() as stop_asked:
        if overwrite and fabric.is_global_zero:
            folder.clear()
        run = _Run(config, parts, folder, fabric, transform or _augment(config), watch, priors, data_name, stop_asked)
        try:
            return run.go(resume=resume)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if loading_was_killed(error):
                raise OutOfMemory(
                    f"a process that loads pairs was killed at step {run.step + 1}, as happens when memory runs out; "
                    f"lower --set workers={config.workers} and go on with --resume"
                ) from error
            if not is_out_of_memory(error):
                raise
            offers = isinstance(run.model, Checkpointing)
            raise OutOfMemory(memory_advice(config, fabric.device, run.step, checkpointing=offers)) from error
        finally:
            watch.close()
            if config.devices > 1 and distributed.is_initialized():
                distributed.destroy_process_group()


class _Run:
    """One process of a run, from its first step (or the one it is resumed at) to its last."""

    def __init__(
        self,
        config: TrainConfig,
        parts: Roles,
        folder: RunFolder,
        fabric: Fabric,
        transform: Transform,
        watch: Watch,
        priors: PairMasks | None,
        data_name: str | None,
        stop_asked: Callable[[], bool],
    ) -> None:
        self.config, self.folder, self.fabric = config, folder, fabric
        self.watch, self.data_name, self.stop_asked = watch, data_name, stop_asked
        start = None if config.start is None else find_start(config.start)
        torch.manual_seed(config.seed)
        self.model = network(config, parts.train.vocabulary, start)
        self.vocabulary = Vocabulary(cast(ChangeModel, self.model).card.classes)
        if start is not None:
            watch.say(take_weights(self.model, start))
        self.roles, self.priors = _told(self.model, parts, priors, watch)
        parts = self.roles
        if config.checkpointing:
            _checkpoint_gradients(self.model, config.model)
        if fabric.world_size > 1:
            if fabric.device.type == "cuda":
                self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)  # type: ignore[no-untyped-call]
            elif any(isinstance(one, nn.modules.batchnorm._BatchNorm) for one in self.model.modules()):
                watch.say("batch normalisation is not shared between CPU processes: results differ from one process")
        self.model.to(fabric.device)
        self.learning = [freeze(self.model, stage.trains) for stage in config.stages]
        self.still = never_trained(self.model, self.learning)
        own = self.model.state_dict()
        self.still_digest = digest((name, own[name]) for name in self.still) if self.still else None
        if config.cache_features:
            check_features(config, self.model, self.learning, parts.train[0].before.shape[:2])
        self.average = Average(self.model, config.ema, still=self.still) if config.ema is not None else None
        self.spans = _spans(config, len(parts.train))
        self.steps = self.spans[-1].stop
        self.select = _selecting(config.select, self.vocabulary)
        self.feed = Feed(
            parts.train,
            transform,
            seed=config.seed,
            batch_size=config.batch_size,
            parts=config.accumulate,
            rank=fabric.global_rank,
            devices=fabric.world_size,
            workers=config.workers,
            pin=fabric.device.type == "cuda",
        )
        self.step = 0
        self.best: dict[str, float] | None = None
        self.seconds = 0.0
        self._scores: dict[str, float] = {}
        self._scored = -1
        self._gradient = math.nan
        self._mean = _Mean()
        self._began = time.monotonic()
        self._first = 0

    # --- the whole ----------------------------------------------------------------------------------------------

    def go(self, *, resume: bool) -> Trained:
        """Begin or go on, to the end."""
        state = self._open(resume)
        self.watch.say(f"training on {self.roles.trained_on}; best weights chosen on {self.roles.selected_on}")
        if self.roles.untouched:
            self.watch.say(f"not looked at: {', '.join(self.roles.untouched)}")
        self._began, self._first = time.monotonic(), self.step
        self._picture_samples()
        try:
            for span in self.spans:
                if self.step < span.stop:
                    self._stage(span, state)
        except TrainingDiverged as error:
            self._keep(LAST)
            self._report("stopped", problem=str(error))
            raise
        except Interrupted as error:
            self._report("interrupted", problem=str(error))
            raise
        self._report("complete")
        chosen = self.best is not None and (self.folder.path / BEST).exists()
        return Trained(
            folder=self.folder.path,
            checkpoint=self.folder.path / (BEST if chosen else LAST),
            select=self.select,
            score=self.best["score"] if chosen and self.best else None,
            step=int(self.best["step"]) if chosen and self.best else self.step,
        )

    def _open(self, resume: bool) -> State | None:
        """Settle the folder, and take over the state of a run that is there."""
        wanted = {
            "identity": self.config.identity(),
            "data_fingerprint": self.roles.train.fingerprint,
            "priors": self.priors,
        }
        first = self.fabric.is_global_zero
        going_on = self.fabric.broadcast(self.folder.check(wanted, resume=resume) if first else False)
        state, faults = self.folder.latest() if going_on else (None, [])
        self.fabric.barrier()
        for fault in faults:
            self.watch.say(f"warning: {fault}")
        if state is not None:
            self.step, self.seconds = state.step, state.seconds
            self.best = None if state.best is None else dict(state.best)
            if state.still != self.still_digest:
                raise ResumeRefused(
                    self.folder.path,
                    [f"the weights that it began with and does not train (start={self.config.start}) were others"],
                )
            _restore(self.model, state.part("model"), self.still)
            if self.average is not None:
                _restore(self.average.module, state.part("average"), self.still)
            self.watch.say(f"resumed after step {self.step} of {self.steps}")
        if self.fabric.is_global_zero:
            self.folder.drop_states_after(self.step)
            self.log = Table(self.folder, LOG_NAME, self.step)
            self.validations = Table(self.folder, VALIDATIONS_NAME, self.step)
            self._tensorboard = _tensorboard(self.folder, self.step) if self.config.tensorboard else None
            self._report("running", page=False)
        return state

    def _stage(self, span: Span, state: State | None) -> None:
        """All steps of a stage that are not done yet."""
        config = self.config
        learning = freeze(self.model, span.stage.trains)
        optimizer = make_optimizer(self.model, span.stage.optimizer or config.optimizer)
        rests = encoder_rests(self.model, learning)
        network, stepper = self.fabric.setup(Answers(self.model, encoder_rests=rests), optimizer)
        store = self._store() if rests and config.cache_features else None
        if state is not None and span.first < state.step == self.step:
            restore_optimizer(optimizer, state.part("optimizer"))
        if len(self.spans) > 1:
            self.watch.say(f"stage {span.stage.name}: {len(learning)} parameter tensors learn, {span.stage.loss} loss")
        training_mode(self.model)
        for parts in self.feed.batches(self.step, span.stop):
            rate = self._rate(span)
            set_rate(optimizer, rate)
            self._learn(span, network, stepper, parts, store)
            self.step += 1
            if self.average is not None:
                self.average.update(self.model, self.step)
            self._after_step(span, optimizer, rate)
        if store is not None:
            self.watch.say(f"features: {store.found} found, {store.computed} computed")
            store.clear()

    def _store(self) -> FeatureStore:
        """The features of this device's pairs, for one stage."""
        return FeatureStore(
            self.folder.features / str(self.fabric.global_rank),
            cast(FeatureModel, self.model),
            self.fabric.autocast,
            salt=f"{self.fabric.device.type} {self.config.precision}",
            full=self.watch.say,
        )

    # --- one step -----------------------------------------------------------------------------------------------

    def _rate(self, span: Span) -> float:
        settings = span.stage.optimizer or self.config.optimizer
        schedule = span.stage.schedule or self.config.schedule
        return settings.lr * factor(schedule, self.step - span.first, span.stop - span.first)

    def _learn(
        self, span: Span, network: Any, optimizer: Any, parts: Sequence[Batch], store: FeatureStore | None
    ) -> None:
        """One step of the optimizer."""
        config, world = self.config, self.fabric.world_size
        torch.manual_seed(torch_seed(config.seed, self.step, self.fabric.global_rank))
        optimizer.zero_grad(set_to_none=True)
        for i, part in enumerate(parts):
            waits = world > 1 and i + 1 < len(parts)
            with self.fabric.no_backward_sync(network, enabled=waits):
                before, after, target = part.to(self.fabric.device)
                masks = None if part.priors is None else part.priors.to(self.fabric.device, non_blocking=True)
                encoded = None
                if store is not None:  # sees what the wrapper of precision would hand to the network
                    kind = torch.bfloat16 if config.precision == "bf16" else torch.float32
                    encoded = store.encoded(part, before.to(kind), after.to(kind))
                answer = network.module.logits(network(before, after, encoded, masks))
                loss = LOSSES[span.stage.loss](*of_whole_batch(answer, target, self.fabric))
                if not torch.isfinite(loss.total):
                    raise TrainingDiverged(self._diverged("loss", float(loss.total.detach()), span, loss.parts))
                # DDP takes the mean over the devices, whose gradients here are parts of one sum.
                self.fabric.backward(loss.total * (world / len(parts)))
            self._mean.add(float(loss.total.detach()), {name: float(one) for name, one in loss.parts.items()})
        learning = [one for one in self.model.parameters() if one.requires_grad]
        norm = nn.utils.clip_grad_norm_(learning, math.inf if config.clip is None else config.clip)
        if not torch.isfinite(norm):
            raise TrainingDiverged(self._diverged("gradient", float(norm), span, {}))
        self._gradient = float(norm)
        optimizer.step()

    def _after_step(self, span: Span, optimizer: torch.optim.Optimizer, rate: float) -> None:
        """Tell, log, validate, save, and stop if asked: at the border between two steps."""
        config, last = self.config, self.step == self.steps
        due = last or _due(self.step, config, len(self.roles.train))
        progress = self._progress(span, rate)
        self.watch.step(progress)
        stop = self._any(self.stop_asked())
        if self.fabric.is_global_zero and (last or stop or self.step % config.log_every == 0):
            self._log(progress)
        if due and self.roles.select is not None:
            self._validate()
        if last or stop:
            self._keep(LAST)
        if due or stop or (config.save_every and self.step % config.save_every == 0):
            self._save(optimizer)
            if due and self.fabric.is_global_zero:
                self._report("running")
        if stop and not last:
            raise Interrupted(f"interrupted after step {self.step} of {self.steps}; run again with --resume to go on")

    def _any(self, mine: bool) -> bool:
        """Whether any device says so; all then do."""
        if self.fabric.world_size == 1:
            return mine
        flag = torch.tensor([int(mine)], device=self.fabric.device)
        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return bool(flag.item())

    # --- what is told and kept ----------------------------------------------------------------------------------

    def _progress(self, span: Span, rate: float) -> Progress:
        elapsed = max(time.monotonic() - self._began, 1e-9)
        done = self.step - self._first
        return Progress(
            step=self.step,
            steps=self.steps,
            epoch=self.step * self.config.batch_size / len(self.roles.train),
            stage=span.stage.name,
            loss=self._mean.total,
            parts=self._mean.parts,
            rate=rate,
            gradient=self._gradient,
            pairs_per_s=done * self.config.batch_size / elapsed,
            left_s=(self.steps - self.step) * elapsed / done,
            waiting=min(1.0, self.feed.waited_s / elapsed),
            memory_mb=memory_mb(self.fabric.device),
        )

    def _log(self, progress: Progress) -> None:
        row = {
            "step": progress.step,
            "epoch": round(progress.epoch, 4),
            "stage": progress.stage,
            "loss": progress.loss,
            "rate": progress.rate,
            "gradient": progress.gradient,
            "pairs_per_s": round(progress.pairs_per_s, 3),
            "waiting": round(progress.waiting, 4),
            "memory_mb": round(progress.memory_mb),
            **progress.parts,
        }
        self.log.add(row)
        if self._tensorboard is not None:
            for name, value in row.items():
                if isinstance(value, int | float) and name != "step":
                    self._tensorboard.add_scalar(f"train/{name}", value, progress.step)
        self._mean = _Mean()

    def _validate(self) -> None:
        """Score the validation pairs, shared out over the devices, and keep the weights if they are the best so far."""
        select = self.roles.select
        assert select is not None
        rank, world = self.fabric.global_rank, self.fabric.world_size
        if world > 1:
            for buffer in self.model.buffers():
                distributed.broadcast(buffer, 0)  # statistics of shares differ, and the weights kept are the first's
        network = cast(ChangeModel, self._judged)
        mine = Subset(select, tuple(range(rank, len(select), world)))
        words = self.vocabulary if len(select.vocabulary) else Vocabulary()
        bf16 = self.config.precision == "bf16"
        counted = [_count(network, mine, words, bf16=bf16)]
        if self.config.leave_out and len(words):
            # A withheld class leaves its pixels out of every count; of what changed they must not be left out.
            counted.append(_count(network, mine, Vocabulary(), bf16=bf16))
        if world > 1:
            gathered: list[Any] = [None] * world
            distributed.all_gather_object(gathered, counted)
            counted = [[one for share in gathered for one in share[i]] for i in range(len(counted))]
        if not counted[0]:
            raise UsageError(f"none of the validation pairs ({self.roles.selected_on}) has labels; --set holdback=0")
        self._scores, *changed = (Confusion.total(one).scores().headline() for one in counted)
        for scores in changed:
            self._scores |= {name: one for name, one in scores.items() if name.startswith("binary.")}
        self._scored, value = self.step, self._scores[self.select]
        # A score that is not defined (nothing predicted, say) is worse than any that is.
        if math.isfinite(value) and (self.best is None or value > self.best["score"]):
            self.best = {"score": value, "step": float(self.step)}
            self._keep(BEST)
        if self.fabric.is_global_zero:
            best = self.best is not None and self.best["step"] == self.step
            shown = {name: None if math.isnan(one) else one for name, one in self._scores.items()}
            self.validations.add({"step": self.step, "best": int(best), **shown})
            if self._tensorboard is not None:
                for name, one in shown.items():
                    if one is not None:
                        self._tensorboard.add_scalar(f"validation/{name}", one, self.step)
            self.watch.validated(self.step, self.select, value, best)
            self._picture_predictions(network)

    @property
    def _judged(self) -> nn.Module:
        """What is validated and kept: the average, where there is one."""
        return self.model if self.average is None else self.average.module

    def _keep(self, name: str) -> None:
        """Write a checkpoint, by the first device alone."""
        if not self.fabric.is_global_zero:
            return
        scores = {"val": self._scores} if self._scored == self.step else {}
        provenance = Provenance(
            origin=f"trained by wasnow {__version__} with the recipe {self.config.name}",
            git=_git(),
            torch=torch.__version__,
            # Which masks it learned from, not where they lay.
            recipe={**self.config.model_dump(mode="json", exclude={"data", "output"}), "priors": self.priors},
            data=self.data_name,
            data_fingerprint=self.roles.train.fingerprint,
            trained_on=self.roles.trained_on,
            selected_on=self.roles.selected_on,
            seed=self.config.seed,
            step=self.step,
            epoch=round(self.step * self.config.batch_size / len(self.roles.train), 6),
        )
        model = cast(ChangeModel, self._judged)
        save(self.folder.path / name, model, scores=scores, provenance=provenance)

    def _save(self, optimizer: torch.optim.Optimizer) -> None:
        """Write the state, by the first device alone; the others wait, so that none runs ahead of what is kept."""
        if self.fabric.is_global_zero:
            modules = {"model": self.model} | ({} if self.average is None else {"average": self.average.module})
            tensors = {
                f"{part}/{name}": one
                for part, module in modules.items()
                for name, one in module.state_dict().items()
                if name not in self.still
            }
            tensors |= {f"optimizer/{name}": one for name, one in optimizer_tensors(optimizer).items()}
            self.folder.save(State(self.step, tensors, self.best, self._elapsed, self.still_digest))
        self.fabric.barrier()

    @property
    def _elapsed(self) -> float:
        return round(self.seconds + time.monotonic() - self._began, 3)

    def _report(self, status: str, *, problem: str | None = None, page: bool = True) -> None:
        """Write ``run.json`` and the page, by the first device alone."""
        if not self.fabric.is_global_zero:
            return
        found = self.folder.record or {}
        now = datetime.now(UTC).isoformat(timespec="seconds")
        record = {
            "format": 1,
            "status": status,
            "problem": problem,
            "started": found.get("started", now),
            "updated": now,
            "seconds": self._elapsed if page else self.seconds,
            "identity": self.config.identity(),
            "config": self.config.model_dump(mode="json"),
            "data": self.data_name,
            "data_fingerprint": self.roles.train.fingerprint,
            "priors": self.priors,
            "trained_on": self.roles.trained_on,
            "selected_on": self.roles.selected_on,
            "untouched": list(self.roles.untouched),
            "classes": list(self.vocabulary.words),
            "select": self.select,
            "best": self.best,
            "steps": self.steps,
            "stages": [
                {"name": span.stage.name, "steps": span.stop - span.first, "parameters": self._size(names)}
                for span, names in zip(self.spans, self.learning, strict=True)
            ],
            "left_out": list(self.config.leave_out),
            "parameters": sum(one.numel() for one in self.model.parameters()),
            "device": str(self.fabric.device),
            "versions": {
                "wasnow": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
                "code": _git(),
            },
        }
        self.folder.write_record(record)
        if page:
            rows = self.log.rows, self.validations.rows
            self.folder.write_text(REPORT_NAME, training_page(self.folder, record, *rows, self._pictured))

    def _size(self, names: Sequence[str]) -> int:
        """How many numbers some parameters have."""
        chosen = set(names)
        return sum(one.numel() for name, one in self.model.named_parameters() if name in chosen)

    # --- sample pictures ----------------------------------------------------------------------------------------

    def _picture_samples(self) -> None:
        """The photographs and labels of the pairs that the page will follow."""
        self._pictured: list[str] = []
        if not self.fabric.is_global_zero:
            return
        # Without validation the page follows pairs that are trained on, which is said in its caption.
        shown = self.roles.select or self.roles.train
        self._shown = Subset(shown, tuple(range(min(self.config.samples, len(shown)))))
        for i in range(len(self._shown)):
            sample = self._shown[i]
            self._pictured.append(sample.name)
            self.folder.write_bytes(f"pictures/{i}-photo.jpg", photos_jpeg(sample.before, sample.after))
            both = labels(sample) if len(self.vocabulary) else None
            maps = both if both is not None else (change_labels(sample), None)
            self.folder.write_bytes(f"pictures/{i}-labels.png", dates_png(maps[0], maps[1], self.vocabulary))

    def _picture_predictions(self, network: ChangeModel) -> None:
        with answering(network):
            for i in range(len(self._shown)):
                found = predict(network, self._shown[i], network.card.threshold)
                maps = (found.before, found.after) if len(self.vocabulary) else (found.change, None)
                name = f"pictures/{i}-{self.step:08d}.png"
                self.folder.write_bytes(name, dates_png(maps[0], maps[1], self.vocabulary))

    # --- what goes wrong ----------------------------------------------------------------------------------------

    def _diverged(self, what: str, value: float, span: Span, parts: Mapping[str, Tensor]) -> str:
        settings = span.stage.optimizer or self.config.optimizer
        told = ", ".join(f"{name} {float(one):.4g}" for name, one in parts.items())
        advice = [f"--set optimizer.lr={settings.lr / 3:.2g}"]
        advice += ["--set clip=1"] if self.config.clip is None else []
        advice += ["--set precision=32"] if self.config.precision != "32" else []
        return (
            f"the {what} is {value} at step {self.step + 1} (stage {span.stage.name}{', ' if told else ''}{told}); "
            f"try {' or '.join(advice)} in a new folder. The last good weights are kept: "
            f"--set start={self.folder.path / LAST} goes on from them"
        )


# -------------------------------------------------------------------------------------------------------------- helpers


@contextmanager
def _locked(folder: RunFolder, fabric: Fabric) -> Iterator[None]:
    if fabric.is_global_zero:
        with folder.locked():
            yield
    else:
        yield


class _Mean:
    """The mean loss since the last line of the log."""

    def __init__(self) -> None:
        self._total, self._count = 0.0, 0
        self._parts: dict[str, float] = {}

    def add(self, total: float, parts: Mapping[str, float]) -> None:
        self._total += total
        self._count += 1
        for name, value in parts.items():
            self._parts[name] = self._parts.get(name, 0.0) + value

    @property
    def total(self) -> float:
        return self._total / max(1, self._count)

    @property
    def parts(self) -> dict[str, float]:
        return {name: value / self._count for name, value in self._parts.items()}


def _left_out(parts: Roles, words: tuple[str, ...]) -> Roles:
    """The same pairs without some class words, which the names of the splits then tell."""
    if not words:
        return parts
    told = f"without {join_words(words)}"
    return replace(
        parts,
        train=WithoutWords(parts.train, words),
        select=None if parts.select is None else WithoutWords(parts.select, words),
        trained_on=f"{parts.trained_on}, {told}",
        selected_on=parts.selected_on if parts.select is None else f"{parts.selected_on}, {told}",
    )


def _told(
    model: nn.Module, parts: Roles, priors: PairMasks | None, watch: Watch
) -> tuple[Roles, dict[str, Any] | None]:
    """The pairs with the masks that a model wants, and what these are; as they are for a model that wants none."""
    network = cast(ChangeModel, model)
    if not network.card.wants_priors and priors is not None:
        watch.say(f"{network.card.name} takes no masks here: the priors are not looked at")
    train, masks = with_priors(network, parts.train, parts.train_split, priors)
    select = None if parts.select is None else with_priors(network, parts.select, parts.select_split, priors)[0]
    return replace(parts, train=train, select=select), None if masks is None else masks.origin


def _checkpoint_gradients(model: nn.Module, name: str) -> None:
    """Let a model compute again what it would keep for the gradient."""
    if not isinstance(model, Checkpointing):
        raise UsageError(f"{name} has no gradient checkpointing; use --set accumulate=2 to save memory")
    model.checkpointing = True


def _restore(module: nn.Module, tensors: Mapping[str, Tensor], still: Sequence[str]) -> None:
    """Take over a part of a state, which has everything but the parameters that never move."""
    own = module.state_dict()
    module.load_state_dict({**tensors, **{name: own[name] for name in still}})


def _count(model: ChangeModel, samples: Samples, words: Vocabulary, *, bf16: bool) -> list[Confusion]:
    rows, _ = count(model, samples, words, threshold=model.card.threshold, bf16=bf16)
    return [row.confusion for row in rows]


def _spans(config: TrainConfig, size: int) -> list[Span]:
    """Stages in steps: an epoch is as many steps as it takes to see ``size`` pairs."""
    spans: list[Span] = []
    for stage in config.stages:
        first = spans[-1].stop if spans else 0
        pairs = 0 if stage.epochs is None else stage.epochs * size
        steps = stage.steps or max(1, math.ceil(pairs / config.batch_size - 1e-9))
        spans.append(Span(stage, first, first + steps))
    return spans


def _due(step: int, config: TrainConfig, size: int) -> bool:
    """Whether to validate after this many steps."""
    if config.validate_every is not None:
        return step % config.validate_every == 0
    epochs = math.ceil(FEWEST_STEPS * config.batch_size / size)
    every = epochs * size  # pairs between validations
    return step * config.batch_size // every > (step - 1) * config.batch_size // every


def _selecting(wanted: str | None, vocabulary: Vocabulary) -> str:
    """The name of the score that chooses.

    Raises:
        UsageError: no such score, or it needs classes that the model has not.
    """
    name = wanted or ("stacked.score" if len(vocabulary) else "binary.f1")
    nothing = Confusion.of_change(np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8))
    known = list(nothing.scores().headline())
    if name not in known:
        raise UsageError(f"no score is called {name!r}{did_you_mean(name, known) or '; known are ' + ', '.join(known)}")
    if not len(vocabulary) and not name.startswith("binary."):
        raise UsageError(f"{name} needs classes and there are none; use --set select=binary.f1")
    return name


def _augment(config: TrainConfig) -> Transform:
    settings = config.augment
    return Augment(
        crop=config.crop,
        scale=settings.scale,
        flips=settings.flips,
        quarter_turns=settings.quarter_turns,
        swap=settings.swap,
        light=None if settings.light is None else ColorJitter(**settings.light.model_dump()),
        shift_px=settings.shift_px,
        camera=None if settings.camera is None else SensorJitter(**settings.camera.model_dump()),
    )


def _tensorboard(folder: RunFolder, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError("tensorboard is not installed; pip install 'wasnow[tensorboard]', or leave it out") from None
    return SummaryWriter(folder.path / "tensorboard", purge_step=step + 1)


def _git() -> str | None:
    """The commit of this code, with ``-dirty`` if it was edited; None where it is installed and not checked out."""
    here = Path(__file__)

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here.parent), *words], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # an environment inside somebody's repository is not ours
        return git("describe", "--always", "--dirty", "--abbrev=40", "--match=")
    except (OSError, subprocess.SubprocessError):
        return None
