"""--symmetric: swapping the dates swaps the map."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import rasterio

from making import Toy, pair
from wasnow.errors import InvalidOption
from wasnow.models.contract import ChangeLogits
from wasnow.pipeline.api import detect


@dataclass(frozen=True)
class Asymmetric(Toy):
    """A toy that trusts the second image more."""

    def __call__(self, before, after, valid):
        found = super().__call__(before, after, valid)
        change = found.change + 6 * (after - before).mean(1, keepdim=True)
        return ChangeLogits(change, found.before, None if found.after is None else 1.3 * found.after)


def bands(result):
    with rasterio.open(result.change) as change, rasterio.open(result.confidence) as confidence:
        return change.read(), confidence.read()


@pytest.mark.parametrize("classes", [("water", "building", "field"), ()])
def test_swapped_dates_give_the_swapped_map(tmp_path, classes):
    before, after = pair(tmp_path)
    model = Asymmetric(classes=classes)
    forward, p_forward = bands(detect(before, after, output=tmp_path / "forward", model=model, symmetric=True))
    back, p_back = bands(detect(after, before, output=tmp_path / "back", model=model, symmetric=True))
    np.testing.assert_array_equal(forward[[0, 1]], back[[1, 0]])
    np.testing.assert_array_equal(forward[2] > 0, back[2] > 0)
    np.testing.assert_array_equal(p_forward[0], p_back[0])
    plain, _ = bands(detect(before, after, output=tmp_path / "plain", model=model))
    swapped, _ = bands(detect(after, before, output=tmp_path / "swapped", model=model))
    assert ((plain[2] > 0) != (swapped[2] > 0)).any()


def test_scene_models_are_symmetric_already(tmp_path):
    with pytest.raises(InvalidOption, match="leave symmetric out"):
        detect(*pair(tmp_path), output=tmp_path / "out", model="irmad", symmetric=True)


def test_a_model_that_is_symmetric_by_construction_is_run_once(tmp_path):
    calls = []

    class Even(Toy):
        @property
        def card(self):
            return replace(super().card, symmetric=True)

        def __call__(self, before, after, valid):
            calls.append(len(before))
            return super().__call__(before, after, valid)

    before, after = pair(tmp_path)
    forward, _ = bands(detect(before, after, output=tmp_path / "forward", model=Even(), symmetric=True))
    once = sum(calls)
    plain, _ = bands(detect(before, after, output=tmp_path / "plain", model=Even()))
    assert sum(calls) == 2 * once
    np.testing.assert_array_equal(forward, plain)
