"""Change vectors: total least squares against scipy, the law of the magnitude, and both dates alike."""

import json

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from making import REAL
from wasnow.errors import BandsUnclear, InputError, UsageError, VocabularyError
from wasnow.models.contract import ChangeModel, SceneModel
from wasnow.models.cva import CVA, normalise
from wasnow.models.irmad import IRMAD

TAIZHOU = REAL / "landsat-taizhou"


def scene(seed=0, pixels=20_000, bands=3, noise=10.0, shared=0.0, changed=0.05):
    """Two dates of the same bands with other gains, noise partly shared between bands, and some pixels displaced."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(5000, 200, (pixels, bands))
    gains = np.array([0.5, 1.0, 2.0, 1.3])[:bands]
    mixed = np.sqrt(1 - shared) * rng.normal(size=(pixels, bands)) + np.sqrt(shared) * rng.normal(size=(pixels, 1))
    before = signal + noise * rng.normal(size=signal.shape) * (shared == 0)
    after = gains * (signal + noise * mixed) + 100
    truth = rng.random(pixels) < changed
    after[truth] += 300 * gains * rng.choice([-1, 1], (int(truth.sum()), bands))
    return before.astype(np.float32), after.astype(np.float32), truth


def stream(before, after, parts=1):
    return lambda: zip(np.array_split(before, parts), np.array_split(after, parts), strict=True)


def logits(model, before, after):
    images = [torch.from_numpy(np.ascontiguousarray(date.T))[None, :, None] for date in (before, after)]
    return model(*images, torch.ones(1, 1, 1, len(before), dtype=torch.bool)).change.flatten()


def changed_by(model, before, after):
    return (torch.sigmoid(logits(model, before, after)) > model.card.threshold).numpy()


def test_the_line_of_no_change_is_the_total_least_squares_line():
    before, after, _ = scene(pixels=400, changed=0.0, noise=60.0)
    joint = np.hstack([before, after]).astype(np.float64)
    found = normalise(joint.mean(axis=0), np.cov(joint.T, ddof=0))
    for band in range(3):
        x, y = before[:, band].astype(float), after[:, band].astype(float)

        def off_the_line(slope, x=x, y=y):
            return np.mean((y - y.mean() - slope * (x - x.mean())) ** 2) / (1 + slope**2)

        best = scipy.optimize.minimize_scalar(off_the_line, bounds=(0.01, 10.0), method="bounded")
        assert found.gain[band] == pytest.approx(best.x, rel=1e-3)
        assert found.noise[band] == pytest.approx(np.sqrt(best.fun), rel=1e-4)


def test_the_gains_are_those_of_the_unchanged_pixels():
    before, after, _ = scene(changed=0.2)
    gains = CVA().fit(stream(before, after)).diagnostics()["gain"]
    assert gains == pytest.approx([0.5, 1.0, 2.0], rel=0.02)


@pytest.mark.parametrize("changed", [0.01, 0.2])
def test_a_planted_change_is_found(changed):
    before, after, truth = scene(changed=changed)
    found = changed_by(CVA().fit(stream(before, after)), before, after)
    assert (found & truth).sum() > 0.95 * truth.sum()
    assert (found & ~truth).sum() < 0.002 * (~truth).sum()


@pytest.mark.parametrize("shared", [0.0, 0.5, 0.99])
def test_noise_alone_is_rarely_change_even_if_bands_share_it(shared):
    before, after, _ = scene(changed=0.0, shared=shared, pixels=40_000)
    fitted = CVA().fit(stream(before, after))
    assert changed_by(fitted, before, after).mean() < 1e-3
    z = fitted.difference.squared(before.astype(np.float64), after.astype(np.float64))
    assert z.mean() == pytest.approx(fitted.reading.dof, rel=0.1)
    assert fitted.reading.dof == pytest.approx(3 / (1 + 2 * shared**2), rel=0.1)


def test_an_identical_pair_has_no_change():
    before, _, _ = scene()
    for probability in ("mixture", "chi2"):
        assert not changed_by(CVA(probability=probability).fit(stream(before, before)), before, before).any()


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), gain=st.floats(0.01, 100), offset=st.floats(-1e4, 1e4), negative=st.booleans())
def test_an_affine_pair_has_no_change(seed, gain, offset, negative):
    before, _, _ = scene(seed, pixels=1000)
    after = ((-gain if negative else gain) * before + offset).astype(np.float32)
    assert not changed_by(CVA().fit(stream(before, after)), before, after).any()


def test_swapping_the_dates_gives_the_same_map():
    before, after, _ = scene()
    forth, back = CVA().fit(stream(before, after)), CVA().fit(stream(after, before))
    torch.testing.assert_close(logits(forth, before, after), logits(back, after, before), rtol=1e-3, atol=1e-3)


def test_the_fit_does_not_depend_on_the_chunks_of_the_stream():
    before, after, _ = scene()
    whole, parts = (CVA().fit(stream(before, after, n)).difference for n in (1, 13))
    np.testing.assert_allclose(whole.before_axes, parts.before_axes, rtol=1e-8, atol=1e-14)


def test_a_constant_band_is_left_out():
    before, after, _ = scene()
    constant = np.full((len(before), 1), 7.0, np.float32)
    wider = np.hstack([before, constant]), np.hstack([after, constant])
    plain, more = CVA().fit(stream(before, after)), CVA().fit(stream(*wider))
    assert more.diagnostics()["gain"][3] is None
    torch.testing.assert_close(logits(more, *wider), logits(plain, before, after), rtol=1e-3, atol=1e-3)


def test_two_constant_images_have_no_change():
    before, after = np.full((100, 2), 10.0, np.float32), np.full((100, 2), 20.0, np.float32)
    assert not changed_by(CVA().fit(stream(before, after)), before, after).any()


def test_unequal_bands_are_rejected_with_advice():
    before, after, _ = scene(pixels=500)
    with pytest.raises(BandsUnclear, match=r"before has 3 bands and after 2, .* or use --model irmad"):
        CVA().fit(stream(before, after[:, :2]))


def test_an_empty_stream_is_refused():
    with pytest.raises(InputError, match="no valid pixels in common"):
        CVA().fit(lambda: iter([]))


def test_a_fit_survives_json_bit_for_bit():
    before, after, _ = scene()
    fitted = CVA().fit(stream(before, after))
    restored = CVA().restore(json.loads(json.dumps(fitted.state())))
    assert restored.state() == fitted.state()
    assert restored.card == fitted.card
    assert torch.equal(logits(restored, before, after), logits(fitted, before, after))
    with pytest.raises(InputError, match="the saved fit belongs to 'cva', not to 'irmad'"):
        IRMAD().restore(fitted.state())


def test_it_keeps_the_contract():
    before, after, _ = scene(pixels=500)
    fitted = CVA().fit(stream(before, after))
    assert isinstance(CVA(), SceneModel)
    assert isinstance(fitted, ChangeModel)
    for model in (CVA(), fitted):
        with pytest.raises(VocabularyError, match="cva detects change without classes"):
            model.bind(["water"])


@pytest.mark.parametrize("wrong", [{"probability": "p"}, {"false_alarm": 1.0}])
def test_options_out_of_range_are_rejected_by_name(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        CVA(**wrong)


@pytest.mark.real
@pytest.mark.skipif(not TAIZHOU.exists(), reason="needs the development imagery")
def test_accuracy_on_taizhou_does_not_drop():
    import rasterio

    def read(name):
        with rasterio.open(TAIZHOU / name) as source:
            return source.read()

    before, after = (
        np.ascontiguousarray(read(name).reshape(6, -1).T.astype(np.float32)) for name in ("2000TM", "2003TM")
    )
    changed, unchanged = (read(name)[0].ravel() > 0 for name in ("change.bmp", "unchanged.bmp"))
    found = changed_by(CVA().fit(stream(before, after, 4)), before, after)
    hits, alarms = (found & changed).sum(), (found & unchanged).sum()
    assert 2 * hits / (hits + alarms + changed.sum()) > 0.945
    assert alarms / unchanged.sum() < 0.005
