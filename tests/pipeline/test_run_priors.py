"""Runs of a model that takes prior masks, from any source and on any grid."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import typer
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.warp import calculate_default_transform, reproject
from torch import Tensor
from typer.testing import CliRunner

from making import UTM, Toy, ToyEncoding, pair, write_raster
from priors import families
from wasnow.cli import detect as verb
from wasnow.cli.info import info
from wasnow.errors import InputError, Interrupted, ResumeRefused, UsageError, VocabularyError
from wasnow.models.checkpoint import save
from wasnow.models.contract import ChangeLogits, ModelCard, WeightsInfo
from wasnow.models.sam_cd import SAMCD
from wasnow.output.change_map import ChangeMap
from wasnow.pipeline.acceleration import OpenVinoModel
from wasnow.pipeline.api import detect
from wasnow.pipeline.block import InferenceSettings, InputScaling, predict_block
from wasnow.pipeline.options import Options
from wasnow.pipeline.plan import make_plan
from wasnow.priors import open_priors
from wasnow.priors.files import MaskFiles
from wasnow.priors.make import PriorRequest, make_pair
from wasnow.raster.pair import PairWindow
from wasnow.raster.tiles import Tiling, Window
from wasnow.vocabulary import Vocabulary

HEIGHT, WIDTH = 96, 128
SMALL: dict[str, Any] = {
    "encoder": {"widths": (8, 8, 8, 8), "depths": (1, 1, 1, 1), "heads": (1, 1, 1, 1)},
    "width": 8,
}


@dataclass(frozen=True)
class GuidedToy(Toy):
    """Predicts change where the masks of any word differ between the dates."""

    classes: tuple[str, ...] = ()
    words: tuple[str, ...] = ("building",)

    @property
    def card(self) -> ModelCard:
        return replace(super().card, wants_priors=self.words)

    def __call__(
        self, before: Tensor, after: Tensor, valid: Tensor | None = None, priors: Tensor | None = None
    ) -> ChangeLogits:
        masks = torch.zeros(len(before), 2, 1, *before.shape[2:]) if priors is None else priors.float()
        assert masks.shape == (len(before), 2, len(self.words) if priors is not None else 1, *before.shape[2:])
        return ChangeLogits(8 * (masks[:, 0] - masks[:, 1]).abs().amax(1, keepdim=True) - 4)


@dataclass(frozen=True)
class GuidedEncoding(ToyEncoding):
    """One that also looks once for all words."""

    wants_priors: tuple[str, ...] = ("building",)


def mask(seed: int, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> NDArray[np.uint8]:
    """``(rows, cols)``: houses, some of one pixel."""
    rng = np.random.default_rng(seed)
    made = np.zeros(shape, np.uint8)
    for _ in range(25):
        row, col = rng.integers(0, shape[0] - 8), rng.integers(0, shape[1] - 8)
        made[row : row + rng.integers(1, 9), col : col + rng.integers(1, 9)] = 1
    return made


@pytest.fixture(scope="module")
def rasters(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return pair(tmp_path_factory.mktemp("pair"), height=HEIGHT, width=WIDTH)


@pytest.fixture(scope="module")
def folder(rasters: tuple[Path, Path]) -> Path:
    """A prior folder of the pair, from rasters of masks on its grid."""
    home = rasters[0].parent
    for seed, name in ((1, "old"), (2, "new")):
        write_raster(home / f"{name}.tif", mask(seed)[None])
    files = MaskFiles.of_pair([home / "old.tif", home / "new.tif"], ("building",))
    make_pair(*rasters, home / "priors", PriorRequest(("building",), files))
    return home / "priors"


def changed(result: ChangeMap) -> NDArray[np.uint8]:
    with rasterio.open(result.change) as raster:
        found: NDArray[np.uint8] = raster.read(3)
    return found


# --------------------------------------------------------------------------------------------- masks reach the model


@pytest.mark.parametrize(
    "options",
    [{}, {"tile": 32, "margin": 4}, {"tile": 32, "margin": 8, "batch": 3, "blend": True}],
    ids=["one tile", "many tiles", "blended batches"],
)
def test_every_tile_gets_its_own_masks(rasters, folder, tmp_path, options):
    result = detect(*rasters, model=GuidedToy(), output=tmp_path / "out", priors=folder, **options)
    np.testing.assert_array_equal(changed(result), mask(1) != mask(2))


def test_masks_are_empty_beyond_the_edge_of_a_small_raster(tmp_path):
    rasters = pair(tmp_path, height=20, width=27)
    full = write_raster(tmp_path / "full.tif", np.ones((1, 20, 27), np.uint8))
    seen = []

    class Recording(GuidedToy):
        def __call__(self, before: Tensor, after: Tensor, valid: Any = None, priors: Any = None) -> ChangeLogits:
            seen.append(priors)
            return super().__call__(before, after, valid, priors)

    detect(*rasters, model=Recording(stride=16), output=tmp_path / "out", masks=(full,))
    assert seen[0].dtype == torch.bool
    assert seen[0].shape[-2:] == (32, 32)
    assert seen[0][..., :20, :27].all()
    assert not seen[0][..., 20:, :].any()
    assert not seen[0][..., 27:].any()


def test_masks_in_another_crs_are_resampled_to_the_common_grid(rasters, tmp_path):
    """GDAL's own warped view of the masks says where they must be."""
    with rasterio.open(rasters[1]) as raster:
        to = "EPSG:3857"
        transform, width, height = calculate_default_transform(raster.crs, to, WIDTH, HEIGHT, *raster.bounds)
        values = np.zeros((3, height, width), np.uint8)
        reproject(raster.read(), values, src_transform=raster.transform, src_crs=raster.crs, dst_transform=transform,
                  dst_crs=to)  # fmt: skip
    after = write_raster(tmp_path / "after.tif", values, crs=to, transform=transform, photometric="RGB")
    theirs = write_raster(tmp_path / "theirs.tif", mask(3, (height, width))[None], crs=to, transform=transform)
    nothing = write_raster(tmp_path / "nothing.tif", np.zeros((1, HEIGHT, WIDTH), np.uint8))
    files = MaskFiles.of_pair([nothing, theirs], ("building",))
    make_pair(rasters[0], after, tmp_path / "priors", PriorRequest(("building",), files))
    result = detect(
        rasters[0], after, model=GuidedToy(), output=tmp_path / "out", priors=tmp_path / "priors", tile=48, margin=4
    )
    with rasterio.open(tmp_path / "priors/after.tif") as own:
        assert own.crs.to_string() == to
        with WarpedVRT(
            own, crs="EPSG:32632", transform=UTM, width=WIDTH, height=HEIGHT, resampling=Resampling.nearest
        ) as warped:
            expected = warped.read(1)
    found = changed(result)
    compared = found != 255
    # Nearest neighbours of points that fall between two pixels are a matter of rounding.
    assert (found[compared] != expected[compared]).mean() < 0.002
    assert expected[compared].mean() > 0.03


def test_a_coarser_working_grid_takes_the_nearest_mask(rasters, folder, tmp_path):
    result = detect(*rasters, model=GuidedToy(gsd_m=4.0), output=tmp_path / "out", priors=folder, grid="working")
    rows, cols = changed(result).shape
    assert rows < HEIGHT
    own = open_priors(folder).read_pair(
        Window(0, 0, rows, cols), make_plan(*rasters, model=GuidedToy(gsd_m=4.0)).pair.working
    )
    found = changed(result)
    compared = found != 255
    assert compared.mean() > 0.9
    np.testing.assert_array_equal(found[compared], (own[0, 0] != own[1, 0])[compared])


def test_a_tile_is_predicted_as_by_a_direct_call_of_the_network(rasters, folder, tmp_path):
    torch.manual_seed(0)
    network = SAMCD(words=["building"], **SMALL).eval()
    with torch.no_grad():
        for each in network.parameters():
            each.add_(torch.randn_like(each) * 0.1)
    result = detect(*rasters, model=network, output=tmp_path / "out", priors=folder, tile=128, margin=0)
    without = detect(*rasters, model=network, output=tmp_path / "bare", priors="none", tile=128, margin=0)
    images = []
    for path in rasters:
        with rasterio.open(path) as raster:
            images.append(torch.from_numpy(raster.read() / np.float32(255))[None])
    masks = torch.from_numpy(np.stack([mask(1), mask(2)]))[None, :, None]
    for found, priors in ((result, masks), (without, None)):
        with torch.inference_mode():
            expected = network(*images, None, priors).change.sigmoid()[0, 0].numpy() * 254
        with rasterio.open(found.confidence) as raster:
            assert np.abs(raster.read(1) - expected).max() <= 1
    assert (changed(result) != changed(without)).any()


def test_blocks_with_masks_are_pure_functions():
    """Without a file: the same answer from any tiling."""
    rng = np.random.default_rng(0)
    image = rng.random((3, 50, 70), np.float32)
    seen = PairWindow(Window(0, 0, 50, 70), image, image.copy(), np.zeros((50, 70), np.uint8))
    masks = rng.integers(0, 2, (2, 2, 50, 70)).astype(np.uint8)
    feed = InputScaling(None, None, (0.0,) * 3, (0.0,) * 3)
    rules = InferenceSettings(Vocabulary(), 0.5, 1.0, (50, 70), (50, 70))
    model = GuidedToy(words=("a", "b"))
    for tiling in (Tiling(50, 70, 128, 4), Tiling(50, 70, 24, 4, block_side=1000)):
        (block,) = tiling
        answer = predict_block(model, feed, rules, block, seen, masks)
        np.testing.assert_array_equal(answer.codes[2], (masks[0] != masks[1]).any(0))


# ------------------------------------------------------------------------------------------------------ where from


def test_masks_computed_during_the_run_equal_those_of_a_prior_folder(rasters, folder, tmp_path):
    files = (folder.parent / "old.tif", folder.parent / "new.tif")
    result = detect(*rasters, model=GuidedToy(), output=tmp_path / "out", masks=files)
    np.testing.assert_array_equal(changed(result), mask(1) != mask(2))
    own = tmp_path / "out/.wasnow/priors"
    assert open_priors(own).digest == open_priors(folder).digest
    assert "masks" in result.record.timings_s
    assert detect(*rasters, model=GuidedToy(), output=tmp_path / "out", masks=files).reused


def test_a_resumed_run_does_not_compute_masks_again(rasters, tmp_path, monkeypatch):
    monkeypatch.setenv("WASNOW_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)
    weights = families.clipseg(tmp_path / "clipseg")
    options = {"model": GuidedToy(), "output": tmp_path / "out", "masker": "clipseg", "masker_weights": (weights,)}

    class Stops:
        phases: Sequence[str] = ()

        def __call__(self, phase: str, done: int, total: int) -> None:
            self.phases = [*self.phases, phase]
            if phase == "survey":
                raise KeyboardInterrupt

    stops = Stops()
    with pytest.raises(Interrupted, match="run the same command again"):
        detect(*rasters, progress=stops, **options)
    assert "finding masks after" in stops.phases
    made = open_priors(tmp_path / "out/.wasnow/priors").digest
    phases: list[str] = []
    result = detect(*rasters, progress=lambda phase, done, total: phases.append(phase), **options)
    assert result.complete
    assert not any("finding masks" in phase for phase in phases)
    assert open_priors(tmp_path / "out/.wasnow/priors").digest == made
    # Removed with the run that it belongs to, and then made again.
    detect(*rasters, progress=lambda phase, done, total: phases.append(phase), overwrite=True, **options)
    assert any("finding masks" in phase for phase in phases)


def test_a_run_is_not_resumed_with_other_masks(rasters, folder, tmp_path):
    detect(*rasters, model=GuidedToy(), output=tmp_path / "out", priors=folder)
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert detect(*rasters, model=GuidedToy(), output=tmp_path / "out", priors=moved).reused
    with rasterio.open(moved / "after.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as raster:
        raster.write(1 - raster.read(1), 1)
    with pytest.raises(ResumeRefused, match="priors"):
        detect(*rasters, model=GuidedToy(), output=tmp_path / "out", priors=moved)
    with pytest.raises(ResumeRefused, match="priors"):
        detect(*rasters, model=GuidedToy(), output=tmp_path / "out", priors="none")


def test_masks_of_another_masker_than_in_training_cause_a_warning(rasters, folder, tmp_path):
    model = GuidedToy(weights=WeightsInfo(learned_priors={"masker": {"masker": "sam3"}}))
    result = detect(*rasters, model=model, output=tmp_path / "out", priors=folder)
    assert any("was trained with masks by sam3 and is given masks by files" in text for text in result.record.warnings)


def test_a_checkpoint_records_the_masker_of_its_training_masks(rasters, folder, tmp_path):
    source = {"origin": "a test", "recipe": {"priors": {"masker": {"masker": "clipseg"}}}}
    save(tmp_path / "x.safetensors", SAMCD(words=["building"], **SMALL), provenance=source)
    plan = make_plan(*rasters, model=str(tmp_path / "x.safetensors"), options=Options(priors=str(folder)))
    assert plan.learned_priors == {"masker": {"masker": "clipseg"}}
    assert plan.wants_priors == ("building",)
    assert plan.priors is not None


# ------------------------------------------------------------------------------------------------------- refused


def test_a_guided_model_without_masks_is_refused_with_advice_before_any_work(rasters, tmp_path):
    with pytest.raises(
        UsageError, match=r"wasnow priors BEFORE AFTER --classes 'building' -o priors/.*masker grounded-sam"
    ):
        detect(*rasters, model=GuidedToy(), output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    # A plan needs no masks.
    assert make_plan(*rasters, model=GuidedToy()).wants_priors == ("building",)


@pytest.mark.parametrize(
    ("model", "options", "error", "text"),
    [
        (Toy(), {"priors": "x"}, UsageError, "toy takes no prior masks: leave priors out"),
        (Toy(), {"masks": ("x.tif",)}, UsageError, "leave masks out"),
        (GuidedToy(), {"priors": "nowhere"}, InputError, "not a finished prior folder"),
        (GuidedToy(), {"priors": "x", "masker": "sam3"}, UsageError, "priors and masker exclude each other"),
        (GuidedToy(), {"masker": "sam4"}, UsageError, "did you mean 'sam3'"),
        (GuidedToy(), {"masker": "files"}, UsageError, "Give the mask files with --masks"),
        (GuidedToy(), {"masker_weights": ("x",)}, UsageError, "masker_weights needs masker"),
        (GuidedToy(), {"masks": ("nowhere.tif",)}, InputError, "no such file"),
        (GuidedEncoding(), {"keep_features": "x"}, UsageError, "cannot be cached"),
    ],
)
def test_invalid_combinations_are_refused_in_one_line(rasters, tmp_path, model, options, error, text):
    with pytest.raises(error, match=text) as caught:
        detect(*rasters, model=model, output=tmp_path / "out", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_masks_of_other_images_words_or_of_a_dataset_are_refused(rasters, folder, tmp_path):
    with pytest.raises(InputError, match="of another before image"):
        detect(*pair(tmp_path, seed=9), model=GuidedToy(), output=tmp_path / "out", priors=folder)
    with pytest.raises(VocabularyError, match="no priors for road, only for building"):
        detect(*rasters, model=GuidedToy(words=("road",)), output=tmp_path / "out", priors=folder)
    shutil.copytree(folder, tmp_path / "dataset")
    manifest = json.loads((tmp_path / "dataset/priors.json").read_text())
    (tmp_path / "dataset/priors.json").write_text(json.dumps({**manifest, "kind": "dataset"}))
    with pytest.raises(UsageError, match="holds priors of a dataset"):
        detect(*rasters, model=GuidedToy(), output=tmp_path / "out", priors=tmp_path / "dataset")


def test_openvino_gets_the_masks(monkeypatch):
    """Its wrapper hands on what it is given; the package itself need not be there."""
    network = SAMCD(words=["building"], **SMALL).eval()
    wrapped = OpenVinoModel(network)
    assert wrapped.card.wants_priors == ("building",)
    monkeypatch.setattr(wrapped, "_run", lambda what, function, inputs: function(*inputs))
    images, masks = torch.rand(2, 1, 3, 32, 32), torch.zeros(1, 2, 1, 32, 32, dtype=torch.bool)
    masks[:, 1, :, :9] = True
    valid = torch.ones(1, 1, 32, 32, dtype=torch.bool)
    with torch.inference_mode():
        for told in ((), (masks,)):
            expected = network(*images, valid, *told).change
            assert torch.allclose(wrapped(*images, valid, *told).change, expected, atol=1e-4)


def test_the_command_line_accepts_prior_masks(rasters, folder, tmp_path):
    save(tmp_path / "x.safetensors", SAMCD(words=["building"], **SMALL), provenance={"origin": "a test"})
    app = typer.Typer()
    app.command("detect")(verb.detect)
    app.command("info")(info)
    command = [str(each) for each in (*rasters, "--model", tmp_path / "x.safetensors")]
    bare = CliRunner().invoke(app, ["detect", *command, "-o", str(tmp_path / "out")])
    assert bare.exit_code == 2
    assert bare.stderr.count("\n") == 1
    looked = CliRunner().invoke(app, ["info", *command])
    assert looked.exit_code == 0, looked.output
    for more in (("--priors", folder), ("--masks", folder.parent / "old.tif", "--masks", folder.parent / "new.tif")):
        words = [*map(str, more), "-o", str(tmp_path / more[0].strip("-")), "--json"]
        done = CliRunner().invoke(app, ["detect", *command, *words])
        assert done.exit_code == 0, done.output
