"""The mean over both orders of the dates is symmetric, whatever model is inside."""

import numpy as np
import pytest
import rasterio
import torch

from making import Toy, pair
from wasnow.models import registry
from wasnow.models.checkpoint import read_header
from wasnow.models.contract import ChangeLogits
from wasnow.models.loading import ModelReference
from wasnow.models.symmetric import Symmetric, symmetric
from wasnow.nn.fused import fused
from wasnow.pipeline.api import detect


class Lopsided(Toy):
    """A toy whose change grows with the brightness of the first date only."""

    def __call__(self, before, after, valid):
        own = super().__call__(before, after, valid)
        return ChangeLogits(own.change + 3 * before.mean(1, keepdim=True), own.before, own.after)


@pytest.mark.parametrize("name", ["sscd-l", "bisrnet", "hrscd", "scannet"])
def test_swapped_dates_give_the_same_change_and_swapped_classes(name):
    torch.manual_seed(0)
    network = registry.build(name, classes=("water", "road")).eval()
    both = symmetric(network)
    before, after, valid = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64), torch.ones(1, 1, 64, 64).bool()
    with torch.no_grad():
        alone, forth, back = network(before, after), both(before, after, valid), both(after, before, valid)
        fast = fused(both)(before, after, valid)
    assert not network.card.symmetric
    assert both.card.symmetric
    assert not torch.allclose(alone.change, network(after, before).change, atol=1e-3)
    assert torch.equal(forth.change, back.change)
    assert torch.equal(forth.before, back.after)
    assert torch.equal(forth.after, back.before)
    assert forth.unchanged_channel == alone.unchanged_channel
    assert (fast.change - forth.change).abs().max() < 1e-5 * forth.change.abs().max()


def test_models_that_are_symmetric_by_construction_are_not_run_twice():
    for name in ("smnet", "changemask", "irmad", "cva"):
        model = registry.build(name)
        assert model.card.symmetric
        assert symmetric(model) is model


def test_masks_of_the_dates_are_swapped_with_the_dates():
    class Guided(Toy):
        def __call__(self, before, after, valid=None, priors=None):
            return ChangeLogits((priors[:, 0] * before[:, :1] + 2 * priors[:, 1] * after[:, :1]).float())

    before, after, valid = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8), torch.ones(1, 1, 8, 8).bool()
    priors = torch.rand(1, 2, 1, 8, 8)
    both = Symmetric(Guided())
    forth, back = both(before, after, valid, priors), both(after, before, valid, priors.flip(1))
    assert torch.equal(forth.change, back.change)
    assert torch.allclose(forth.change, 1.5 * (priors[:, 0] * before[:, :1] + priors[:, 1] * after[:, :1]))


def test_a_run_with_both_orders_gives_swapped_maps_for_swapped_dates(tmp_path):
    before, after = pair(tmp_path)
    runs = {
        (both, order): detect(*files, model=Lopsided(), output=tmp_path / f"{both}{order}", symmetric=both)
        for both in (False, True)
        for order, files in enumerate(((before, after), (after, before)))
    }

    def bands(run):
        with rasterio.open(run.change) as raster:
            return raster.read()

    forth, back = bands(runs[True, 0]), bands(runs[True, 1])
    assert (forth[0] > 0).any()
    np.testing.assert_array_equal(forth[:2], back[1::-1])
    assert (bands(runs[False, 0])[0] != bands(runs[False, 1])[1]).any()


def test_workers_load_the_same_symmetric_model():
    before, after, valid = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64), torch.ones(1, 1, 64, 64).bool()
    digest = read_header("semantic-cd-mini").digest
    model = ModelReference.of("semantic-cd-mini", ("water", "road"), digest, both_orders=True).load("cpu")
    with torch.no_grad():
        assert torch.equal(model(before, after, valid).change, model(after, before, valid).change)
