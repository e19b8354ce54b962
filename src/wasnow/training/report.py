"""What a run writes besides its weights and states: logs, ``run.json``, pictures and the report page.

Only the first device writes; on the others every method does nothing.
"""

from __future__ import annotations

import math
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wasnow import __version__
from wasnow.errors import UsageError
from wasnow.evaluation import change_labels, evaluation_mode, labels, predict
from wasnow.models.checkpoint import Provenance
from wasnow.models.contract import ChangeModel
from wasnow.output.report.codes import dates_png, photos_jpeg
from wasnow.training.config import TrainConfig
from wasnow.training.logging import Progress
from wasnow.training.page import training_page
from wasnow.training.roles import DataRoles, Subset
from wasnow.training.run_folder import LOG_NAME, REPORT_NAME, VALIDATIONS_NAME, CsvLog, RunFolder
from wasnow.training.stages import StageSpan
from wasnow.vocabulary import Vocabulary


class RunReport:
    """The logs, the record and the page of one run.

    Args:
        folder: of the run.
        config: of the run.
        roles: training and selection pairs.
        vocabulary: classes of the model.
        spans: stages in steps.
        trained: names of the parameters that each stage trains.
        model: the network.
        select: name of the selecting score.
        priors: origin of the prior masks; None without.
        data_name: name of the data in the report.
        device: of the run, for the record.
        active: whether this process writes.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: TrainConfig,
        roles: DataRoles,
        *,
        vocabulary: Vocabulary,
        spans: Sequence[StageSpan],
        trained: Sequence[Sequence[str]],
        model: nn.Module,
        select: str,
        priors: Mapping[str, Any] | None,
        data_name: str | None,
        device: str,
        active: bool,
    ) -> None:
        self._folder, self._config, self._roles, self._vocabulary = folder, config, roles, vocabulary
        self._spans, self._select, self._device, self._active = spans, select, device, active
        self._priors, self._data_name = priors, data_name
        self._parameters = sum(one.numel() for one in model.parameters())
        sizes = {name: one.numel() for name, one in model.named_parameters()}
        self._stage_parameters = [sum(sizes[name] for name in names) for names in trained]
        self._pictured: list[str] = []
        self._shown: Subset | None = None
        self._tensorboard: Any = None

    def open(self, step: int) -> None:
        """Open the logs as they were after ``step`` steps.

        Raises:
            UsageError: tensorboard is requested and not installed.
        """
        if not self._active:
            return
        self._log = CsvLog(self._folder, LOG_NAME, step)
        self._validations = CsvLog(self._folder, VALIDATIONS_NAME, step)
        self._tensorboard = _tensorboard(self._folder, step) if self._config.tensorboard else None

    def log(self, progress: Progress) -> None:
        """Add a row to the training log."""
        if not self._active:
            return
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
        self._log.add(row)
        if self._tensorboard is not None:
            for name, value in row.items():
                if isinstance(value, int | float) and name != "step":
                    self._tensorboard.add_scalar(f"train/{name}", value, progress.step)

    def validation(self, step: int, scores: Mapping[str, float], *, best: bool) -> None:
        """Add a row to the validation log.

        Args:
            step: completed steps.
            scores: by name; NaN where undefined.
            best: whether the selecting score is the best so far.
        """
        if not self._active:
            return
        shown = {name: None if math.isnan(one) else one for name, one in scores.items()}
        self._validations.add({"step": step, "best": int(best), **shown})
        if self._tensorboard is not None:
            for name, one in shown.items():
                if one is not None:
                    self._tensorboard.add_scalar(f"validation/{name}", one, step)

    def write(
        self,
        status: str,
        *,
        seconds: float,
        best: Mapping[str, float] | None,
        problem: str | None = None,
        page: bool = True,
    ) -> None:
        """Write ``run.json`` and the page.

        Args:
            status: ``running``, ``complete``, ``interrupted`` or ``stopped``.
            seconds: training time so far.
            best: best validation, as {score, step}.
            problem: why the run ended early.
            page: whether to write the page as well.
        """
        if not self._active:
            return
        earlier = self._folder.record or {}
        now = datetime.now(UTC).isoformat(timespec="seconds")
        record = {
            "format": 1,
            "status": status,
            "problem": problem,
            "started": earlier.get("started", now),
            "updated": now,
            "seconds": seconds,
            "identity": self._config.identity(),
            "config": self._config.model_dump(mode="json"),
            "data": self._data_name,
            "data_fingerprint": self._roles.train.fingerprint,
            "priors": self._priors,
            "trained_on": self._roles.trained_on,
            "selected_on": self._roles.selected_on,
            "untouched": list(self._roles.untouched),
            "classes": list(self._vocabulary.words),
            "select": self._select,
            "best": best,
            "steps": self._spans[-1].stop,
            "stages": [
                {"name": span.stage.name, "steps": span.stop - span.first, "parameters": parameters}
                for span, parameters in zip(self._spans, self._stage_parameters, strict=True)
            ],
            "left_out": list(self._config.leave_out),
            "parameters": self._parameters,
            "device": self._device,
            "versions": {
                "wasnow": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
                "code": _git_commit(),
            },
        }
        self._folder.write_record(record)
        if page:
            rows = self._log.rows, self._validations.rows
            self._folder.write_text(REPORT_NAME, training_page(self._folder, record, *rows, self._pictured))

    def picture_samples(self) -> None:
        """Write images and labels of the pairs that the page shows."""
        if not self._active:
            return
        # Without selection pairs the page shows training pairs.
        source = self._roles.select or self._roles.train
        self._shown = Subset(source, tuple(range(min(self._config.samples, len(source)))))
        for i in range(len(self._shown)):
            sample = self._shown[i]
            self._pictured.append(sample.name)
            self._folder.write_bytes(f"pictures/{i}-photo.jpg", photos_jpeg(sample.before, sample.after))
            both = labels(sample) if len(self._vocabulary) else None
            maps = both if both is not None else (change_labels(sample), None)
            self._folder.write_bytes(f"pictures/{i}-labels.png", dates_png(maps[0], maps[1], self._vocabulary))

    def picture_predictions(self, network: ChangeModel, step: int) -> None:
        """Write predictions of the shown pairs after ``step`` steps."""
        if self._shown is None:
            return
        with evaluation_mode(network):
            for i in range(len(self._shown)):
                prediction = predict(network, self._shown[i], network.card.threshold)
                both = (prediction.before, prediction.after)
                maps = both if len(self._vocabulary) else (prediction.change, None)
                name = f"pictures/{i}-{step:08d}.png"
                self._folder.write_bytes(name, dates_png(maps[0], maps[1], self._vocabulary))

    def provenance(self, step: int, stage: str) -> Provenance:
        """Return the origin of the weights for a checkpoint.

        Args:
            step: completed steps.
            stage: name of the current stage.
        """
        config = self._config
        return Provenance(
            origin=f"trained by wasnow {__version__} with the recipe {config.name}",
            git=_git_commit(),
            torch=torch.__version__,
            # The identity of the masks belongs to the recipe, their path does not.
            recipe={**config.model_dump(mode="json", exclude={"data", "output"}), "priors": self._priors},
            data=self._data_name,
            data_fingerprint=self._roles.train.fingerprint,
            trained_on=self._roles.trained_on,
            selected_on=self._roles.selected_on,
            seed=config.seed,
            stage=stage,
            step=step,
            epoch=round(step * config.batch_size / len(self._roles.train), 6),
        )


def _tensorboard(folder: RunFolder, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError(
            "tensorboard is not installed; run pip install 'wasnow[tensorboard]', or remove tensorboard=true"
        ) from None
    return SummaryWriter(folder.path / "tensorboard", purge_step=step + 1)


def _git_commit() -> str | None:
    """Return the commit of this code, with ``-dirty`` if it was edited; None for an installed package."""
    here = Path(__file__)

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here.parent), *words], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        # An environment inside another repository does not contain this file in its index.
        git("ls-files", "--error-unmatch", here.name)
        return git("describe", "--always", "--dirty", "--abbrev=40", "--match=")
    except (OSError, subprocess.SubprocessError):
        return None
