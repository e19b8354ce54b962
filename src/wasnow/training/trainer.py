"""`train`: train a network and write a run folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from lightning_fabric import Fabric
from torch import distributed

from wasnow._system import retained_heap
from wasnow.errors import OutOfMemory
from wasnow.models.contract import Checkpointing
from wasnow.training.config import TrainConfig
from wasnow.training.devices import (
    deterministic,
    is_out_of_memory,
    make_fabric,
    memory_advice,
    stop_signals,
)
from wasnow.training.initial_weights import (
    check_options,
)
from wasnow.training.loader import LoaderDied, Transform
from wasnow.training.logging import NullLogger, TrainingLogger
from wasnow.training.loop import Trainer
from wasnow.training.preparation import augmentation, withhold
from wasnow.training.roles import assign_roles
from wasnow.training.run_folder import RunFolder, TrainResult

if TYPE_CHECKING:
    from wasnow.data.samples import Samples
    from wasnow.priors.store import PairMasks


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
    logger: TrainingLogger | None = None,
) -> TrainResult:
    """Train a network and write a run folder.

    Args:
        config: of the run.
        splits: pairs by split; ``train`` or ``all`` is trained on, ``val`` (or held-back pairs) selects the best
            weights, others are not used.
        output: the run folder, created if missing.
        resume: continue the run in the folder, if there is one.
        overwrite: delete the run in the folder, if there is one.
        priors: prior masks of the pairs, for a model that needs them.
        data_name: name of the data in the report.
        transform: augmentation; None: `wasnow.data.transforms.Augment` as configured.
        logger: receives the events of the run.

    Raises:
        UsageError: the configuration does not fit the data or the model, or the model needs masks and there are none.
        VocabularyError: the masks have other words than the model needs.
        CheckpointError: ``start`` is not available, or belongs to another model.
        ResumeRefused: the folder holds a different run.
        OutputError: the folder holds a run and ``resume`` is False, or it cannot be written.
        TrainingDiverged: the loss or a gradient is not finite.
        OutOfMemory: a batch does not fit; the message names the setting to lower.
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    check_options(config)
    fabric = make_fabric(config)
    roles = withhold(assign_roles(splits, holdback=config.holdback, seed=config.seed), config.leave_out)
    folder = RunFolder(Path(output))
    logger = logger if logger is not None and fabric.is_global_zero else NullLogger()
    with deterministic(), _locked(folder, fabric), retained_heap(), stop_signals() as stop_requested:
        if overwrite and fabric.is_global_zero:
            folder.clear()
        run = Trainer(
            config,
            roles,
            folder,
            fabric,
            transform=transform or augmentation(config),
            logger=logger,
            priors=priors,
            data_name=data_name,
            stop_requested=stop_requested,
        )
        try:
            return run.fit(resume=resume)
        except LoaderDied as error:
            raise OutOfMemory(
                f"a process that loads pairs ended at step {run.step + 1} ({error}), probably because memory or shared "
                f"memory ran out; lower --set workers={config.workers} (0 loads in the training process), or enlarge "
                "/dev/shm (docker run --shm-size=2g), and continue with --resume"
            ) from error
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            offers = isinstance(run.model, Checkpointing)
            raise OutOfMemory(memory_advice(config, fabric.device, run.step, checkpointing=offers)) from error
        finally:
            logger.close()
            if config.devices > 1 and distributed.is_initialized():
                distributed.destroy_process_group()


@contextmanager
def _locked(folder: RunFolder, fabric: Fabric) -> Iterator[None]:
    if fabric.is_global_zero:
        with folder.locked():
            yield
    else:
        yield
