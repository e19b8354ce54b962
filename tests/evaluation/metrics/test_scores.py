"""Scores: worked cases of the published scripts, invariants, and a slow pixel-by-pixel oracle."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.metrics.maps import LABELS, PREDICTED, SEVEN, SMALL, SOME, Pair, both, codes, same, scored
from wasnow.errors import InputError
from wasnow.evaluation.metrics import Confusion, ProtocolScores, protocol_scores, word_scores
from wasnow.vocabulary import Vocabulary


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# ------------------------------------------------------------------------------------------- the published worked cases


def test_the_small_published_matrix_has_the_published_scores():
    s = protocol_scores(SMALL)
    assert round(100 * s.oa, 2) == 84.00
    assert round(100 * s.binary_oa, 2) == 86.00
    assert round(100 * s.miou, 4) == 68.3333
    assert round(s.kappa, 6) == 0.172414
    assert round(100 * s.sek, 4) == 10.8119
    assert round(100 * s.fscd, 4) == 60.8696
    assert round(100 * s.score, 4) == 28.0683


def test_the_seven_class_published_matrix_has_the_published_scores():
    s = protocol_scores(SEVEN)
    assert round(100 * s.oa, 4) == 86.9427
    assert round(100 * s.binary_oa, 4) == 91.0547
    assert round(100 * s.iou_changed, 4) == 64.3124
    assert round(100 * s.miou, 4) == 76.8240
    assert round(s.kappa, 6) == 0.335379
    assert round(100 * s.sek, 4) == 23.4718
    assert round(100 * s.fscd, 4) == 58.3125
    assert round(100 * s.score, 4) == 39.4775


def test_the_twenty_published_pixels_have_the_published_scores_in_both_protocols():
    s = scored(PREDICTED, LABELS, 6)
    assert round(100 * s.stacked.oa, 4) == 75
    assert round(100 * s.stacked.fscd, 4) == 66.6667
    assert round(100 * s.stacked.miou, 4) == 73.8636
    assert round(100 * s.stacked.sek, 4) == 35.9715
    assert round(100 * s.from_to.oa, 4) == 65
    assert round(100 * s.from_to.fscd, 4) == 47.6190
    assert round(100 * s.from_to.miou, 4) == 73.8636
    assert round(100 * s.from_to.sek, 4) == 27.9417
    assert round(100 * s.binary.oa, 4) == 85
    assert s.incomplete == 0
    assert not s.undefined


# ----------------------------------------------------------------------------------------------- pixel-by-pixel oracle


def plain(hits: list[tuple[object, object]], zero: object) -> dict[str, float]:
    """Every protocol score computed from the definitions, pixel by pixel."""

    def ratio(part: float, whole: float) -> float:
        return part / whole if whole else math.nan

    n = len(hits)
    hatted = [(p, q) for p, q in hits if (p, q) != (zero, zero)]
    changed = sum(p != zero and q != zero for p, q in hits)
    iou_c = ratio(changed, len(hatted))
    iou_nc = ratio(n - len(hatted), sum(p == zero or q == zero for p, q in hits))
    chance = sum(
        sum(p == code for p, _ in hatted) * sum(q == code for _, q in hatted)
        for code in {code for pair in hatted for code in pair}
    )
    po, pe = ratio(sum(p == q for p, q in hatted), len(hatted)), ratio(chance, len(hatted) ** 2)
    kappa = ratio(po - pe, 1 - pe) if hatted else math.nan
    right = sum(p == q != zero for p, q in hits)
    said, true = sum(p != zero for p, _ in hits), sum(q != zero for _, q in hits)
    miou, sek = (iou_c + iou_nc) / 2, kappa * math.exp(iou_c - 1)
    return {
        "oa": ratio(sum(p == q for p, q in hits), n),
        "binary_oa": ratio(sum((p == zero) == (q == zero) for p, q in hits), n),
        "iou_unchanged": iou_nc,
        "iou_changed": iou_c,
        "miou": miou,
        "kappa": kappa,
        "sek": sek,
        "precision": ratio(right, said),
        "recall": ratio(right, true),
        "fscd": ratio(2 * right, said + true),
        "score": 0.3 * miou + 0.7 * sek,
    }


@settings(deadline=None)
@given(both(consistent=False, ignore=True))
def test_every_score_equals_the_pixel_by_pixel_definition(maps):
    predicted, labelled = maps
    s = scored(predicted, labelled)
    pixels = [
        ((pb, pa), (lb, la))
        for pb, pa, lb, la in zip(*predicted, *labelled, strict=True)
        if 255 not in (pb, pa, lb, la)
    ]
    assert s.pixels == len(pixels)
    assert s.ignored == sum(255 in pair for pair in zip(*labelled, strict=True))
    assert s.pixels + s.ignored + s.unanswered == len(predicted[0])
    dates = [[(p[date], q[date]) for p, q in pixels] for date in (0, 1)]
    for name, value in plain(dates[0] + dates[1], 0).items():
        assert same(getattr(s.stacked, name), value), f"stacked.{name}"
    for name, value in plain(pixels, (0, 0)).items():
        assert same(getattr(s.from_to, name), value), f"from_to.{name}"
    change = plain([(any(p), any(q)) for p, q in pixels], False)
    for name in ("iou_unchanged", "iou_changed", "miou", "precision", "recall", "oa"):
        assert same(getattr(s.binary, name), change[name]), f"binary.{name}"
    assert same(s.binary.f1, change["fscd"])
    for view, hits in ((s.before, dates[0]), (s.after, dates[1])):
        ious = []
        for row in view.classes:
            union = sum(row.after in hit for hit in hits)
            found = sum(hit == (row.after, row.after) for hit in hits)
            assert same(row.iou, found / union if union else math.nan)
            ious += [row.iou] if union else []
        assert same(view.miou, sum(ious) / len(ious) if ious else math.nan)
    for row in s.transitions:
        code = (row.before, row.after)
        assert row.predicted == sum(p == code for p, _ in pixels)
        assert row.labelled == sum(q == code for _, q in pixels)
        assert row.correct == sum(p == code == q for p, q in pixels)
        assert row.f1 == pytest.approx(2 * row.correct / (row.predicted + row.labelled))
    assert sum(row.labelled for row in s.transitions) == sum(any(q) for _, q in pixels)


@SOME
@given(both(consistent=True))
def test_cohens_kappa_of_change_is_its_textbook_form(maps):
    s = scored(*maps)
    (tn, fn), (fp, tp) = Confusion.of_classes(*maps, 3).binary().tolist()
    bottom = (tp + fp) * (fp + tn) + (tp + fn) * (fn + tn)
    assert same(s.binary.kappa, 2 * (tp * tn - fn * fp) / bottom if bottom else math.nan)


# ----------------------------------------------------------------------------------------------------------- invariants


@SOME
@given(both(consistent=True))
def test_swapping_the_dates_changes_no_whole_map_score(maps):
    swapped = [pair[::-1] for pair in maps]
    one, other = scored(*maps).headline(), scored(*swapped).headline()
    assert other["before.miou"] == pytest.approx(one["after.miou"], nan_ok=True)
    for name, value in one.items():
        if not name.startswith(("before", "after")):
            assert same(value, other[name]), name


@SOME
@given(both(consistent=False), st.permutations([1, 2, 3]))
def test_renaming_the_classes_changes_no_whole_map_score(maps, order):
    rename = np.array([0, *order])
    renamed = [tuple(rename[one] for one in pair) for pair in maps]
    one, other = scored(*maps).headline(), scored(*renamed).headline()
    assert all(same(value, other[name]) for name, value in one.items())


@SOME
@given(st.lists(both(size=8, consistent=False, ignore=True), min_size=3, max_size=3))
def test_counts_add_up_in_any_order_to_the_counts_of_all_pixels_at_once(images):
    a, b, c = (Confusion.of_classes(*image, 3) for image in images)
    glued = [tuple(np.concatenate([image[which][date] for image in images]) for date in (0, 1)) for which in (0, 1)]
    everything = Confusion.of_classes(*glued, 3)  # type: ignore[arg-type]
    assert (a + b) + c == a + (b + c) == c + a + b == Confusion.total([b, a, c]) == everything
    assert Confusion.empty(3) + a == a
    assert everything.scores().as_dict() == (c + b + a).scores().as_dict()


@SOME
@given(codes(3, 24, consistent=True))
def test_a_perfect_prediction_scores_one_wherever_a_score_is_defined(pair):
    s = scored(pair, pair)
    for name, value in s.headline().items():
        best = 0.3 + 0.7 if name.endswith("score") else 1.0
        assert value == pytest.approx(best) or name in s.undefined, name
    assert all(row.f1 == row.iou == 1 for row in s.transitions)


@SOME
@given(both(consistent=True))
def test_both_protocols_and_the_binary_view_agree_on_where_the_ground_changed(maps):
    s = scored(*maps)
    for name in ("iou_changed", "iou_unchanged", "miou"):
        assert same(getattr(s.binary, name), getattr(s.stacked, name))
        assert same(getattr(s.binary, name), getattr(s.from_to, name))
    assert same(s.binary.oa, s.stacked.binary_oa)
    assert same(s.binary.oa, s.from_to.binary_oa)


@SOME
@given(both(consistent=False))
def test_a_score_is_nan_exactly_where_a_reason_is_given(maps):
    s = scored(*maps)
    assert set(s.undefined) == {name for name, value in s.headline().items() if math.isnan(value)}
    assert all(reason and "\n" not in reason for reason in s.undefined.values())


@SOME
@given(both(consistent=True))
def test_the_matrices_give_the_scores(maps):
    c = Confusion.of_classes(*maps, 3)
    s = c.scores()
    assert c.stacked().sum() == 2 * c.pixels
    assert c.from_to().shape == (10, 10)
    for matrix, scores in ((c.stacked(), s.stacked), (c.from_to(), s.from_to)):
        again = protocol_scores(matrix)
        assert all(same(getattr(again, name), getattr(scores, name)) for name in ProtocolScores.__slots__)
    assert (c.stacked() == c.date(after=False) + c.date(after=True)).all()


@SOME
@given(both(consistent=True))
def test_transition_codes_are_those_of_the_vocabulary(maps):
    words = Vocabulary(("water", "tree", "building"))
    coded = [words.encode(before > 0, before - 1, after - 1)[2] for before, after in maps]
    wanted = np.zeros((10, 10), np.int64)
    np.add.at(wanted, tuple(coded), 1)
    assert (Confusion.of_classes(*maps, 3).from_to() == wanted).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int64])
def test_the_integer_type_and_the_shape_of_a_map_do_not_matter(dtype):
    reshaped = [tuple(one.astype(dtype).reshape(4, 5) for one in pair) for pair in (PREDICTED, LABELS)]
    assert Confusion.of_classes(*reshaped, 6) == Confusion.of_classes(PREDICTED, LABELS, 6)


@SOME
@given(both(n_classes=3, consistent=False, ignore=True), st.sampled_from([40, 200, 254]))
def test_a_wide_vocabulary_is_scored_like_a_narrow_one(maps, n_classes):
    narrow = Confusion.of_classes(*maps, 3).scores().headline()
    wide = Confusion.of_classes(*maps, n_classes).scores().headline()
    assert all(same(value, wide[name]) for name, value in narrow.items())


# ------------------------------------------------------------------------------------------ errors found in public code


def test_class_zero_inside_the_change_mask_never_takes_the_code_of_a_transition():
    # (before - 1) * 6 + after would make these -3, 0 and 12: negative, "unchanged", and "2 -> 6".
    predicted = np.array([0, 0, 3]), np.array([3, 6, 0])
    labelled = np.array([1, 1, 2]), np.array([3, 6, 6])
    c = Confusion.of_classes(predicted, labelled, 6)
    s = c.scores()
    assert s.incomplete == 3
    assert s.binary.recall == 1
    assert s.from_to.oa == s.from_to.recall == 0
    assert s.from_to.binary_oa == 1
    assert s.stacked.oa == pytest.approx(2 / 6)
    assert c.from_to().shape == (49, 49)
    assert [(row.before, row.after) for row in s.transitions if row.predicted] == [(3, 0), (0, 3), (0, 6)]


def test_scores_come_from_summed_counts_and_not_from_averaged_images():
    draw = np.random.default_rng(3)
    images = []
    for share in (0.02, 0.5):
        labels = tuple(np.where(draw.random(400) < share, 1 + draw.integers(3, size=400), 0) for _ in range(2))
        wrong = draw.random(400) < 0.3
        guess = tuple(np.where(wrong, draw.integers(4, size=400), one) for one in labels)
        images.append(Confusion.of_classes(guess, labels, 3))  # type: ignore[arg-type]
    summed = Confusion.total(images).scores().from_to.sek
    averaged = np.mean([one.scores().from_to.sek for one in images])
    assert abs(summed - averaged) > 0.03


@pytest.mark.parametrize("predicted", ["nothing", "something"])
def test_scores_of_labels_without_change_are_undefined_with_a_reason(predicted):
    nothing = np.zeros(9, int), np.zeros(9, int)
    something = np.array([1, 2] + [0] * 7), np.array([2, 2] + [0] * 7)
    s = scored(nothing if predicted == "nothing" else something, nothing)
    assert s.stacked.oa == pytest.approx(1 if predicted == "nothing" else 7 / 9)
    assert math.isnan(s.binary.recall)
    assert s.undefined["from_to.recall"] == "nothing is labelled as changed"
    if predicted == "nothing":
        for name in (
            "binary.iou_changed",
            "binary.f1",
            "stacked.kappa",
            "from_to.sek",
            "from_to.score",
            "stacked.fscd",
        ):
            assert s.undefined[name] == "nothing changed, neither in the prediction nor in the labels"
        assert s.undefined["stacked.precision"] == "nothing is predicted as changed"
        assert s.undefined["before.miou"] == "no class is predicted or labelled in the before map"
        assert s.binary.iou_unchanged == 1
    else:
        assert s.from_to.precision == s.from_to.fscd == s.from_to.kappa == s.from_to.sek == 0


def test_a_model_that_finds_nothing_scores_zero_and_its_precision_is_undefined():
    s = scored((np.zeros(20, int), np.zeros(20, int)), LABELS, 6)
    assert s.from_to.fscd == s.from_to.recall == s.from_to.sek == s.binary.f1 == 0
    assert s.undefined == {
        f"{view}.precision": "nothing is predicted as changed" for view in ("binary", "stacked", "from_to")
    }


def test_kappa_is_undefined_if_chance_agreement_is_one():
    pair = np.array([0, 1, 1]), np.array([0, 2, 2])
    s = scored(pair, pair)
    for name in ("kappa", "sek", "score"):
        assert "pe = 1" in s.undefined[f"from_to.{name}"]
    assert s.stacked.kappa == 1


def test_change_everywhere_leaves_the_unchanged_iou_undefined():
    pair = np.array([1, 2, 1]), np.array([2, 1, 3])
    s = scored(pair, pair)
    everything = "everything changed, both in the prediction and in the labels"
    assert all(s.undefined[f"from_to.{name}"] == everything for name in ("iou_unchanged", "miou", "score"))
    assert s.from_to.sek == 1


def test_scores_of_no_pixels_are_undefined():
    for empty in (Confusion.empty(3), Confusion.of_classes((np.zeros(0, int),) * 2, (np.zeros(0, int),) * 2, 3)):
        s = empty.scores()
        assert s.pixels == 0
        assert set(s.undefined) == set(s.headline())
        assert set(s.undefined.values()) == {"no pixel has both a prediction and a label"}


# --------------------------------------------------------------------------------------------------- reports


def test_undefined_scores_are_null_in_json():
    plain_json = json.loads(json.dumps(scored(LABELS, LABELS, 6).as_dict(), allow_nan=False))
    assert plain_json["from_to"]["sek"] == 1
    assert plain_json["transitions"][0].keys() >= {"before", "after", "f1", "iou"}
    empty = json.loads(json.dumps(Confusion.empty(2).scores().as_dict(), allow_nan=False))
    assert empty["from_to"]["sek"] is None
    assert empty["undefined"]["from_to.sek"]


def test_transitions_are_sorted_by_labelled_pixels():
    rows = scored(PREDICTED, LABELS, 6).transitions
    counts = [row.labelled for row in rows]
    assert counts == sorted(counts, reverse=True)
    assert (rows[0].before, rows[0].after) == (5, 2)


# ------------------------------------------------------------------------------------------ word scores


@SOME
@given(both(consistent=False, ignore=True))
def test_a_word_is_scored_on_pixels_labelled_with_a_class(maps: tuple[Pair, Pair]):
    predicted, labelled = maps
    found = Confusion.of_classes(predicted, labelled, 3).words()
    for one in found:
        tp = fp = fn = 0
        for said, known in zip(predicted, labelled, strict=True):
            for i in range(len(said)):
                lost = 255 in (predicted[0][i], predicted[1][i], labelled[0][i], labelled[1][i])
                if lost or known[i] == 0:
                    continue
                tp += said[i] == known[i] == one.code
                fp += said[i] == one.code != known[i]
                fn += known[i] == one.code != said[i]
        assert (one.predicted, one.labelled, one.correct) == (tp + fp, tp + fn, tp)
        for value, part, whole in (
            (one.precision, tp, tp + fp),
            (one.recall, tp, tp + fn),
            (one.f1, 2 * tp, 2 * tp + fp + fn),
            (one.iou, tp, tp + fp + fn),
        ):
            assert same(value, part / whole if whole else math.nan)
        names = {name for name in ("precision", "recall", "f1", "iou") if math.isnan(getattr(one, name))}
        assert names == set(one.undefined)


def test_maps_without_classes_have_no_words():
    assert Confusion.of_change(np.array([0, 1]), np.array([1, 1])).words() == ()


@SOME
@given(st.permutations([1, 2, 3]), both(consistent=True))
def test_renaming_the_classes_renames_their_scores_and_nothing_else(order: list[int], maps: tuple[Pair, Pair]):
    table = np.array([0, *order])
    renamed = [(table[before], table[after]) for before, after in maps]
    own = {table[one.code]: one for one in Confusion.of_classes(*maps, 3).words()}
    for one in Confusion.of_classes(*renamed, 3).words():
        assert one.as_dict() == own[one.code].as_dict() | {"code": one.code}


def test_word_scores_reject_a_matrix_that_is_not_square():
    with pytest.raises(InputError, match="must be square"):
        word_scores([[1, 2, 3]])
