"""``wasnow evaluate`` with other prompts, withheld words and land cover."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import typer
from typer.testing import CliRunner, Result

import wasnow.models.registry
from training.tiny import Blobs, Tiny
from wasnow.cli import evaluate
from wasnow.errors import UsageError
from wasnow.models.checkpoint import save
from wasnow.models.contract import ModelCard, require_own_classes
from wasnow.models.registry import ModelEntry

PALETTE = np.array([[255, 255, 255], [0, 0, 255], [128, 128, 128], [0, 128, 0]], np.uint8)
WORDS = ("water", "ground", "low vegetation", "tree", "building", "playground")


class TinyOpen(Tiny):
    """A network with an open vocabulary: the first letter of a word selects its channel."""

    @property
    def card(self) -> ModelCard:
        return ModelCard(name="tiny-open", summary="a test network", source="tests", classes=self._classes, stride=4)

    def bind(self, classes: Sequence[str]) -> TinyOpen:
        other = copy.copy(self)
        other._classes = tuple(classes)
        return other

    def forward(self, *images: Any) -> Any:
        answer = super().forward(*images)
        order = [0, *(1 + ord(word[0]) % 6 for word in self._classes)]
        return type(answer)(answer.change, answer.before[:, order], answer.after[:, order], unchanged_channel=True)


class TinyFixed(Tiny):
    """A network with a fixed vocabulary."""

    @property
    def card(self) -> ModelCard:
        return ModelCard(name="tiny-fixed", summary="a test network", source="tests", classes=self._classes, stride=4)

    def bind(self, classes: Sequence[str]) -> TinyFixed:
        require_own_classes(self.card, classes)
        return self


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Test pairs in the layout and colours of SECOND, and a checkpoint of both networks."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for i in range(2):
        sample = Blobs(2)[i]
        labels = (PALETTE[sample.before_classes], PALETTE[sample.after_classes])
        for part, rgb in zip(("im1", "im2", "label1", "label2"), (sample.before, sample.after, *labels), strict=True):
            path = tmp_path / "data/test" / part / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            with rasterio.open(path, "w", driver="PNG", width=32, height=32, count=3, dtype="uint8") as file:
                file.write(np.moveaxis(rgb, 2, 0))
    for kind in (TinyOpen, TinyFixed):
        model = kind(WORDS)
        name = model.card.name
        monkeypatch.setitem(
            wasnow.models.registry.MODELS,  # type: ignore[arg-type]
            name,
            ModelEntry("a test network", "change, classes", "none", f"{__name__}:{kind.__name__}"),
        )
        source = {"origin": "made in a test", "recipe": {"leave_out": ["ground"]}}
        save(tmp_path / f"{name}.safetensors", model, provenance=source)
    return tmp_path


def scored(folder: Path, *words: object, name: str = "tiny-open") -> Result:
    app = typer.Typer()
    app.command("evaluate")(evaluate.evaluate)
    return CliRunner().invoke(
        app, [str(word) for word in (folder / f"{name}.safetensors", "--data", folder / "data", *words)]
    )


def test_synonyms_are_scored_in_addition_to_the_trained_word(folder: Path):
    done = scored(folder, "--as", "water=wasteland|lake", "--as", "Ground=grave", "--landcover", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [(one["word"], one["synonym"]) for one in found["synonyms"]] == [
        ("water", "wasteland"),
        ("water", "lake"),
        ("ground", "grave"),
    ]
    # This network uses the first letter.
    same = ("predicted", "labelled", "correct", "f1")
    assert all(found["synonyms"][0][key] == found["words"][0][key] for key in same)
    assert found["synonyms"][1]["labelled"] == found["words"][0]["labelled"]
    assert found["landcover"][0]["labelled"] == found["words"][0]["labelled"]
    assert [one["seen"] for one in found["words"]] == [True, False, True, True, True, True]
    assert set(found["seen_and_unseen"]["mean_f1"]) == {"words", "landcover"}


def test_the_tables_show_unseen_words_synonyms_and_reliability(folder: Path):
    done = scored(folder, "--as", "water=lake", "--landcover", "-o", folder / "out")
    assert done.exit_code == 0, done.output
    table = " ".join(done.stdout.split())
    for text in (
        "ground (not seen in training)",
        "mean of words not seen",
        "synonyms",
        "lake",
        "land cover",
        "calibration error",
    ):
        assert text in table
    assert "nan" not in table.casefold().split()


def test_a_list_of_prompts_replaces_the_words_of_the_data(folder: Path):
    words = "wave,gravel,lawn,trunk,barn,pitch"
    own, found = (json.loads(scored(folder, *more, "--json").stdout) for more in ((), ("--words", words)))
    assert [one["asked"] for one in found["words"]] == words.split(",")
    assert found["scores"] == own["scores"]


def test_a_fixed_vocabulary_rejects_other_words_in_one_line(folder: Path):
    assert scored(folder, "-q", name="tiny-fixed").exit_code == 0
    for more in (("--as", "water=lake"), ("--words", "a,b,c,d,e,f")):
        done = scored(folder, *more, name="tiny-fixed")
        assert done.exit_code == 2
        assert "cannot predict" in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (("--as", "water"), "is not CLASS=WORD"),
        (("--as", "water="), "is not CLASS=WORD"),
        (("--as", "warter=lake"), "did you mean 'water'"),
        (("--words", "lake,house"), "2 words for 6 classes"),
    ],
)
def test_invalid_prompts_are_rejected_in_one_line(folder: Path, more: tuple[str, ...], text: str):
    done = scored(folder, *more)
    assert done.exit_code == 2
    assert text in done.stderr
    assert done.stderr.count("\n") == 1


def test_options_for_one_class_add_up():
    found = evaluate.parse_synonyms(["building=house | rooftop", "building=shed", "water=lake"])
    assert found == {"building": ["house", "rooftop", "shed"], "water": ["lake"]}
    with pytest.raises(UsageError, match="write --as 'building=house"):
        evaluate.parse_synonyms(["=house"])


def test_an_unavailable_device_is_reported_in_one_line(folder: Path):
    done = scored(folder, "--device", "cuda:99")
    assert done.exit_code == UsageError.exit_code
    assert "--device cuda:99 is not available here" in done.output
    assert "use --device cpu" in done.output
