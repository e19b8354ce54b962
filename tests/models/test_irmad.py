"""IR-MAD against a dense second implementation, closed forms, and the invariances that the paper promises."""

import json
import math

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from making import REAL
from wasnow.errors import InputError, UsageError, VocabularyError
from wasnow.models.contract import ChangeModel, SceneModel
from wasnow.models.irmad import IRMAD
from wasnow.models.moments import LogHistogram
from wasnow.models.probability import (
    GammaMixture,
    LogitTable,
    Reading,
    SurvivalTable,
    consistency,
    log_cumulative,
    log_survival,
)

TAIZHOU = REAL / "landsat-taizhou"


def scene(seed=0, pixels=20_000, bands=(4, 4), noise=0.3, changed=0.05):
    """Two dates that share a signal, Gaussian noise, and ``changed`` of the pixels replaced at the second date."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=(pixels, 4))
    before = signal @ rng.normal(size=(4, bands[0])) + noise * rng.normal(size=(pixels, bands[0]))
    after = signal @ rng.normal(size=(4, bands[1])) + noise * rng.normal(size=(pixels, bands[1]))
    truth = rng.random(pixels) < changed
    after[truth] += rng.normal(0.0, 8.0, (int(truth.sum()), bands[1]))
    return (1000 + 50 * before).astype(np.float32), (300 + 20 * after).astype(np.float32), truth


def stream(before, after, parts=1):
    """A `PixelStream` over these pixels, in so many chunks."""
    return lambda: zip(np.array_split(before, parts), np.array_split(after, parts), strict=True)


def logits(model, before, after):
    """The fitted model's answer for pixels ``(N, C)``, laid out as one image row."""
    images = [torch.from_numpy(np.ascontiguousarray(date.T))[None, :, None] for date in (before, after)]
    return model(*images, torch.ones(1, 1, 1, len(before), dtype=torch.bool)).change.flatten()


def share_changed(model, before, after):
    return float((torch.sigmoid(logits(model, before, after)) > model.card.threshold).float().mean())


def z_of(model, before, after):
    return model.difference.squared(before.astype(np.float64), after.astype(np.float64))


def dense_irmad(before, after, *, consistent, tolerance=1e-3, max_iterations=50):
    """The paper on whole arrays: the generalised eigenproblem, scipy's chi-square, the correction by quadrature."""
    n_before, weights, history, share = before.shape[1], np.ones(len(before)), [], 1.0
    dof = min(n_before, after.shape[1])
    chance = np.linspace(0.0, 1.0, 200_001)[1:-1]
    trimmed = 2.0 / dof * np.mean((1.0 - chance) * scipy.stats.chi2.ppf(chance, dof))
    while len(history) < max_iterations:
        covariance = np.cov(np.hstack([before, after]).T, aweights=weights, ddof=0)
        xx, xy, yy = (
            covariance[:n_before, :n_before],
            covariance[:n_before, n_before:],
            covariance[n_before:, n_before:],
        )
        squares, a = scipy.linalg.eigh(xy @ np.linalg.solve(yy, xy.T), xx)
        squares, a = squares[::-1][:dof], a[:, ::-1][:, :dof]  # eigh scales to a' Sxx a = 1
        rho = np.sqrt(squares)
        b = np.linalg.solve(yy, xy.T @ a) / rho
        mad = (before - np.average(before, 0, weights)) @ a - (after - np.average(after, 0, weights)) @ b
        z = (mad**2 / (2 * (1 - rho) / share)).sum(axis=1)
        history.append(rho)
        if len(history) > 1 and np.abs(rho - history[-2]).max() < tolerance:
            break
        weights = scipy.stats.chi2.sf(z, dof)
        share = trimmed if consistent else 1.0
    return z, rho, len(history)


# ── the iteration ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("bands", [(4, 4), (3, 4), (4, 2)])
@pytest.mark.parametrize("consistent", [True, False])
def test_it_equals_a_dense_implementation(bands, consistent):
    before, after, _ = scene(bands=bands)
    fitted = IRMAD(consistent=consistent).fit(stream(before, after, 3))
    z, correlations, iterations = dense_irmad(
        before.astype(np.float64), after.astype(np.float64), consistent=consistent
    )
    told = fitted.diagnostics()
    assert told["iterations"] == iterations
    np.testing.assert_allclose(told["correlations"][-1], correlations, rtol=1e-5)
    np.testing.assert_allclose(z_of(fitted, before, after), z, rtol=1e-4)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_z_is_invariant_under_affine_changes_of_the_bands(seed):
    rng = np.random.default_rng(seed)
    before, after, _ = scene(seed, pixels=2000, bands=(3, 2))
    mixed = []
    for date in (before, after):
        bands = date.shape[1]
        rotation = np.linalg.qr(rng.normal(size=(bands, bands)))[0]
        mixed.append((date - 500.0) @ (rotation * rng.uniform(0.2, 5.0, bands)) + rng.normal(0, 100, bands))
    model = IRMAD(max_iterations=5)
    plain = z_of(model.fit(stream(before, after)), before, after)
    moved = z_of(model.fit(stream(*mixed)), *mixed)
    np.testing.assert_allclose(moved, plain, rtol=1e-3, atol=1e-5)


def test_the_fit_does_not_depend_on_the_chunks_of_the_stream():
    before, after, _ = scene()
    whole, parts = (z_of(IRMAD().fit(stream(before, after, n)), before, after) for n in (1, 17))
    np.testing.assert_allclose(whole, parts, rtol=1e-9, atol=1e-12)


def test_the_same_stream_gives_the_same_bits():
    before, after, _ = scene()
    first, second = (json.dumps(IRMAD().fit(stream(before, after, 5)).state()) for _ in range(2))
    assert first == second


def test_swapping_the_dates_gives_the_same_map():
    before, after, _ = scene(bands=(4, 3))
    forth, back = IRMAD().fit(stream(before, after)), IRMAD().fit(stream(after, before))
    torch.testing.assert_close(logits(forth, before, after), logits(back, after, before), rtol=1e-3, atol=1e-3)


def test_reweighting_separates_planted_change_better_than_plain_mad():
    before, after, truth = scene(changed=0.15)
    plain, reweighted = (z_of(IRMAD(max_iterations=n).fit(stream(before, after)), before, after) for n in (1, 50))

    def separation(z):
        return np.median(z[truth]) / np.median(z[~truth])

    assert separation(reweighted) > 3 * separation(plain)


@pytest.mark.parametrize("changed", [0.01, 0.1, 0.3])
def test_a_planted_change_is_found(changed):
    before, after, truth = scene(changed=changed)
    fitted = IRMAD().fit(stream(before, after))
    found = (logits(fitted, before, after) > 0).numpy()
    assert (found & truth).sum() > 0.9 * truth.sum()
    assert (found & ~truth).sum() < 0.002 * (~truth).sum()
    assert fitted.diagnostics()["no_change_share"] == pytest.approx(1 - changed, abs=0.05)


def test_a_few_extreme_pixels_do_not_hide_ordinary_change():
    before, after, truth = scene()
    clouds = np.random.default_rng(1).random(len(before)) < 0.01
    after[clouds] += 20_000.0
    found = (logits(IRMAD().fit(stream(before, after)), before, after) > 0).numpy()
    assert found[clouds].all()
    assert found[truth & ~clouds].mean() > 0.9
    assert found[~truth & ~clouds].mean() < 0.002


def test_confidence_says_more_than_yes_and_no():
    """Posterior log-odds of overlapping laws pass through the middle, where a chi-square probability is 1 already."""
    rng = np.random.default_rng(0)
    before = rng.normal(size=(20_000, 3)).astype(np.float32)
    after = (before + rng.normal(0, 0.3, before.shape)).astype(np.float32)
    after[:4000] += rng.normal(0, 1.2, (4000, 3))
    chance = torch.sigmoid(logits(IRMAD().fit(stream(before, after)), before, after)[:4000])
    assert ((chance > 0.02) & (chance < 0.98)).float().mean() > 0.1


# ── scenes without change ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("bands", [1, 2, 3, 6])
def test_noise_alone_is_rarely_change_and_z_is_chi_square(bands):
    rng = np.random.default_rng(bands)
    before = rng.normal(1e4, 300.0, (40_000, bands)).astype(np.float32)
    after = (0.7 * before + rng.normal(0, 30.0, before.shape)).astype(np.float32)
    fitted = IRMAD().fit(stream(before, after, 4))
    assert share_changed(fitted, before, after) < 1e-3
    z = z_of(fitted, before, after)
    np.testing.assert_allclose(np.quantile(z, [0.5, 0.9]), scipy.stats.chi2.ppf([0.5, 0.9], bands), rtol=0.1)


def test_the_published_weights_collapse_on_a_single_band_of_noise():
    """Why `consistent` is the default."""
    rng = np.random.default_rng(0)
    before = rng.normal(size=(20_000, 1)).astype(np.float32)
    after = (before + rng.normal(0, 0.5, before.shape)).astype(np.float32)
    published, consistent = (
        IRMAD(consistent=flag, tolerance=1e-6).fit(stream(before, after)).diagnostics() for flag in (False, True)
    )
    assert published["correlations"][-1][0] > 0.999
    # cov(x, x + e) / sd = 1 / √1.25; trimmed noise c(1) of 2 (1 - rho)
    wanted = 1 - consistency(1) * (1 - 1 / math.sqrt(1.25))
    assert consistent["correlations"][-1][0] == pytest.approx(wanted, abs=0.03)


@pytest.mark.parametrize("probability", ["mixture", "chi2"])
@pytest.mark.parametrize("bands", [1, 4])
def test_an_identical_pair_has_no_change(bands, probability):
    before = np.random.default_rng(0).integers(9000, 10_000, (5000, bands)).astype(np.float32)
    fitted = IRMAD(probability=probability).fit(stream(before, before))
    answer = logits(fitted, before, before)
    assert torch.isfinite(answer).all()
    assert share_changed(fitted, before, before) == 0.0


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), gain=st.floats(0.01, 100), offset=st.floats(-1e4, 1e4), negative=st.booleans())
def test_an_affine_pair_has_no_change(seed, gain, offset, negative):
    before = np.random.default_rng(seed).integers(9000, 9500, (1000, 3)).astype(np.float32)
    after = ((-gain if negative else gain) * before + offset).astype(np.float32)
    assert share_changed(IRMAD().fit(stream(before, after)), before, after) == 0.0


def test_on_an_otherwise_exact_pair_only_the_planted_pixels_change():
    before = np.random.default_rng(0).integers(0, 255, (5000, 3)).astype(np.float32)
    after = 2 * before + 5
    after[:50] += 100 * np.random.default_rng(1).choice([-1, 1], (50, 3))
    found = logits(IRMAD().fit(stream(before, after)), before, after) > 0
    assert found[:50].all()
    assert not found[50:].any()


# ── awkward scenes ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_constant_and_repeated_bands_change_nothing():
    before, after, _ = scene(bands=(3, 3))
    constant = np.full((len(before), 1), 7.0, np.float32)
    plain = IRMAD().fit(stream(before, after))
    more_before, more_after = np.hstack([before, constant]), np.hstack([after[:, :1], after, constant])
    more = IRMAD().fit(stream(more_before, more_after))
    assert more.diagnostics()["dof"] == 3
    np.testing.assert_allclose(z_of(more, more_before, more_after), z_of(plain, before, after), rtol=1e-3, atol=1e-6)
    assert torch.isfinite(logits(more, more_before, more_after)).all()


def test_two_constant_images_have_no_change():
    before, after = np.full((100, 2), 10.0, np.float32), np.full((100, 3), 20.0, np.float32)
    fitted = IRMAD().fit(stream(before, after))
    assert share_changed(fitted, before, after) == 0.0
    restored = IRMAD().restore(json.loads(json.dumps(fitted.state())))
    assert share_changed(restored, before, after) == 0.0


def test_one_constant_image_is_rejected_by_its_date():
    before, after, _ = scene(pixels=500)
    with pytest.raises(InputError, match=r"the after image has a single value .* check its bands and its nodata value"):
        IRMAD().fit(stream(before, np.full_like(after, 3.0)))


@pytest.mark.parametrize("empty", [[], [(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32))]])
def test_a_stream_without_pixels_is_refused(empty):
    with pytest.raises(InputError, match="no valid pixels in common; check that they overlap"):
        IRMAD().fit(lambda: iter(empty))


def test_too_few_pixels_for_a_covariance_are_rejected():
    before, after, _ = scene(pixels=15)
    with pytest.raises(InputError, match=r"only 15 common valid pixels for 4 \+ 4 bands; at least 16 are required"):
        IRMAD().fit(stream(before, after))


def test_a_ridge_keeps_many_noisy_bands_from_fitting_each_other():
    rng = np.random.default_rng(0)
    before, after = (rng.normal(size=(200, 40)).astype(np.float32) for _ in range(2))
    first = [IRMAD(max_iterations=1, ridge=ridge).fit(stream(before, after)).diagnostics() for ridge in (0.0, 10.0)]
    assert first[1]["correlations"][0][0] < 0.5 * first[0]["correlations"][0][0]


# ── the reading of Z ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dof", [1, 2, 3, 4, 7, 60])
def test_the_tails_equal_those_of_scipy(dof):
    z = np.array([1e-6, 1e-3, 0.1, 1.0, 3.0, 10.0, 50.0, 200.0, 1000.0])
    np.testing.assert_allclose(log_survival(z, dof), scipy.stats.chi2.logsf(z, dof), rtol=1e-9, atol=1e-15)
    cumulative = scipy.stats.chi2.cdf(z, dof)
    seen = cumulative > 1e-300
    np.testing.assert_allclose(log_cumulative(z, dof)[seen], np.log(cumulative[seen]), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("z", [2e3, 1e4, 1e6, 1e8])
def test_far_tails_have_their_closed_forms(z):
    far = np.array([z])
    assert log_survival(far, 2)[0] == pytest.approx(-z / 2, rel=1e-12)
    assert log_survival(far, 4)[0] == pytest.approx(-z / 2 + math.log1p(z / 2), rel=1e-12)
    assert log_survival(far, 1)[0] == pytest.approx(math.log(2) + scipy.stats.norm.logsf(math.sqrt(z)), rel=1e-10)


def test_the_lowest_tail_has_its_series():
    z, dof = np.array([1e-9]), 80
    assert log_cumulative(z, dof)[0] == pytest.approx(40 * math.log(5e-10) - math.lgamma(41), rel=1e-9)


@pytest.mark.parametrize("dof", [1, 3, 4, 12])
def test_the_chi_square_logit_of_tensors_does_not_saturate(dof):
    z = np.geomspace(1e-6, 1e4, 2001)
    table = LogitTable(Reading(float(dof), "chi2", 1e-4, None))
    exact = log_cumulative(z, dof) - log_survival(z, dof)
    answer = table(torch.from_numpy(z.astype(np.float32))).numpy()
    np.testing.assert_allclose(answer, exact, rtol=2e-5, atol=2e-5)
    assert (np.diff(answer) >= -1e-5).all()


def test_the_table_survives_anything():
    table = LogitTable(Reading(4.0, "mixture", 1e-4, None))
    answer = table(torch.tensor([0.0, 1e-30, 1e30, math.inf]))
    assert torch.isfinite(answer).all()
    assert answer[0] == pytest.approx(math.log(1e-4), rel=1e-6)


@pytest.mark.parametrize("dof", [1, 4, 100])
def test_the_weights_equal_scipy_to_eight_digits(dof):
    z = np.random.default_rng(0).chisquare(dof, 10_000) * 3
    assert np.abs(SurvivalTable(dof)(z) - scipy.stats.chi2.sf(z, dof)).max() < 1e-8


@pytest.mark.parametrize("dof", [1, 2, 5])
def test_consistency_is_the_weighted_variance_of_no_change(dof):
    noise = np.random.default_rng(0).normal(size=(400_000, dof))
    weights = scipy.stats.chi2.sf((noise**2).sum(axis=1), dof)
    assert consistency(dof) == pytest.approx(np.average((noise**2).mean(axis=1), weights=weights), rel=0.01)


def test_the_mixture_recovers_two_gamma_laws():
    rng = np.random.default_rng(0)
    histogram = LogHistogram()
    histogram.add(np.concatenate([rng.gamma(2.0, 3.0, 90_000), rng.gamma(1.0, 200.0, 10_000)]))
    mixture = GammaMixture.fit(histogram, 25.0)
    assert mixture is not None
    assert mixture.changed_share == pytest.approx(0.1, abs=0.01)
    assert mixture.unchanged == pytest.approx((2.0, 3.0), rel=0.05)
    assert mixture.changed == pytest.approx((1.0, 200.0), rel=0.1)
    z = np.array([1.0, 20.0, 60.0])
    odds = scipy.stats.gamma.logpdf(z, 1, scale=200) - scipy.stats.gamma.logpdf(z, 2, scale=3) + math.log(1 / 9)
    np.testing.assert_allclose(mixture.log_odds(np.maximum(z, 1e-9))[1:], odds[1:], rtol=0.15)


@given(
    share=st.floats(0.001, 0.999),
    shapes=st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)),
    narrow=st.floats(0.1, 10),
    factor=st.floats(1.1, 1000),
)
@settings(max_examples=50, deadline=None)
def test_more_difference_is_never_less_change(share, shapes, narrow, factor):
    mixture = GammaMixture(share, (shapes[0], narrow), (shapes[1], narrow * factor))
    logit = Reading(4.0, "mixture", 1e-4, mixture).logit(np.geomspace(1e-10, 1e8, 500))
    assert np.isfinite(logit).all()
    assert (np.diff(logit) >= -1e-9 * np.abs(logit[1:])).all()


# ── the contract ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_it_is_a_scene_model_and_becomes_a_change_model():
    before, after, _ = scene(pixels=500)
    assert isinstance(IRMAD(), SceneModel)
    assert isinstance(IRMAD().fit(stream(before, after)), ChangeModel)


def test_a_fit_survives_json_bit_for_bit():
    before, after, _ = scene()
    for model in (IRMAD(), IRMAD(probability="chi2", false_alarm=1e-3)):
        fitted = model.fit(stream(before, after))
        restored = model.restore(json.loads(json.dumps(fitted.state())))
        assert restored.state() == fitted.state()
        assert restored.card == fitted.card
        assert torch.equal(logits(restored, before, after), logits(fitted, before, after))


def test_the_state_of_another_model_is_rejected():
    before, after, _ = scene(pixels=500)
    state = IRMAD().fit(stream(before, after)).state()
    with pytest.raises(InputError, match="the saved fit belongs to 'cva', not to 'irmad'"):
        IRMAD().restore({**state, "model": "cva"})
    with pytest.raises(InputError, match="cannot be read"):
        IRMAD().restore({"model": "irmad"})


def test_invalid_pixels_answer_zero_and_touch_nothing_else():
    before, after, _ = scene(pixels=600)
    fitted = IRMAD().fit(stream(before, after))
    shape = (2, 4, 15, 20)
    first, second = (
        torch.from_numpy(date).T.reshape(4, 2, 15, 20).movedim(1, 0).contiguous() for date in (before, after)
    )
    valid = torch.rand(2, 1, 15, 20, generator=torch.Generator().manual_seed(0)) > 0.3
    all_valid = fitted(first, second, torch.ones_like(valid)).change
    with_fill_values = torch.where(valid, first, torch.tensor(3e38))
    answer = fitted(with_fill_values, second, valid).change
    assert first.shape == shape
    assert answer.shape == (2, 1, 15, 20)
    assert torch.equal(answer, torch.where(valid, all_valid, torch.zeros(())))


def test_other_bands_than_those_of_the_fit_are_rejected():
    before, after, _ = scene(pixels=500)
    fitted = IRMAD().fit(stream(before, after))
    with pytest.raises(InputError, match="was fitted to 4 and 4 bands and got 3 and 4"):
        logits(fitted, before[:, :3], after)


def test_class_words_are_refused_before_and_after_the_fit():
    before, after, _ = scene(pixels=500)
    for model in (IRMAD(), IRMAD().fit(stream(before, after))):
        assert model.bind(()) is model
        with pytest.raises(VocabularyError, match="cannot use the class words water, road"):
            model.bind(["water", "road"])


@pytest.mark.parametrize(
    "wrong",
    [{"max_iterations": 0}, {"tolerance": 0.0}, {"ridge": -1.0}, {"probability": "p"}, {"false_alarm": 1e-9}],
)
def test_options_out_of_range_are_rejected_by_name(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        IRMAD(**wrong)


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
    fitted = IRMAD().fit(stream(before, after, 4))
    found = (logits(fitted, before, after) > 0).numpy()
    hits, alarms = (found & changed).sum(), (found & unchanged).sum()
    assert fitted.diagnostics()["converged"]
    assert 2 * hits / (hits + alarms + changed.sum()) > 0.945
    assert alarms / unchanged.sum() < 0.015
