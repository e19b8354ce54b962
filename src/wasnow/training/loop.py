"""The training run: stages of steps on lightning-fabric, resumable with bit-identical results.

    initial weights ─> network
    for stage in stages:            trainable parameters and loss
        for step in stage:
            batch(seed, step) ─> network ─> loss of the whole batch ─> gradient ─> optimizer(rate(step)) ─> average
            at intervals:  log · validate (never on the test split) · keep the best · save the state

A step depends only on the state after the previous step: data, augmentation, learning rate and dropout seeds are
functions of (seed, step). A run that was killed and resumed repeats the lost steps with the same result.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, distributed, nn

from wasnow.errors import Interrupted, ResumeRefused, TrainingDiverged
from wasnow.models.checkpoint import BEST, LAST, save
from wasnow.models.contract import ChangeModel, FeatureModel
from wasnow.models.sealed import read_sealed
from wasnow.training.batches import Batch
from wasnow.training.config import TrainConfig
from wasnow.training.devices import (
    TensorOutputs,
    divergence_advice,
    gather_batch,
    on_any_device,
    peak_memory_mb,
)
from wasnow.training.features import FeatureStore, check_features, encoder_is_frozen
from wasnow.training.initial_weights import (
    build_network,
    digest,
    find_initial_weights,
    load_initial_weights,
)
from wasnow.training.loader import BatchLoader, Transform, torch_seed
from wasnow.training.logging import MeanLoss, Progress, TrainingLogger
from wasnow.training.losses import LOSSES
from wasnow.training.optim import (
    WeightAverage,
    freeze,
    make_optimizer,
    never_trained,
    optimizer_tensors,
    restore_module,
    restore_optimizer,
    set_learning_rate,
    training_mode,
)
from wasnow.training.preparation import enable_checkpointing, share_batch_norm, with_priors
from wasnow.training.report import RunReport
from wasnow.training.roles import DataRoles
from wasnow.training.run_folder import RunFolder, State, TrainResult, stage_name
from wasnow.training.stages import StageSpan, stage_scores, stage_spans, validation_due
from wasnow.training.validation import validation_scores
from wasnow.vocabulary import Vocabulary

if TYPE_CHECKING:
    from wasnow.priors.store import PairMasks


class Trainer:
    """One process of a run, from its first step (or the step after a resumed state) to its last.

    Args:
        config: of the run.
        roles: training and selection pairs.
        folder: of the run.
        fabric: the devices.
        transform: augmentation.
        logger: receives the events.
        priors: prior masks of the pairs.
        data_name: name of the data in the report.
        stop_requested: whether to stop after the current step.
    """

    def __init__(
        self,
        config: TrainConfig,
        roles: DataRoles,
        folder: RunFolder,
        fabric: Fabric,
        *,
        transform: Transform,
        logger: TrainingLogger,
        priors: PairMasks | None,
        data_name: str | None,
        stop_requested: Callable[[], bool],
    ) -> None:
        self.config, self.folder, self.fabric = config, folder, fabric
        self.logger, self.stop_requested = logger, stop_requested
        start = None if config.start is None else find_initial_weights(config.start)
        torch.manual_seed(config.seed)
        self.model = build_network(config, roles.train.vocabulary, start)
        self.vocabulary = Vocabulary(cast(ChangeModel, self.model).card.classes)
        if start is not None:
            logger.message(load_initial_weights(self.model, start))
        self.roles, self.priors = with_priors(self.model, roles, priors, logger)
        if config.checkpointing:
            enable_checkpointing(self.model, config.model)
        self.model = share_batch_norm(self.model, fabric, logger)
        self.model.to(fabric.device)
        self.trained = [freeze(self.model, stage.trains) for stage in config.stages]
        self.frozen = never_trained(self.model, self.trained)
        own = self.model.state_dict()
        self.frozen_digest = digest((name, own[name]) for name in self.frozen) if self.frozen else None
        if config.cache_features:
            check_features(config, self.model, self.trained, self.roles.train[0].before.shape[:2])
        self.average = None if config.ema is None else WeightAverage(self.model, config.ema, frozen=self.frozen)
        self.spans = stage_spans(config, len(self.roles.train))
        self.steps = self.spans[-1].stop
        self.select, self.stage_scores = "", stage_scores(config, self.vocabulary)
        self.loader = BatchLoader(
            self.roles.train,
            transform,
            seed=config.seed,
            batch_size=config.batch_size,
            parts=config.accumulate,
            rank=fabric.global_rank,
            devices=fabric.world_size,
            workers=config.workers,
            pin=fabric.device.type == "cuda",
            warn=lambda text: logger.message(f"warning: {text}"),
        )
        self.report = RunReport(
            folder,
            config,
            self.roles,
            vocabulary=self.vocabulary,
            spans=self.spans,
            trained=self.trained,
            model=self.model,
            select=self.stage_scores[-1],
            priors=self.priors,
            data_name=data_name,
            device=str(fabric.device),
            active=fabric.is_global_zero,
        )
        self.step, self.stage = 0, 0
        self.best: dict[str, float] | None = None
        self.seconds = 0.0
        self._scores: dict[str, float] = {}
        self._scored_step = -1
        self._gradient = math.nan
        self._mean = MeanLoss()
        self._started = time.monotonic()
        self._first = 0

    # --- the run --------------------------------------------------------------------------------------------------

    def fit(self, *, resume: bool) -> TrainResult:
        """Run all remaining steps."""
        state = self._open(resume)
        self.logger.message(f"training on {self.roles.trained_on}; best weights selected on {self.roles.selected_on}")
        if self.roles.untouched:
            self.logger.message(f"not used: {', '.join(self.roles.untouched)}")
        self._started, self._first = time.monotonic(), self.step
        self.report.picture_samples()
        try:
            for number, span in enumerate(self.spans):
                self.stage = number
                if self.step < span.stop:
                    self._run_stage(span, state)
        except TrainingDiverged as error:
            self._save_checkpoint(LAST)
            self._write_report("stopped", problem=str(error))
            raise
        except Interrupted as error:
            self._write_report("interrupted", problem=str(error))
            raise
        self._write_report("complete")
        selected = self.best is not None and (self.folder.path / BEST).exists()
        return TrainResult(
            folder=self.folder.path,
            checkpoint=self.folder.path / (BEST if selected else LAST),
            select=self.stage_scores[-1],
            score=self.best["score"] if selected and self.best else None,
            step=int(self.best["step"]) if selected and self.best else self.step,
        )

    def _open(self, resume: bool) -> State | None:
        """Check the folder and load the state of the run in it, if any."""
        wanted = {
            "identity": self.config.identity(),
            "data_fingerprint": self.roles.train.fingerprint,
            "priors": self.priors,
        }
        first = self.fabric.is_global_zero
        resumed = self.fabric.broadcast(self.folder.check(wanted, resume=resume) if first else False)
        state, faults = self.folder.latest() if resumed else (None, [])
        self.fabric.barrier()
        for fault in faults:
            self.logger.message(f"warning: {fault}")
        if state is not None:
            self._load(state)
            self.logger.message(f"resumed after step {self.step} of {self.steps}")
        if first:
            self.folder.drop_states_after(self.step)
        self.report.open(self.step)
        self.report.write("running", seconds=self.seconds, best=self.best, page=False)
        return state

    def _load(self, state: State) -> None:
        self.step, self.seconds = state.step, state.seconds
        self.best = None if state.best is None else dict(state.best)
        if state.frozen != self.frozen_digest:
            raise ResumeRefused(
                self.folder.path,
                [f"the weights that it started from and does not train (start={self.config.start}) were different"],
            )
        restore_module(self.model, state.part("model"), self.frozen)
        if self.average is not None:
            restore_module(self.average.module, state.part("average"), self.frozen)

    def _run_stage(self, span: StageSpan, state: State | None) -> None:
        """Run the remaining steps of a stage."""
        config = self.config
        self.select = self.stage_scores[self.stage]
        if self.stage > 0 and self.step == span.first:
            self._continue_from_previous()
        trained = freeze(self.model, span.stage.trains)
        optimizer = make_optimizer(self.model, span.stage.optimizer or config.optimizer)
        frozen_encoder = encoder_is_frozen(self.model, trained)
        network, stepper = self.fabric.setup(TensorOutputs(self.model, encoder_frozen=frozen_encoder), optimizer)
        store = self._feature_store() if frozen_encoder and config.cache_features else None
        if state is not None and span.first < state.step == self.step:
            restore_optimizer(optimizer, state.part("optimizer"))
        if len(self.spans) > 1:
            self.logger.message(f"stage {span.stage.name}: {len(trained)} trainable tensors, loss {span.stage.loss}")
        training_mode(self.model)
        for parts in self.loader.batches(self.step, span.stop):
            rate = span.learning_rate(self.config, self.step)
            set_learning_rate(optimizer, rate)
            self._take_step(span, network, stepper, parts, store)
            self.step += 1
            if self.average is not None:
                self.average.update(self.model, self.step)
            self._after_step(span, optimizer, rate)
        if store is not None:
            self.logger.message(f"cached features: {store.found} read, {store.computed} computed")
            store.clear()

    def _continue_from_previous(self) -> None:
        """Start a stage from the last or the best weights of the stage before, with a selection of its own."""
        path = self.folder.path / stage_name(self.stage)
        if self.config.continue_from == "best" and self.best is not None and path.exists():
            tensors, _ = read_sealed(path)
            for module in (self.model, *([] if self.average is None else [self.average.module])):
                module.load_state_dict(tensors)
            self.logger.message(f"continuing from the best weights of the previous stage, step {self.best['step']:.0f}")
        self.best = None

    def _feature_store(self) -> FeatureStore:
        """Return the features of the pairs of this device, for one stage."""
        return FeatureStore(
            self.folder.features / str(self.fabric.global_rank),
            cast(FeatureModel, self.model),
            self.fabric.autocast,
            salt=f"{self.fabric.device.type} {self.config.precision}",
            full=self.logger.message,
        )

    # --- one step -------------------------------------------------------------------------------------------------

    def _take_step(
        self, span: StageSpan, network: Any, optimizer: Any, parts: Sequence[Batch], store: FeatureStore | None
    ) -> None:
        """Take one step of the optimizer.

        Args:
            span: the current stage.
            network: `TensorOutputs` as wrapped by fabric.
            optimizer: as wrapped by fabric.
            parts: micro-batches of this device.
            store: cached features of a frozen encoder.
        """
        config, world = self.config, self.fabric.world_size
        torch.manual_seed(torch_seed(config.seed, self.step, self.fabric.global_rank))
        optimizer.zero_grad(set_to_none=True)
        for i, part in enumerate(parts):
            skip_sync = world > 1 and i + 1 < len(parts)
            with self.fabric.no_backward_sync(network, enabled=skip_sync):
                before, after, target = part.to(self.fabric.device)
                masks = None if part.priors is None else part.priors.to(self.fabric.device, non_blocking=True)
                encoded = None
                if store is not None:  # the same types as the precision wrapper passes to the network
                    kind = torch.bfloat16 if config.precision == "bf16" else torch.float32
                    encoded = store.encoded(part, before.to(kind), after.to(kind))
                output = network.module.logits(network(before, after, encoded, masks))
                loss = LOSSES[span.stage.loss](*gather_batch(output, target, self.fabric))
                if not torch.isfinite(loss.total):
                    raise TrainingDiverged(self._divergence("loss", float(loss.total.detach()), span, loss.parts))
                # DDP averages over the devices, but their gradients are parts of one sum.
                self.fabric.backward(loss.total * (world / len(parts)))
            self._mean.add(float(loss.total.detach()), {name: float(one) for name, one in loss.parts.items()})
        trainable = [one for one in self.model.parameters() if one.requires_grad]
        norm = nn.utils.clip_grad_norm_(trainable, math.inf if config.clip is None else config.clip)
        if not torch.isfinite(norm):
            raise TrainingDiverged(self._divergence("gradient", float(norm), span, {}))
        self._gradient = float(norm)
        optimizer.step()

    def _after_step(self, span: StageSpan, optimizer: torch.optim.Optimizer, rate: float) -> None:
        """Log, validate, save, and stop if requested."""
        config, last = self.config, self.step == self.steps
        due = last or validation_due(self.step, config, len(self.roles.train))
        progress = self._progress(span, rate)
        self.logger.step(progress)
        stop = on_any_device(self.fabric, self.stop_requested())
        if last or stop or self.step % config.log_every == 0:
            self.report.log(progress)
            self._mean = MeanLoss()
        if due and self.roles.select is not None:
            self._validate()
        if last or stop:
            self._save_checkpoint(LAST)
        if due or stop or (config.save_every and self.step % config.save_every == 0):
            self._save_state(optimizer)
            if due:
                self._write_report("running")
        if stop and not last:
            raise Interrupted(f"interrupted after step {self.step} of {self.steps}; continue with --resume")

    def _progress(self, span: StageSpan, rate: float) -> Progress:
        elapsed = max(time.monotonic() - self._started, 1e-9)
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
            waiting=min(1.0, self.loader.waited_s / elapsed),
            memory_mb=peak_memory_mb(self.fabric.device),
        )

    # --- validation, checkpoints, states --------------------------------------------------------------------------

    def _validate(self) -> None:
        """Score the selection pairs and keep the weights if they are the best so far."""
        if self.fabric.world_size > 1:
            # Normalisation statistics differ between devices; the checkpoint has those of the first.
            for buffer in self.model.buffers():
                distributed.broadcast(buffer, 0)
        network = self._evaluated
        self._scores = validation_scores(network, self.roles, self.vocabulary, self.config, self.fabric)
        self._scored_step, value = self.step, self._scores[self.select]
        # An undefined score (nothing predicted, for example) is worse than any defined one.
        best = math.isfinite(value) and (self.best is None or value > self.best["score"])
        if best:
            self.best = {"score": value, "step": float(self.step)}
            self._save_checkpoint(BEST if self.stage == len(self.spans) - 1 else stage_name(self.stage + 1))
        self.report.validation(self.step, self._scores, best=best)
        self.logger.validation(self.step, self.select, value, best)
        self.report.picture_predictions(cast(ChangeModel, network), self.step)

    @property
    def _evaluated(self) -> nn.Module:
        """The module that is validated and saved: the average, if there is one."""
        return self.model if self.average is None else self.average.module

    def _save_checkpoint(self, name: str) -> None:
        """Write a checkpoint on the first device."""
        if self.fabric.is_global_zero:
            scores = {"val": self._scores} if self._scored_step == self.step else {}
            model = cast(ChangeModel, self._evaluated)
            stage = self.spans[self.stage].stage.name
            save(self.folder.path / name, model, scores=scores, provenance=self.report.provenance(self.step, stage))

    def _save_state(self, optimizer: torch.optim.Optimizer) -> None:
        """Write the state on the first device; the others wait, so that none is ahead of the saved state."""
        if self.fabric.is_global_zero:
            modules = {"model": self.model} | ({} if self.average is None else {"average": self.average.module})
            tensors = {
                f"{part}/{name}": one
                for part, module in modules.items()
                for name, one in module.state_dict().items()
                if name not in self.frozen
            }
            tensors |= {f"optimizer/{name}": one for name, one in optimizer_tensors(optimizer).items()}
            self.folder.save(State(self.step, tensors, self.best, self._elapsed, self.frozen_digest))
        self.fabric.barrier()

    @property
    def _elapsed(self) -> float:
        return round(self.seconds + time.monotonic() - self._started, 3)

    def _write_report(self, status: str, *, problem: str | None = None) -> None:
        self.report.write(status, seconds=self._elapsed, best=self.best, problem=problem)

    def _divergence(self, what: str, value: float, span: StageSpan, parts: Mapping[str, Tensor]) -> str:
        kept = self.folder.path / LAST
        return divergence_advice(what, value, self.step, span.stage, parts, self.config, kept)
