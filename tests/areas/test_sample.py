"""From a result folder to a sample, labels and a report, as a user does it."""

import csv
import json

import numpy as np
import pyogrio
import pytest
import rasterio
import torch
from typer.testing import CliRunner

from making import Toy, pair, write_raster
from wasnow import ChangeMap, detect
from wasnow.areas.assess import assess
from wasnow.areas.design import Design
from wasnow.areas.labels import Label, add_label, agreement, labels_of_ceo, labels_of_table, read_labels, write_labels
from wasnow.areas.map_strata import BUFFER, NO_CHANGE, strata_of_map, strips
from wasnow.areas.report import REPORT_FILES, as_tex
from wasnow.areas.sample import draw_sample
from wasnow.cli import app
from wasnow.errors import InputError, OutputError, UsageError
from wasnow.models.contract import ChangeLogits

RUNNER = CliRunner()


class ChangesOfClass(Toy):
    """A `Toy` that reports change only where the class differs, as the default model does."""

    def __call__(self, before, after, valid):
        answer = super().__call__(before, after, valid)
        same = answer.before.argmax(1, keepdim=True) == answer.after.argmax(1, keepdim=True)
        return ChangeLogits(torch.where(same, -20.0, answer.change), answer.before, answer.after)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("areas")
    return detect(*pair(folder), output=folder / "out", model=ChangesOfClass())


@pytest.fixture
def sample(result, tmp_path):
    return draw_sample(result, tmp_path / "sample", points=120, buffer=0.0)


def perfect_labels(folder):
    with (folder / "strata.csv").open() as file:
        return [
            Label(int(row["id"]), row["map_before"], row["map_after"], interpreter="a") for row in csv.DictReader(file)
        ]


def test_strata_cover_every_processed_pixel_once(result):
    rules = strata_of_map(result, buffer=20.0)
    found = list(strips(result, rules))
    indices = np.concatenate([each.indices for each in found])
    strata = np.concatenate([each.strata for each in found])
    pixels = result.record.pixels
    assert indices.tolist() == list(range(pixels.total))
    assert int((strata >= 0).sum()) == pixels.changed + pixels.unchanged
    assert rules.names[-2:] == (BUFFER, NO_CHANGE)


def test_buffer_pixels_are_unchanged_and_lie_within_reach_of_change(result):
    rules = strata_of_map(result, buffer=3 * (result.record.grid.gsd_m or 1), evidence=1.0)
    strata = np.concatenate([each.strata for each in strips(result, rules)])
    with rasterio.open(result.change) as file:
        transition = file.read(3)
    strata = strata.reshape(transition.shape)
    near = strata == rules.names.index(BUFFER)
    assert (transition[near] == 0).all()
    rows, cols = np.nonzero((transition != 0) & (transition != rules.not_processed))
    for row, col in zip(*np.nonzero(near), strict=True):
        assert np.hypot(rows - row, cols - col).min() <= 3


def test_the_files_for_labelling_contain_neither_strata_nor_map_classes(sample):
    points = pyogrio.read_info(sample.folder / "points.gpkg")
    assert not {"stratum", "map_before", "map_after"} & set(points["fields"])
    assert points["features"] == 120
    with (sample.folder / "points.csv").open() as file:
        assert next(csv.reader(file))[2] == "PLOTID"


def test_points_lie_at_the_centres_of_pixels_of_their_stratum(sample, result):
    info, _, geometry, fields = pyogrio.raw.read(sample.folder / "points.gpkg")
    table = dict(zip(info["fields"], fields, strict=True))
    key = {int(row["id"]): row for row in csv.DictReader((sample.folder / "strata.csv").open())}
    words = result.vocabulary
    with rasterio.open(result.change) as file:
        codes = file.read(3)
    for point, row, col in zip(table["id"], table["row"], table["col"], strict=True):
        code = int(codes[row, col])
        expected = "no change" if code == 0 else words.transition(code).label
        assert key[int(point)]["stratum"] in (expected, "other change")
    assert len(geometry) == 120


def test_the_same_seed_draws_the_same_points_and_another_seed_does_not(result, tmp_path):
    def drawn(name, seed):
        draw_sample(result, tmp_path / name, points=60, buffer=0.0, seed=seed)
        return (tmp_path / name / "points.csv").read_text()

    assert drawn("a", 3) == drawn("b", 3)
    assert drawn("c", 4) != drawn("a2", 3)


def test_perfect_labels_give_the_mapped_areas_and_an_accuracy_of_one(sample, result):
    write_labels(sample.folder, perfect_labels(sample.folder))
    found = assess(sample.folder, map_folder=result.folder)
    assert found.transitions.overall_accuracy.value == pytest.approx(1)
    assert found.unions[0].share.value == pytest.approx(result.changed_share, rel=1e-3)
    assert found.design.mapped_share("any change") == pytest.approx(result.changed_share, rel=1e-3)


def test_the_standard_error_of_all_gains_of_a_class_is_not_the_sum_of_those_of_its_transitions(sample):
    labels = perfect_labels(sample.folder)
    # Every third point was in fact unchanged.
    labels = [Label(each.id, each.before, each.before) if each.id % 3 == 0 else each for each in labels]
    write_labels(sample.folder, labels)
    found = assess(sample.folder)
    compared = 0
    for row in found.unions[1:]:
        parts = [each for each in found.transitions.classes if row.name in (f"→ {each.name.partition(' → ')[2]}",)]
        if len(parts) > 1:
            compared += 1
            assert row.share.value == pytest.approx(sum(each.share.value for each in parts))
            assert row.share.standard_error < sum(each.share.standard_error for each in parts)
    assert compared


def test_labels_are_appended_one_by_one_and_the_last_one_counts(sample):
    first, *_ = perfect_labels(sample.folder)
    add_label(sample.folder, first)
    add_label(sample.folder, Label(first.id, "x", "y", note='with, comma and "quotes"', interpreter="b"))
    labels = read_labels(sample.folder / "labels.csv")
    assert [each.interpreter for each in labels] == ["a", "b"]
    assert labels[1].note == 'with, comma and "quotes"'
    assert agreement(labels).points == 1
    assert agreement(labels).same == 0


def test_skipped_points_are_reported_with_their_reason(sample):
    labels = perfect_labels(sample.folder)
    labels[0] = Label(labels[0].id, skip_reason="cloud")
    write_labels(sample.folder, labels[:-1])
    found = assess(sample.folder)
    assert found.skipped == {"cloud": 1}
    assert found.unlabelled == 1
    assert found.transitions.unlabelled == 2


def test_labels_made_in_the_geopackage_are_read(sample, tmp_path):
    info, _, geometry, fields = pyogrio.raw.read(sample.folder / "points.gpkg")
    names = list(info["fields"])
    fields = [
        np.array(["water"] * len(geometry), object) if name in ("before", "after") else each
        for name, each in zip(names, fields, strict=True)
    ]
    pyogrio.raw.write(
        tmp_path / "done.gpkg", geometry=geometry, field_data=fields, fields=names, layer="points", driver="GPKG",
        geometry_type="Point", crs=info["crs"],
    )  # fmt: skip
    labels = labels_of_table(tmp_path / "done.gpkg")
    assert len(labels) == 120
    assert {(each.before, each.after) for each in labels} == {("water", "water")}


def test_columns_of_a_table_can_be_named(tmp_path):
    (tmp_path / "t.csv").write_text("plot;was;now\n7;water;road\n8;;\n")
    (label,) = labels_of_table(tmp_path / "t.csv", columns={"id": "plot", "before": "was", "after": "now"})
    assert (label.id, label.before, label.after) == (7, "water", "road")


def test_an_export_of_collect_earth_online_is_read(tmp_path):
    (tmp_path / "ceo.csv").write_text(
        "plotid,center_lon,center_lat,email,flagged,flagged_reason,confidence,collection_time,analysis_duration,"
        "2009:water,2009:land,2017:water,2017:land\n"
        "1,0,0,a@b.org,false,,80,2026-01-02 10:00,12.5 secs,0,100,100,0\n"
        "2,0,0,a@b.org,true,cloud,,2026-01-02 10:01,3 secs,,,,\n"
        "3,0,0,a@b.org,false,,,2026-01-02 10:02,9 secs,50,50,0,100\n"
    )
    labels = labels_of_ceo(tmp_path / "ceo.csv", before="2009", after="2017")
    assert (labels[0].before, labels[0].after, labels[0].seconds) == ("land", "water", "12.5")
    assert labels[1].skip_reason == "cloud"
    assert labels[2].skip_reason == "no single answer"
    with pytest.raises(InputError, match="no column of question '2010'; it has 2009, 2017"):
        labels_of_ceo(tmp_path / "ceo.csv", before="2010", after="2017")


def broken(sample, what):
    write_labels(sample.folder, perfect_labels(sample.folder))
    key = sample.folder / "strata.csv"
    if what == "unknown point":
        add_label(sample.folder, Label(9999, "water", "water"))
    elif what == "unknown class":
        add_label(sample.folder, Label(1, "lava", "water"))
    elif what == "one date":
        (sample.folder / "labels.csv").write_text("id,before,after\n1,water,\n")
    elif what == "no column":
        (sample.folder / "labels.csv").write_text("id,before\n1,water\n")
    elif what == "missing strata":
        key.write_text("\n".join(key.read_text().splitlines()[:-3]) + "\n")
    elif what == "repeated id":
        key.write_text(key.read_text() + key.read_text().splitlines()[1] + "\n")
    elif what == "empty stratum":
        write_labels(sample.folder, [each for each in perfect_labels(sample.folder) if each.before == each.after])


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("unknown point", "point 9999 is not part of this sample"),
        ("unknown class", "point 1 has class 'lava'; the classes are"),
        ("one date", "point 1 has a class at one date only"),
        ("no column", "no column 'after'; it has id, before"),
        ("missing strata", "117 points, the design has 120"),
        ("repeated id", "1 point ids occur twice"),
        ("empty stratum", "has 0 labelled points; at least 2 are required"),
    ],
)
def test_files_that_do_not_fit_are_one_line(sample, what, message):
    broken(sample, what)
    with pytest.raises(InputError, match=message):
        assess(sample.folder)


def test_a_map_that_changed_after_the_draw_is_rejected(sample, result, tmp_path):
    write_labels(sample.folder, perfect_labels(sample.folder))
    (tmp_path / "other").mkdir()
    (tmp_path / "other/change.tif").write_bytes(result.change.read_bytes() + b" ")
    with pytest.raises(InputError, match="is not the map that the sample was drawn from"):
        assess(sample.folder, map_folder=tmp_path / "other")


def test_a_second_sample_in_the_same_folder_is_refused(sample, result):
    with pytest.raises(OutputError, match="already holds a sample"):
        draw_sample(result, sample.folder, points=100)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give the number of points, or a target"),
        ({"points": 3}, "3 points for"),
        ({"targets": {"lava": 0.2}}, "target 'lava' is not mapped"),
        ({"points": 50, "buffer": -1.0}, "buffer is -1"),
        ({"points": 50, "evidence": 0.0}, "evidence is 0"),
    ],
)
def test_an_impossible_request_is_one_line(result, tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        draw_sample(result, tmp_path / "s", **options)


def test_the_commands_print_margins_first_and_write_a_report(result, tmp_path):
    folder, report = str(tmp_path / "s"), tmp_path / "report"
    run = RUNNER.invoke(app, ["sample", str(result.folder), "-o", folder, "--points", "120", "--buffer", "0"])
    assert run.exit_code == 0, run.output
    assert "expected margin of the area" in run.output
    write_labels(tmp_path / "s", perfect_labels(tmp_path / "s"))
    run = RUNNER.invoke(app, ["areas", folder, "-o", str(report), "--map", str(result.folder)])
    assert run.exit_code == 0, run.output
    assert "overall accuracy 100.0%" in run.output
    assert sorted(each.name for each in report.glob("[!.]*")) == sorted(REPORT_FILES)
    facts = json.loads((report / "areas.json").read_text())
    assert facts["transitions"]["overall_accuracy"]["value"] == pytest.approx(1)
    run = RUNNER.invoke(app, ["areas", folder, "-o", str(report), "--json"])
    assert json.loads(run.stdout)["sentence"].startswith("Between the two dates")


def test_a_target_decides_the_number_of_points(result, tmp_path):
    word = result.record.model.classes[-1]
    transition = next(row for row in result.record.transitions)
    target = f"{transition.after}:30%"
    run = RUNNER.invoke(app, ["sample", str(result.folder), "-o", str(tmp_path / "s"), "--target", target, "--json"])
    assert run.exit_code == 0, (run.output, word)
    few = sum(row["points"] for row in json.loads(run.stdout)["strata"])
    run = RUNNER.invoke(
        app, ["sample", str(result.folder), "-o", str(tmp_path / "t"), "--target", f"{transition.after}:15%", "--json"]
    )
    assert sum(row["points"] for row in json.loads(run.stdout)["strata"]) > few


@pytest.mark.parametrize("text", ["building", "building:much", ":20%"])
def test_a_target_of_another_form_is_invalid_usage(result, tmp_path, text):
    run = RUNNER.invoke(app, ["sample", str(result.folder), "-o", str(tmp_path / "s"), "--target", text])
    assert run.exit_code == 2
    assert "write CLASS:PERCENT" in run.output


def test_words_with_markup_are_text_in_the_page_and_in_latex(sample):
    write_labels(sample.folder, perfect_labels(sample.folder))
    found = assess(sample.folder)
    assert r"$\to$" in as_tex(found)
    assert Design.read(sample.folder) == sample.design


def test_points_are_drawn_by_ground_area_where_pixels_differ_in_size(tmp_path):
    # 60 degrees of latitude: pixels in the north cover half of the ground of those at the equator.
    profile = {"crs": "EPSG:4326", "transform": rasterio.transform.from_origin(10, 60, 0.5, 0.5)}
    random = np.random.default_rng(1)
    before = random.integers(40, 90, (3, 120, 120), dtype=np.uint8)
    after = before.copy()
    after[:, :, 60:] += 120
    paths = [tmp_path / "b.tif", tmp_path / "a.tif"]
    for path, values in zip(paths, (before, after), strict=True):
        write_raster(path, values, **profile)
    result = detect(*paths, output=tmp_path / "out", model=Toy())
    made = draw_sample(ChangeMap.open(result.folder), tmp_path / "s", points=800, buffer=0.0, floor=2)
    assert made.design.probability == "per square metre"
    _, _, _, fields = pyogrio.raw.read(tmp_path / "s/points.gpkg")
    rows = fields[1]
    # Expected mean row if every pixel were as likely: 59.5; by ground area it lies further south.
    areas = np.cos(np.deg2rad(60 - 0.5 * (np.arange(120) + 0.5)))
    expected = float((areas * np.arange(120)).sum() / areas.sum())
    assert rows.mean() == pytest.approx(expected, abs=4)
    assert expected > 65
