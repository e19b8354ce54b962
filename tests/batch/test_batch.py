"""Lists of pairs: reading, checking, running, resuming, and the summary."""

import csv
import html.parser
import json
import shutil
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import wasnow
from making import Toy, pair, write_raster
from wasnow.batch import PairOutcome, detect_pairs, read_pairs
from wasnow.batch.names import OWN_FILES
from wasnow.batch.summary import as_csv, as_page
from wasnow.cli import app
from wasnow.errors import DiskFull, InputError, Interrupted, OutputError, OutputLocked, PairsError, UnknownModel
from wasnow.models import loading
from wasnow.output.verify import verify
from wasnow.pipeline import api
from wasnow.pipeline import run as pipeline_run
from wasnow.storage.journal import workspace
from wasnow.storage.names import folded, folder_name_fault


@pytest.fixture
def place(tmp_path):
    """A folder with a small pair."""
    pair(tmp_path, height=48, width=64)
    return tmp_path


def listed(folder, text, name="list.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


THREE = "before,after,name,min-area\nbefore.tif,after.tif,one,\nbefore.tif,gone.tif,two,\nbefore.tif,after.tif,,40\n"


# --- running a list ---------------------------------------------------------------------------------------------------


def test_every_pair_has_its_folder_and_a_failed_pair_does_not_stop_the_others(place):
    outcomes = []
    summary = detect_pairs(listed(place, THREE), output=place / "out", model=Toy(), each=outcomes.append)
    assert [each.state for each in summary.pairs] == ["done", "failed", "done"]
    assert [each.name for each in summary.pairs] == ["one", "two", "before-to-after"]
    assert summary.summary() == "3 pairs: 2 done, 1 failed"
    assert not summary.complete
    assert outcomes == list(summary.pairs)
    assert "gone.tif: no such file" in summary.pairs[1].reason
    assert summary.pairs[1].error == "RasterUnreadable"
    alone = wasnow.detect(place / "before.tif", place / "after.tif", output=place / "alone", model=Toy(), min_area=40)
    assert (place / "out/before-to-after/change.tif").read_bytes() == alone.change.read_bytes()
    verdict = verify(place / "out")
    assert [(each.file, each.state) for each in verdict.findings] == [("two", "failed")]
    assert [each.sound for each in verdict.pairs] == [True, True]


def test_the_same_call_again_runs_only_unfinished_pairs(place, monkeypatch):
    detect_pairs(listed(place, THREE), output=place / "out", model=Toy())
    shutil.copy(place / "after.tif", place / "gone.tif")
    written = []
    real = pipeline_run.write_results
    monkeypatch.setattr(pipeline_run, "write_results", lambda *given: written.append(1) or real(*given))
    summary = detect_pairs(listed(place, THREE), output=place / "out", model=Toy())
    assert summary.complete
    assert len(written) == 1
    assert [each.reused for each in summary.pairs] == [True, False, True]
    assert all(each.seconds for each in summary.pairs)
    assert verify(place / "out").sound


def test_changed_inputs_are_noticed(place):
    table = listed(place, "before,after,name\nbefore.tif,after.tif,one\n")
    detect_pairs(table, output=place / "out", model=Toy())
    write_raster(place / "after.tif", np.zeros((3, 48, 64), np.uint8), photometric="RGB")
    (again,) = detect_pairs(table, output=place / "out", model=Toy()).pairs
    assert again.state == "failed"
    assert again.error == "ResumeRefused"
    assert "after after.tif was" in again.reason
    assert detect_pairs(table, output=place / "out", model=Toy(), overwrite=True).complete


def test_a_model_is_loaded_once_for_consecutive_pairs(place, monkeypatch):
    loaded = []
    real = loading.load

    def counting(model, *, device):
        loaded.append((model, device))
        return real(model, device=device)

    monkeypatch.setattr(loading, "load", counting)
    rows = [{"before": place / "before.tif", "after": place / "after.tif", "name": f"n{i}"} for i in range(3)]
    rows.append({**rows[0], "name": "other", "model": "irmad"})
    summary = detect_pairs(rows, output=place / "out", model="cva")
    assert summary.complete
    assert [name for name, _ in loaded] == ["cva", "irmad"]
    assert [each.model for each in summary.pairs] == ["cva", "cva", "cva", "irmad"]
    # A loaded model and its name give the same run.
    same = wasnow.detect(place / "before.tif", place / "after.tif", output=place / "out" / "n0", model="cva")
    assert same.reused


def test_unchanged_finished_pairs_are_not_opened_again(place, monkeypatch):
    table = listed(place, THREE.replace("gone", "after").replace(",two,", ",two,30"))
    first = detect_pairs(table, output=place / "out", model="cva")
    with monkeypatch.context() as patch:
        patch.setattr(api, "detect", lambda *given, **options: pytest.fail("a pair was opened"))
        again = detect_pairs(table, output=place / "out", model="cva")
    assert [each.reused for each in again.pairs] == [True, True, True]
    assert [each.changed_px for each in again.pairs] == [each.changed_px for each in first.pairs]
    assert [each.seconds for each in again.pairs] == [each.seconds for each in first.pairs]


@pytest.mark.parametrize("change", ["input", "side file", "result", "option", "deleted"])
def test_any_change_of_a_finished_pair_leads_to_the_full_check(place, monkeypatch, change):
    table = listed(place, "before,after,name\nbefore.tif,after.tif,one\n")
    detect_pairs(table, output=place / "out", model="cva")
    options = {}
    if change == "input":
        write_raster(place / "after.tif", np.zeros((3, 48, 64), np.uint8), photometric="RGB")
    elif change == "side file":
        (place / "before.tif.aux.xml").write_text("<PAMDataset/>")
    elif change == "result":
        with (place / "out/one/changes.gpkg").open("ab") as file:
            file.write(b"edited")
    elif change == "option":
        options = {"min_area": 7}
    else:
        (place / "out/one/change.tif").unlink()
    opened = []
    real = api.detect
    monkeypatch.setattr(api, "detect", lambda *given, **more: opened.append(1) or real(*given, **more))
    detect_pairs(table, output=place / "out", model="cva", **options)
    assert opened == [1]


def test_fail_fast_leaves_the_others_waiting(place):
    summary = detect_pairs(listed(place, THREE), output=place / "out", model=Toy(), fail_fast=True)
    assert [each.state for each in summary.pairs] == ["done", "failed", "waiting"]
    states = [(each.file, each.state) for each in verify(place / "out").findings]
    assert states == [("two", "failed"), ("before-to-after", "unfinished")]


def test_ctrl_c_stops_the_list_and_the_same_call_continues(place):
    def stop(phase, done, total):
        if phase == "detect" and (place / "out/one/run.json").exists():
            raise KeyboardInterrupt

    table = listed(place, THREE.replace("gone", "after").replace(",two,", ",two,30"))
    with pytest.raises(Interrupted, match=r"pair two \(row 3\): interrupted after"):
        detect_pairs(table, output=place / "out", model=Toy(), progress=stop)
    written = json.loads((place / "out/summary.json").read_text())
    assert written["counts"] == {"done": 1, "waiting": 2}
    summary = detect_pairs(table, output=place / "out", model=Toy())
    assert summary.complete
    assert summary.pairs[0].reused


def test_a_full_disk_stops_the_list(place, monkeypatch):
    def full(*given, **options):
        raise DiskFull("no space left")

    monkeypatch.setattr(api, "detect", full)
    with pytest.raises(DiskFull):
        detect_pairs(listed(place, THREE), output=place / "out", model=Toy())


def test_a_bug_in_one_pair_is_reported_with_its_traceback(place, monkeypatch):
    real = api.detect

    def sometimes(before, after, *, output, **options):
        if output.name == "one":
            raise ZeroDivisionError("oh")
        return real(before, after, output=output, **options)

    monkeypatch.setattr(api, "detect", sometimes)
    summary = detect_pairs(listed(place, THREE), output=place / "out", model=Toy())
    assert summary.pairs[0].reason.startswith("this is a bug in wasnow: ZeroDivisionError: oh")
    assert summary.pairs[2].state == "done"
    assert "Traceback" in (place / "out/.wasnow/pairs.jsonl").read_text()


def test_a_problem_with_the_model_of_all_pairs_is_reported_once_before_any_work(place):
    with pytest.raises(UnknownModel, match="irmad"):
        detect_pairs(listed(place, THREE), output=place / "out", model="irmat")
    assert not (place / "out/one").exists()


def test_a_locked_folder_and_the_folder_of_a_single_pair_are_refused(place):
    table = listed(place, THREE)
    wasnow.detect(place / "before.tif", place / "after.tif", output=place / "single", model=Toy())
    with pytest.raises(OutputError, match="result folder of one pair"):
        detect_pairs(table, output=place / "single", model=Toy())
    with workspace(place / "out"), pytest.raises(OutputLocked):
        detect_pairs(table, output=place / "out", model=Toy())


def test_a_damaged_journal_loses_no_result(place):
    table = listed(place, THREE)
    detect_pairs(table, output=place / "out", model=Toy())
    journal = place / "out/.wasnow/pairs.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20] + b"\n\xff{]\n[1]\n" + b'{"name": 3')
    summary = detect_pairs(table, output=place / "out", model=Toy())
    assert [each.state for each in summary.pairs] == ["done", "failed", "done"]


def test_the_summary_can_be_read_at_any_time(place):
    seen, ended = [], threading.Event()

    def read():
        while not ended.is_set():
            if (place / "out/summary.json").exists():
                seen.append(len(json.loads((place / "out/summary.json").read_text())["pairs"]))

    reader = threading.Thread(target=read)
    reader.start()
    detect_pairs(listed(place, THREE), output=place / "out", model=Toy())
    ended.set()
    reader.join()
    assert set(seen) == {3}


# --- reading a list ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "before,after,name\nbefore.tif,after.tif,one\n",
        "\ufeffbefore,after,name\r\nbefore.tif,after.tif,one\r\n",
        "before;after;name\nbefore.tif;after.tif;one\n",
        "Before\tAFTER\t name \nbefore.tif\tafter.tif\tone\n\n",
        '"before","after","name"\n"before.tif","after.tif","one"',
    ],
    ids=["plain", "BOM and CRLF", "semicolons", "tabs, capitals, blank line", "quotes"],
)
def test_a_list_is_read_in_every_dialect_of_spreadsheets(place, text):
    (row,) = read_pairs(listed(place, text))
    assert (row.row, row.name, row.before) == (2, "one", str(place / "before.tif"))


def test_cells_become_option_values(place):
    text = (
        "before,after,threshold,bands,landcover,min_area,--connectivity,align,masks,date-before,classes\n"
        'before.tif,after.tif,"0.5; building=0.7","3,2,1",yes,12.5,8,after.tif,a.tif;b.tif,2009,"road, water"\n'
    )
    (row,) = read_pairs(listed(place, text))
    assert row.options == {
        "threshold": 0.5,
        "class_thresholds": {"building": 0.7},
        "bands": (3, 2, 1),
        "landcover": True,
        "min_area": 12.5,
        "connectivity": 8,
        "align": str(place / "after.tif"),
        "masks": ("a.tif", "b.tif"),
        "date_before": "2009",
    }
    assert row.classes == "road, water"


@pytest.mark.parametrize("address", ["https://a.example/x.tif", "/vsizip/a.zip/x.tif", "s3://b/x.tif", "GTIFF_DIR:1:x"])
def test_urls_and_gdal_names_are_not_resolved(place, address):
    (row,) = read_pairs(listed(place, f"before,after\n{address},after.tif\n"))
    assert row.before == address


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is empty"),
        (b"before,after\n", "contains no pair"),
        (b"before,name\na,b\n", "no column after"),
        (b"before,after,min-aera\na,b,3\n", "did you mean 'min-area'"),
        (b"before,after,before\na,b,c\n", "is repeated"),
        (b"before,after,workers\na,b,3\n", "pass --workers to the command"),
        (b"before,after\na,b,c\n", "row 2 has 3 cells, the header 2"),
        (b"before,after\n,b\n", "row 2: no before"),
        (b"before,after\na,b\n\n,\nc\n", "row 5: no after"),
        ("before,after\nä,b\n".encode("utf-16"), "UTF-16"),
        ("before,after\nä,b\n".encode("latin-1"), "line 2 is not UTF-8"),
        (b"before,after\na\0,b\n", "NUL"),
        (b'before,after\n"a,b\n', "check its quotes"),
        (b"before,after\n" + b"x" * 200_000 + b",b\n", "field limit"),
        (b"before,after,min-area\na,b,much\n", "row 2: min-area must be a number from 0, not 'much'"),
        (b"before,after,connectivity\na,b,5\n", "row 2: connectivity must be 4 or 8"),
        (b"before,after,landcover\na,b,maybe\n", "landcover must be yes or no"),
        (b'before,after,classes\na,b,"road, Road"\n', "is given twice"),
        (b'before,after,classes\na,b,"road\nway, x"\n', "control character"),
        (b"before,after\na,b\na,b\n", "row 3 repeats row 2"),
        (b"before,after,name\na,b,One\nc,d,one\n", "also the name of row 2"),
        (b"before,after,min-area\na,b,nan\n", "min-area must be a number"),
    ],
)
def test_an_invalid_list_is_refused_before_any_work(tmp_path, text, message):
    with pytest.raises(InputError) as caught:
        detect_pairs(listed(tmp_path, text), output=tmp_path / "out", model=Toy())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_all_faults_are_reported_with_their_rows(tmp_path):
    with pytest.raises(PairsError) as caught:
        read_pairs(listed(tmp_path, "before,after,name\na,,x\na,b,../y\na,b,z\nc,d,Z\n"))
    assert [fault.split(":")[0] for fault in caught.value.faults] == ["row 2", "row 3", "row 5"]


@pytest.mark.parametrize(
    "name",
    [
        *("..", ".", "../x", "x/..", "/etc", "a/b", "a\\b", "..\\x", "C:\\x", "C:x", " x", "x.", ".hidden", ".wasnow"),
        *("CON", "nul.txt", "com1", "a\tb", "a\x00b", "a\x7fb", "a\u202eb", "a\u200bb", "x" * 121, "ä" * 61, "a*b"),
        *("summary.csv", "Index.HTML", "a|b", "\ud800"),
    ],
)
def test_a_name_that_is_not_a_plain_folder_name_is_refused(name):
    assert folder_name_fault(name, OWN_FILES) is not None
    with pytest.raises(PairsError, match="row 1"):
        read_pairs([{"before": "a", "after": "b", "name": name}])


@given(st.lists(st.tuples(st.text(max_size=30), st.text(max_size=30)), min_size=1, max_size=8))
def test_derived_names_are_valid_and_unique(files):
    rows = [{"before": a, "after": b} for a, b in dict.fromkeys(files)]
    try:
        found = read_pairs(rows)
    except PairsError:
        return
    names = [row.name for row in found]
    assert all(folder_name_fault(name, OWN_FILES) is None for name in names)
    assert len({folded(name) for name in names}) == len(names)


def test_a_derived_name_does_not_change_when_rows_are_inserted_before_it(tmp_path):
    one = [{"before": "a/x.tif", "after": "a/y.tif"}, {"before": "b/x.tif", "after": "b/y.tif"}]
    more = [{"before": "p.tif", "after": "q.tif"}, *one]
    assert [row.name for row in read_pairs(one)] == [row.name for row in read_pairs(more)][1:]


def test_a_link_in_place_of_a_result_folder_is_refused(place):
    (place / "out").mkdir()
    (place / "elsewhere").mkdir()
    (place / "out/one").symlink_to(place / "elsewhere")
    with pytest.raises(OutputError, match="is a link to another folder"):
        detect_pairs(listed(place, THREE), output=place / "out", model=Toy())


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(st.binary(max_size=200), st.text(alphabet='before,aftname\n";=\\/.x\0 \r', max_size=80).map(str.encode))
)
def test_any_file_is_read_or_refused(tmp_path, data):
    for text in (data, b"before,after,name,threshold\n" + data):
        try:
            rows = read_pairs(listed(tmp_path, text))
        except InputError:
            continue
        assert all(folder_name_fault(row.name, OWN_FILES) is None for row in rows)


# --- the summary ------------------------------------------------------------------------------------------------

HOSTILE = [
    "=cmd|' /C calc'!A0",
    "+1",
    "-1",
    "@SUM(A1)",
    "＝1",
    " =1",
    "\t=1",
    "\r=1",
    '"><script>alert(1)</script>',
    "a\nb,c",
    "x' onclick='y",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_cell_is_a_formula_and_no_text_is_markup(text):
    outcome = PairOutcome(2, text, text, text, state="done", reason=text, changed_px=-1)
    (row,) = csv.DictReader(as_csv([outcome]).splitlines())
    for name in ("name", "reason", "before", "after"):
        assert not row[name].startswith(("=", "+", "-", "@", "\t", "\r", "＝"))
    assert row["changed_px"] == "-1"
    page = as_page([outcome])

    class Page(html.parser.HTMLParser):
        tags: set[str] = set()  # noqa: RUF012
        links: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag, attrs):
            assert not {name for name, _ in attrs} & {"onclick", "src"}
            self.tags.add(tag)
            self.links += [value for name, value in attrs if name == "href"]

    parser = Page()
    parser.feed(page)
    assert "script" not in parser.tags
    assert all(link.startswith("./") for link in parser.links)


# --- the command ------------------------------------------------------------------------------------------------


def command(*arguments):
    return CliRunner().invoke(app, ["detect", *map(str, arguments)])


def test_the_command_lists_failures_at_the_end_and_exits_with_7(place):
    table = listed(place, THREE)
    done = command("--pairs", table, "-o", place / "out", "--model", "cva")
    assert done.exit_code == 7, done.output
    assert "3 pairs: 2 done, 1 failed" in done.stdout
    assert done.stderr.splitlines()[-2].startswith("wasnow: pair two (row 3): ")
    assert "1 of 3 pairs failed; the same command tries them again" in done.stderr.splitlines()[-1]
    shutil.copy(place / "after.tif", place / "gone.tif")
    done = command("--pairs", table, "-o", place / "out", "--model", "cva", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["complete"] is True
    assert CliRunner().invoke(app, ["verify", str(place / "out")]).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["before.tif", "after.tif", "--pairs", "list.csv"], "both given"),
        (["before.tif"], "only before.tif is given"),
        ([], "no raster is given"),
        (["before.tif", "after.tif", "--fail-fast"], "--fail-fast is for a list"),
    ],
)
def test_an_incomplete_command_is_refused(tmp_path, arguments, message):
    done = command(*arguments, "-o", tmp_path / "out")
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_list_of_pairs_that_is_a_device_is_rejected_without_reading_it():
    with pytest.raises(InputError, match="not a regular file"):
        read_pairs("/dev/zero")
