"""The default model in whole runs.

Its accuracy is measured elsewhere. A threshold of 0 makes every pixel a change here, so that all class codes occur.
"""

import json
import re
import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import pyogrio
import pytest
import rasterio
import torch
from rasterio.enums import ColorInterp
from typer.testing import CliRunner

import wasnow
from making import Toy, pair, textured, write_raster
from wasnow.cli import app
from wasnow.errors import BandsUnclear, CheckpointError, Interrupted, ResumeRefused, VocabularyError
from wasnow.evaluation.demo import render, score
from wasnow.models import checkpoint, loading, model_card, registry
from wasnow.models.contract import ChangeLogits, ModelCard
from wasnow.models.registry import DEFAULT, MODELS
from wasnow.nn import sentence
from wasnow.output.change_map import ChangeMap
from wasnow.pipeline import plan
from wasnow.pipeline.api import detect
from wasnow.pipeline.options import Options
from wasnow.pipeline.plan import make_plan
from wasnow.synthetic import CLASSES, write_scene

OWN = ("building", "road", "water", "vegetation", "bare ground")
BYTES = ("change.tif", "confidence.tif", "changes.gpkg", "changes.parquet", "change.tif.aux.xml", "change.qml")
ALL = {"threshold": 0.0}


@pytest.fixture(autouse=True)
def _no_encoder(monkeypatch):
    # Words are looked up in the table alone, whatever is installed here.
    monkeypatch.setattr(sentence, "available", lambda: False)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return pair(tmp_path_factory.mktemp("pair"), height=64, width=96)


@pytest.fixture(scope="module")
def own(paths, tmp_path_factory):
    """A run without any word about model or classes."""
    return detect(*paths, output=tmp_path_factory.mktemp("own") / "out", landcover=True, **ALL)


@pytest.fixture(scope="module")
def two(paths, tmp_path_factory):
    """A run with two words that leave three kinds of ground without one."""
    return detect(*paths, output=tmp_path_factory.mktemp("two") / "out", classes="building, water", **ALL)


def read(path) -> np.ndarray:
    with rasterio.open(path) as raster:
        return raster.read()


def one_line(arguments) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    assert "Traceback" not in done.output
    return done.exit_code, done.output.strip()


# --- which model, which words ---------------------------------------------------------------------------------------


def test_without_class_words_the_default_network_predicts_its_own_classes(own):
    assert own.record.model.name == DEFAULT == "semantic-cd-mini"
    assert own.record.model.classes == own.vocabulary.words == OWN
    assert own.record.model.fingerprint == checkpoint.read_header(registry.shipped(DEFAULT)).digest
    assert own.record.model.other_words == ()
    assert 1 <= read(own.change)[:2].min() <= read(own.change)[:2].max() <= len(OWN)


@pytest.mark.parametrize("model", ["semantic-cd-mini", "loaded"])
def test_its_name_its_path_and_the_loaded_model_give_the_same_run(own, paths, tmp_path, model):
    meant = wasnow.load("semantic-cd-mini") if model == "loaded" else model
    named = wasnow.detect(*paths, output=tmp_path / "out", model=meant, landcover=True, **ALL)
    assert named.record.model == own.record.model
    for name in (*BYTES, "landcover_before.tif", "landcover_after.tif"):
        assert (named.folder / name).read_bytes() == (own.folder / name).read_bytes(), name


def test_classes_that_no_word_covers_become_the_class_other(two):
    assert two.record.model.classes == ("building", "water", "other")
    assert two.record.model.other_words == ("road", "vegetation", "bare ground")
    assert ChangeMap.open(two.folder).record == two.record


def test_the_class_other_appears_in_rasters_tables_and_polygons(paths, tmp_path):
    # Nothing in these images is sure to be "other", so whatever no word covers is all there is.
    result = detect(*paths, output=tmp_path / "out", classes="swimming pool", landcover=True, **ALL)
    *_, last = result.record.landcover
    assert (last.word, last.code) == ("other", 2)
    assert max(last.color) - min(last.color) < 30, "a neutral grey"
    assert last.pixels[0] == (read(result.landcover[0]) == 2).sum()
    for name in ("change.tif.aux.xml", "landcover_before.tif.aux.xml"):
        assert "<F>other</F>" in (result.folder / name).read_text()
    fields = pyogrio.raw.read(result.geopackage, layer="changes")
    columns = dict(zip(fields[0]["fields"], fields[3], strict=True))
    assert set(columns["from"]) | set(columns["to"]) <= {"swimming pool", "other"}
    (band, *_) = json.loads(result.item.read_text())["assets"]["change"]["bands"]
    assert "other" in [each["title"] for each in band["classification:classes"]]


def test_a_replaced_phrase_is_reported_in_warnings_record_and_report(paths, tmp_path):
    result = detect(*paths, output=tmp_path / "out", classes="yellowish brick hut, water")
    (remark,) = [warning for warning in result.record.warnings if "yellowish brick hut" in warning]
    assert "is not among the" in remark
    assert "yellowish brick hut" in result.report.read_text().split("is not among", 1)[0].rsplit("<li>", 1)[1]
    code, told = one_line(["info", *paths, "--classes", "yellowish brick hut, water"])
    assert code == 0
    assert "is not among the" in told
    assert "yellowish brick hut, water, other" in " ".join(told.split())


def test_remarks_also_appear_for_a_network_that_is_already_bound(paths):
    bound = loading.load(DEFAULT).bind(["yellowish brick hut", "water"])
    planned = make_plan(*paths, model=bound)
    assert any("is not among the" in warning for warning in planned.warnings)
    assert planned.other_words


def test_known_words_cause_no_remark(own, two):
    for result in (own, two):
        assert not any("is not among the" in warning for warning in result.record.warnings)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("water, qwrtzpsdf", "qwrtzpsdf"),
        ("building, other", "leave it out"),
        ("water, water", "given twice"),
    ],
)
def test_invalid_words_are_refused_in_one_line(paths, tmp_path, words, message):
    code, told = one_line(["detect", *paths, "-o", tmp_path / "out", "--classes", words])
    assert (code, len(told.splitlines())) == (2, 1)
    assert message in told
    assert not (tmp_path / "out").exists()
    with pytest.raises(VocabularyError):
        make_plan(*paths, classes=words)


# --- the same run gives the same bytes ------------------------------------------------------------------------------


def test_other_words_or_other_phrasings_are_another_run(two, paths, tmp_path):
    assert detect(*paths, output=two.folder, classes="building, water", **ALL).reused
    with pytest.raises(ResumeRefused, match="classes"):
        detect(*paths, output=two.folder, **ALL)
    with pytest.raises(ResumeRefused, match=r"building\|house"):
        detect(*paths, output=two.folder, classes="building|house, water", **ALL)


def test_an_interrupted_run_continues_to_the_same_bytes(tmp_path, monkeypatch):
    small = plan.Tiling
    monkeypatch.setattr(plan, "Tiling", lambda *a, **k: small(*a, **k, block_side=64))
    options = {"tile": 128, "margin": 32, "landcover": True, **ALL}
    many = pair(tmp_path, height=190, width=200)
    whole = detect(*many, output=tmp_path / "whole", **options)
    assert len(whole.record.blocks) > 3

    def stop(phase, done, total):
        if phase == "detect" and done >= 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        detect(*many, output=tmp_path / "out", progress=stop, **options)
    again = detect(*many, output=tmp_path / "out", **options)
    for name in (*BYTES, "landcover_before.tif", "landcover_after.tif"):
        assert (again.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


def test_other_words_are_predicted_from_cached_features(paths, tmp_path):
    kept = {"keep_features": tmp_path / "kept", **ALL}
    one = detect(*paths, output=tmp_path / "one", **kept)
    other = detect(*paths, output=tmp_path / "other", classes="house, lake", **kept)
    again = detect(*paths, output=tmp_path / "again", **kept)
    assert one.record.features.tiles_encoded > 0
    assert other.record.features.tiles_encoded == again.record.features.tiles_encoded == 0
    assert other.record.model.classes[:2] == ("house", "lake")
    for name in BYTES:
        assert (one.folder / name).read_bytes() == (again.folder / name).read_bytes(), name


def test_it_can_run_in_bfloat16(own, paths, tmp_path):
    rough = detect(*paths, output=tmp_path / "out", precision="bf16", landcover=True, **ALL)
    gap = np.abs(read(rough.confidence)[0].astype(int) - read(own.confidence)[0])
    assert gap.mean() < 8
    assert (read(rough.landcover[0]) == read(own.landcover[0])).mean() > 0.8


def test_a_class_can_have_its_own_threshold(own, paths, tmp_path):
    result = detect(*paths, output=tmp_path / "out", class_thresholds={"Building": 0.999, "road": 0.999}, **ALL)
    before, after = read(own.change), read(result.change)
    touched = np.isin(before[:2], (1, 2)).any(axis=0)
    np.testing.assert_array_equal(after[:, ~touched], before[:, ~touched])
    # 0.999 is above what any of the pixels reaches, unless the weights are as sure as that.
    sure = read(own.confidence)[0] >= 253
    assert (after[2][touched & ~sure] == 0).all()


# --- which images ---------------------------------------------------------------------------------------------------


def test_an_infrared_band_is_not_used(own, paths, tmp_path):
    files = []
    for path in paths:
        red, green, blue = read(path)
        infrared = textured(5, *red.shape, bands=1)[0].astype(np.uint8)
        made = write_raster(tmp_path / path.name, np.stack([infrared, blue, green, red]), photometric="minisblack")
        with rasterio.open(made, "r+") as raster:
            colors = (ColorInterp.undefined, ColorInterp.blue, ColorInterp.green, ColorInterp.red)
            raster.colorinterp = colors
        files.append(made)
    result = detect(*files, output=tmp_path / "out", **ALL)
    assert result.record.before.bands == (4, 3, 2)
    np.testing.assert_array_equal(read(result.change), read(own.change))
    np.testing.assert_array_equal(read(result.confidence)[0], read(own.confidence)[0])
    with rasterio.open(result.change) as raster, rasterio.open(paths[0]) as before:
        assert (raster.crs, raster.transform, raster.shape) == (before.crs, before.transform, before.shape)


def test_16_bit_data_of_any_gain_and_offset_give_the_same_map(paths, tmp_path):
    answers = []
    for name, gain, offset in (("dim", 10, 300), ("bright", 200, 5000)):
        files = [
            write_raster(tmp_path / f"{name}-{path.name}", (read(path).astype(np.uint16) * gain + offset))
            for path in paths
        ]
        result = detect(*files, output=tmp_path / name, landcover=True, **ALL)
        assert result.record.before.stretch[0][0] > offset
        answers.append(read(result.landcover[0]))
    assert (answers[0] == answers[1]).mean() > 0.99


def test_grey_images_are_used_with_a_warning(tmp_path):
    for name, seed in (("b.tif", 0), ("a.tif", 1)):
        write_raster(tmp_path / name, textured(seed, 40, 50, bands=1).astype(np.uint8))
    result = detect(tmp_path / "b.tif", tmp_path / "a.tif", output=tmp_path / "out")
    assert result.record.before.bands == (1, 1, 1)
    told = [warning for warning in result.record.warnings if "as grey" in warning]
    assert len(told) == 2
    assert all("--model irmad" in warning for warning in told)


@pytest.mark.parametrize(
    ("bands", "names", "message"),
    [(2, ("VV", "VH"), r"has 2 bands \(VV, VH\)"), (3, ("Sigma0_VV", "Sigma0_VH", "angle"), "is radar")],
)
def test_images_without_colours_are_refused_with_the_advice_to_use_irmad(tmp_path, bands, names, message):
    files = []
    for name, seed in (("b.tif", 0), ("a.tif", 1)):
        files.append(write_raster(tmp_path / name, textured(seed, 40, 50, bands=bands)))
        with rasterio.open(files[-1], "r+") as raster:
            raster.descriptions = names
    with pytest.raises(BandsUnclear, match=message + r".* --model irmad"):
        make_plan(*files)
    code, told = one_line(["detect", *files, "-o", tmp_path / "out"])
    assert (code, len(told.splitlines())) == (3, 1)
    assert make_plan(*files, model="irmad").pair.before.source.n_bands == bands
    if bands == 3:
        # Somebody who names the bands means them.
        assert make_plan(*files, options=Options(bands=(1, 2, 3))).pair.before.source.bands == (1, 2, 3)


@dataclass(frozen=True)
class Measured(Toy):
    """A toy that was measured between 0.5 and 5 m."""

    @property
    def card(self) -> ModelCard:
        return replace(super().card, gsd_range_m=(0.5, 5.0))


@pytest.mark.parametrize(
    ("pixel", "options", "advice"),
    [
        (30.0, {}, "--model irmad"),
        (30.0, {"gsd": 4.0}, "--model irmad"),  # finer than the pixels are is no help
        (0.1, {}, None),  # seen at 0.5 m, see below
        (0.1, {"gsd": 0.2}, "leave --gsd out"),
        (0.1, {"gsd": 0.5}, None),
        (2.0, {}, None),
    ],
)
def test_resolutions_outside_the_evaluated_range_cause_a_warning_with_advice(tmp_path, pixel, options, advice):
    transform = rasterio.Affine(pixel, 0, 500_000, 0, -pixel, 5_500_000)
    files = pair(tmp_path, height=40, width=50, transform=transform)
    told = [
        each for each in make_plan(*files, model=Measured(), options=Options(**options)).warnings if "0.5 to" in each
    ]
    assert len(told) == (advice is not None)
    assert all(advice in each for each in told)


def test_finer_images_are_reduced_to_the_finest_trained_resolution(tmp_path):
    files = pair(tmp_path, height=40, width=50, transform=rasterio.Affine(0.1, 0, 500_000, 0, -0.1, 5_500_000))
    plan = make_plan(*files, model=Measured())
    assert plan.factor == 5  # metres of the map differ slightly from metres on the ground: 10.004 columns become 10
    assert plan.pair.working.shape == (8, 10)
    assert plan.result == plan.target
    assert any(
        "at 0.5 m per pixel, the finest resolution that it was trained for, not at 0.1 m" in w for w in plan.warnings
    )
    full = make_plan(*files, model=Measured(), options=Options(gsd=0.1))
    assert full.factor == 1
    assert any("runs here at 0.1 m: expect lower accuracy, or leave --gsd out" in w for w in full.warnings)


def test_images_of_unknown_scale_are_not_resampled_unless_gsd_is_given(tmp_path):
    files = pair(tmp_path, height=40, width=50, crs=None, transform=rasterio.Affine.identity())
    plan = make_plan(*files, model=Measured())
    assert plan.factor == 1
    assert any("pass their pixel size with --gsd" in w for w in plan.warnings)
    assert make_plan(*files, model=Measured(), options=Options(gsd=0.25)).factor == pytest.approx(2)


# --- what comes with wasnow -----------------------------------------------------------------------------------------


@pytest.fixture
def as_installed(monkeypatch):
    """Changes what the package says of its shipped file."""

    def change(file: str) -> None:
        monkeypatch.setattr(registry, "MODELS", {**MODELS, DEFAULT: replace(MODELS[DEFAULT], shipped=file)})

    return change


def test_an_installation_without_the_weights_is_reported_in_one_line(as_installed, paths, tmp_path):
    as_installed("gone.safetensors")
    with pytest.raises(CheckpointError, match=r"part of wasnow, are missing; install wasnow again, or .* irmad"):
        detect(*paths, output=tmp_path / "out")
    assert make_plan(*paths, model="irmad").card.name == "irmad"


def test_only_one_model_is_shipped_with_weights():
    assert [name for name in MODELS if registry.shipped(name)] == ["semantic-cd-mini"]
    assert loading.load("semantic-cd-mini").card.classes == OWN
    assert registry.shipped(DEFAULT).stat().st_size < 25e6


def test_its_card_gives_the_number_of_terms_and_not_the_list(tmp_path):
    done = CliRunner().invoke(app, ["models", "show", "semantic-cd-mini", "--json"])
    card = json.loads(done.stdout)
    assert card["model"]["classes"] == ", ".join(OWN)
    terms = int(re.search(r"([\d,]+) terms", card["model"]["other words"])[1].replace(",", ""))
    assert terms == len(loading.load(DEFAULT).terms) >= 2000
    assert len(done.stdout) < 20_000
    code, told = one_line(["models", "show", "semantic-cd-mini"])
    assert code == 0
    assert "semantic-cd-mini" in told


def test_the_text_of_a_checkpoint_appears_in_card_record_and_report(paths, tmp_path, monkeypatch):
    about = "Trained on a few tiles of one city.\nIt has not seen snow & ice."
    path = checkpoint.save(
        tmp_path / "a.safetensors", loading.load(DEFAULT), provenance={"origin": "made in a test"}, about=about
    )
    assert checkpoint.load(path).card.weights.about == checkpoint.read_header(path).about == about
    assert "snow & ice" in model_card.describe(path)["about"][""]
    monkeypatch.setattr(registry, "shipped", lambda name: path if name == DEFAULT else None)
    result = detect(*paths, output=tmp_path / "out", classes="building, water")
    assert result.record.model.about == about
    page = result.report.read_text()
    assert "It has not seen snow &amp; ice." in page
    assert "wasnow weights get remoteclip-vit-l-14" in page
    code, told = one_line(["models", "show", path])
    assert code == 0
    assert "snow & ice" in " ".join(told.split())


def test_a_run_does_not_import_unneeded_packages(paths, tmp_path):
    code = (
        "import sys\nfrom wasnow.cli import app\n"
        f"try:\n    app(['detect', {str(paths[0])!r}, {str(paths[1])!r}, '-o', {str(tmp_path / 'out')!r}, '-q'])\n"
        "except SystemExit as leave:\n    assert not leave.code, leave.code\n"
        "print([m for m in ('transformers', 'lightning', 'huggingface_hub', 'tokenizers', 'torch._dynamo',"
        " 'torch._inductor') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr[-2000:]


# --- the demo -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Oracle:
    """Knows the truth of one scene, which it sees in one tile."""

    before: np.ndarray
    after: np.ndarray
    words: tuple[str, ...]

    @property
    def card(self) -> ModelCard:
        side = len(self.before)
        return ModelCard("oracle", "the truth", "a test", classes=self.words, tile=side, margin=0)

    def bind(self, classes):
        return self

    def __call__(self, before, after, valid):
        changed = torch.from_numpy(self.before != self.after)[None, None]
        change = torch.where(changed, 9.0, -9.0)
        if not self.words:
            return ChangeLogits(change)
        classes = [
            20 * torch.nn.functional.one_hot(torch.from_numpy(each.astype(np.int64)) - 1, len(self.words))
            for each in (self.before, self.after)
        ]
        return ChangeLogits(change, *(each.movedim(-1, 0)[None].float() for each in classes))


@pytest.mark.parametrize("words", [CLASSES, ("tree", "house"), ()])
def test_the_demo_prints_transitions_and_that_its_scores_are_synthetic(tmp_path, monkeypatch, words):
    monkeypatch.setattr(loading, "load", lambda model, device: Toy(classes=words, threshold=0.0))
    code, told = one_line(["demo", "-o", tmp_path, "--side", "96"])
    assert code == 0
    assert "The scene is synthetic" in told
    assert "precision 0." in told
    assert (" → " in told) == ("Fscd" in told) == (words == CLASSES)
    assert ("has no classes" in told) == (not words)


def test_the_demo_gives_perfect_scores_for_the_reference_data(tmp_path):
    scene = render(7, 128)
    files = write_scene(scene, tmp_path / "pair")
    for words in (CLASSES, ()):
        oracle = Oracle(scene.before_classes, scene.after_classes, words)
        result = detect(files.before, files.after, output=tmp_path / f"with {len(words)}", model=oracle)
        scores = score(result, scene)
        assert scores.n_classes == len(words)
        assert scores.binary.f1 == 1
        if words:
            assert scores.from_to.fscd == scores.stacked.fscd == 1
    wrong = replace(oracle, words=CLASSES, before=scene.after_classes, after=scene.before_classes)
    backwards = score(detect(files.before, files.after, output=tmp_path / "wrong", model=wrong), scene)
    assert backwards.binary.f1 == 1
    assert backwards.from_to.fscd < 0.1
