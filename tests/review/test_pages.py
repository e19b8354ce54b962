"""Both pages as a person uses them, and what the server refuses."""

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from review.conftest import serving, wait_for
from wasnow.areas.labels import read_labels
from wasnow.areas.sample import draw_sample
from wasnow.output.change_map import ChangeMap
from wasnow.review.polygons import ReviewedPolygons


def ask(address, path, *, token=True, headers=None, body=None):
    base, _, secret = address.partition("/?token=")
    request = urllib.request.Request(
        base + path, headers={**({"x-wasnow-token": secret} if token else {}), **(headers or {})}
    )
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("content-type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.fixture
def server(place):
    with serving("review", str(place / "out")) as (address, process):
        yield address, process, place


def test_requests_without_token_with_a_foreign_host_or_origin_are_refused(server):
    address, _, place = server
    fid = ReviewedPolygons(place / "out").all()[0].fid
    decision = {"fid": fid, "status": "accepted", "reviewer": "Eve"}
    assert ask(address, "/api/project")[0] == 200
    assert ask(address, "/api/project", token=False)[0] == 403
    assert ask(address, "/api/project", headers={"Host": "evil.example"})[0] == 403
    assert ask(address, "/api/decide", headers={"Origin": "http://evil.example"}, body=decision)[0] == 403
    assert ask(address, "/api/decide", token=False, body=decision)[0] == 403
    assert ReviewedPolygons(place / "out").get(fid).status == "open"
    assert ask(address, "/api/decide", body=decision)[0] == 200


@pytest.mark.parametrize(
    "path",
    ["/static/../project.py", "/static/%2e%2e/project.py", "/tiles/..%2f..%2fetc/0/0/0.png", "/static//etc/passwd"],
)
def test_paths_outside_the_static_files_are_refused(server, path):
    status, content = ask(server[0], path)
    assert status in (204, 403, 404)
    assert b"class ReviewProject" not in content


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"fid": 1, "status": "lovely", "reviewer": "Ann"}, "status 'lovely' is unknown"),
        ({"fid": 1, "status": "accepted", "reviewer": "  "}, "enter your name first"),
        ({"fid": 10**6, "status": "accepted", "reviewer": "Ann"}, "is not in"),
        ({"fid": 1, "status": "accepted", "reviewer": "Ann", "after": "lava"}, "class 'lava' is not a class"),
    ],
)
def test_an_invalid_decision_is_one_line(server, body, message):
    status, content = ask(server[0], "/api/decide", body=body)
    assert status == 400
    assert message in json.loads(content)["error"]


def test_a_second_server_on_the_folder_names_the_first(server):
    _, process, place = server
    command = [sys.executable, "-m", "wasnow", "review", str(place / "out"), "--no-browser"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 4
    assert f"process {process.pid}" in second.stderr
    assert "Traceback" not in second.stderr


def test_ctrl_c_ends_the_server_without_a_traceback(server):
    _, process, _ = server
    process.send_signal(signal.SIGINT)
    process.wait(timeout=20)
    assert "Traceback" not in process.stderr.read()


def test_a_reviewer_decides_by_keys_reloads_and_goes_on_after_a_kill(place, browser):
    from playwright.sync_api import expect

    folder = place / "out"
    total = len(ReviewedPolygons(folder).all())
    with serving("review", str(folder)) as (address, process):
        page = browser.new_page()
        faults = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(address)
        page.wait_for_selector("body[data-ready=yes]", timeout=60_000)
        page.fill("#reviewer", "Ann <b>bold</b>")
        page.click("#title")
        page.keyboard.press("a")
        page.keyboard.press("r")
        expect(page.locator("#counts")).to_contain_text(f"2 of {total}: 1 accepted, 1 rejected", timeout=20_000)
        page.keyboard.press("z")
        expect(page.locator("#counts")).to_contain_text("1 accepted, 0 rejected", timeout=20_000)
        page.reload()
        page.wait_for_selector("body[data-ready=yes]", timeout=60_000)
        expect(page.locator("#counts")).to_contain_text(f"1 of {total}")
        process.kill()
        process.wait()
        page.keyboard.press("a")
        expect(page.locator("#message")).to_contain_text("The server does not answer", timeout=20_000)
        page.close()
        assert faults == []
    accepted = [row for row in ReviewedPolygons(folder).all() if row.status == "accepted"]
    assert [row.reviewer for row in accepted] == ["Ann <b>bold</b>"]
    with serving("review", str(folder)) as (address, _):
        status, content = ask(address, "/api/project")
        assert status == 200
        assert json.loads(content)["progress"]["counts"]["accepted"] == 1


def test_hostile_reasons_are_shown_as_text(place, browser):
    folder = place / "out"
    polygons = ReviewedPolygons(folder)
    for row in polygons.all():
        polygons.decide(
            row.fid, reviewer="<img src=x onerror=alert(1)>", status="rejected", reason="<script>x</script>"
        )
    with serving("review", str(folder)) as (address, _):
        page = browser.new_page()
        dialogs = []
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        page.goto(address)
        page.wait_for_selector("body[data-ready=yes]", timeout=60_000)
        page.select_option("#status", "rejected")
        page.wait_for_selector("#list li")
        page.click("#list li")
        assert "<script>x</script>" in page.inner_text("#facts")
        page.close()
        assert dialogs == []


@pytest.fixture
def sample(place):
    return draw_sample(ChangeMap.open(place / "out"), place / "sample", points=40, floor=2).folder


def test_the_labelling_page_never_receives_strata_or_map_classes(sample):
    with serving("label", str(sample)) as (address, _):
        seen = ask(address, "/api/project")[1] + ask(address, "/api/point/1")[1]
    facts = json.loads(seen.partition(b'{"id"')[0])
    assert set(facts) == {
        "title", "dates", "classes", "confidences", "skips", "bounds", "zoom", "images", "problems", "ids", "done",
    }  # fmt: skip
    assert b"stratum" not in seen
    assert b"map_" not in seen


def test_an_interpreter_labels_by_keys_and_the_next_start_goes_on(sample, browser):
    from playwright.sync_api import expect

    with serving("label", str(sample)) as (address, process):
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector("body[data-ready=yes]", timeout=60_000)
        page.fill("#interpreter", "Ann")
        page.click("#title")
        for key in ("1", "2", "Enter"):
            page.keyboard.press(key)
        expect(page.locator("#counts")).to_contain_text("1 of 40", timeout=20_000)
        page.keyboard.press("s")
        expect(page.locator("#counts")).to_contain_text("2 of 40", timeout=20_000)
        page.close()
        process.kill()
        process.wait()
    first, second = read_labels(sample / "labels.csv")
    assert (first.before, first.after, first.interpreter) == ("water", "building", "Ann")
    assert second.skip_reason == "cloud or shadow"
    with serving("label", str(sample)) as (address, _):
        wait_for(address)
        assert json.loads(ask(address, "/api/project")[1])["done"] == [1, 2]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"id": 999, "before": "water", "after": "water"}, "point 999 is not part of this sample"),
        ({"id": 1, "before": "lava", "after": "water"}, "class 'lava' is unknown"),
        ({"id": 1, "before": "water"}, "give a class at both dates"),
    ],
)
def test_an_invalid_label_is_one_line_and_not_saved(sample, body, message):
    with serving("label", str(sample)) as (address, _):
        status, content = ask(address, "/api/label", body={"interpreter": "Ann", "seconds": 1.0, **body})
    assert status == 400
    assert message in json.loads(content)["error"]
    assert read_labels(sample / "labels.csv") == []
