"""Images that do not state their pixel size: estimated by the model, stated in a warning, used for the working grid."""

from dataclasses import dataclass, field, replace

import pytest
import torch
from rasterio import Affine

from making import Toy, pair
from wasnow.pipeline.options import Options
from wasnow.pipeline.pixel_size import estimated_gsd
from wasnow.pipeline.plan import make_plan
from wasnow.raster.source import probe


@dataclass(frozen=True)
class Judge(Toy):
    """A `Toy` for 0.5 to 5 m that takes every image to have one pixel size."""

    judged_m: float = 0.25
    shown: list[torch.Size] = field(default_factory=list, compare=False)

    @property
    def card(self):
        return replace(super().card, gsd_range_m=(0.5, 5.0))

    def log2_gsd(self, image):
        assert 0 <= image.min() <= image.max() <= 1
        self.shown.append(image.shape)
        return torch.full((len(image),), self.judged_m).log2()


@pytest.fixture
def files(tmp_path):
    return pair(tmp_path, height=96, width=128, crs=None, transform=Affine.identity())


def test_images_finer_than_the_model_serves_are_reduced_to_its_finest_resolution(files):
    plan = make_plan(*files, model=Judge())
    assert plan.factor == 2
    assert any("do not state their pixel size" in w and "0.25 m. Pass --gsd" in w for w in plan.warnings)


def test_an_estimate_within_the_range_changes_nothing_but_is_stated(files):
    plan = make_plan(*files, model=Judge(judged_m=2.0))
    assert plan.factor == 1
    assert any("about 2 m" in w for w in plan.warnings)


def test_a_stated_pixel_size_is_not_estimated(files, tmp_path):
    judge = Judge()
    assert make_plan(*files, model=judge, options=Options(gsd=1.0)).factor == 1
    (tmp_path / "placed").mkdir()
    make_plan(*pair(tmp_path / "placed"), model=judge)
    assert judge.shown == []


def test_large_images_are_judged_by_five_windows_each(tmp_path):
    judge = Judge()
    files = pair(tmp_path, height=800, width=900, crs=None, transform=Affine.identity())
    assert estimated_gsd(judge, tuple(probe(path) for path in files)) == pytest.approx(0.25)
    assert len(judge.shown) == 10
    assert set(judge.shown) == {torch.Size((1, 3, 384, 384))}
