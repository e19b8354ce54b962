"""The journal keeps finished blocks, survives torn lines and lost files, and allows one writer."""

import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from filelock import Timeout

from wasnow.errors import OutputError, OutputLocked, ResumeRefused
from wasnow.storage import lock
from wasnow.storage.atomic import write_atomically
from wasnow.storage.journal import BlockRecord, current_writer, differences, finished_blocks, workspace


def record(block: int, outcome: str = "done") -> BlockRecord:
    return BlockRecord(block=block, row=0, col=0, height=2, width=3, outcome=outcome, seconds=0.1)


def codes(value: int) -> dict[str, np.ndarray]:
    return {"codes": np.full((3, 2, 3), value, np.uint8)}


def filled(output, blocks=3):
    with workspace(output) as space:
        space.begin({"tile": 512})
        space.prepare()
        for block in range(blocks):
            space.add(record(block), codes(block))
    return output


def reopened(output, check):
    with workspace(output) as space:
        assert space.begin({"tile": 512})
        space.prepare()
        return check(space)


def test_added_blocks_exist_after_reopening(tmp_path):
    filled(tmp_path)
    arrays = reopened(tmp_path, lambda space: [space.load(block) for block in sorted(space.done)])
    assert [int(each["codes"][0, 0, 0]) for each in arrays] == [0, 1, 2]


@pytest.mark.parametrize("cut", [1, 5, 30, 80])
def test_a_torn_last_line_loses_only_its_own_block(tmp_path, cut):
    path = filled(tmp_path) / ".wasnow" / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])

    def check(space):
        assert sorted(space.done) == [0, 1] if cut > 1 else [0, 1, 2]
        space.add(record(2), codes(2))

    reopened(tmp_path, check)
    assert reopened(tmp_path, lambda space: sorted(space.done)) == [0, 1, 2]


def test_a_lost_or_changed_block_file_is_computed_again(tmp_path):
    blocks = filled(tmp_path) / ".wasnow" / "blocks"
    (blocks / "000000.npz").unlink()
    data = bytearray((blocks / "000001.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (blocks / "000001.npz").write_bytes(data)
    assert reopened(tmp_path, lambda space: sorted(space.done)) == [2]


def test_a_block_that_changes_while_the_workspace_is_open_is_not_used(tmp_path):
    filled(tmp_path)

    def check(space):
        (tmp_path / ".wasnow" / "blocks" / "000002.npz").write_bytes(b"something else")
        with pytest.raises(OutputError, match="was changed"):
            space.load(2)

    reopened(tmp_path, check)


def test_a_block_without_pixels_needs_no_file(tmp_path):
    with workspace(tmp_path) as space:
        space.begin({"tile": 512})
        space.prepare()
        space.add(record(0, "empty"), {})
    assert reopened(tmp_path, lambda space: space.load(0)) is None


def test_another_plan_is_refused_with_every_difference_named(tmp_path):
    with workspace(tmp_path) as space:
        space.begin({"tile": 512, "before": {"a.tif": "aa"}, "model": "irmad"})
    with workspace(tmp_path) as space, pytest.raises(ResumeRefused) as caught:
        space.begin({"tile": 256, "before": {"a.tif": "bb"}, "model": "irmad"})
    message = str(caught.value)
    assert "tile was 512, is now 256" in message
    assert "before a.tif was aa, is now bb" in message
    assert "model" not in message
    assert "--overwrite" in message


def test_differences_include_added_and_removed_values():
    assert differences({"a": 1}, {"b": 2}) == ["a was 1, is now null", "b was null, is now 2"]


def test_floats_are_stored_bit_for_bit(tmp_path):
    values = np.random.default_rng(0).standard_normal(100) * 1e-7
    with workspace(tmp_path) as space:
        space.remember("survey", {"values": values.tolist()})
        np.testing.assert_array_equal(space.recall("survey")["values"], values)


def test_a_damaged_value_counts_as_missing(tmp_path):
    with workspace(tmp_path) as space:
        space.remember("survey", {"values": [1]})
        (space.folder / "survey.json").write_text('{"values": [1')
        assert space.recall("survey") is None


def test_a_second_writer_is_refused_with_the_name_of_the_first(tmp_path):
    code = (
        "import sys; from pathlib import Path; from wasnow.storage.journal import workspace\n"
        "with workspace(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "in\n"
        with pytest.raises(OutputLocked, match=f"process {other.pid} on "), workspace(tmp_path):
            pass
        other.kill()
        other.wait()
    with workspace(tmp_path) as space:
        assert json.loads((space.folder / "holder.json").read_text())["pid"] != other.pid


def test_a_lock_that_outlives_its_holder_is_reported_as_such(tmp_path, monkeypatch):
    """A child process of the holder, or a network disk, may keep the lock."""
    left_by(tmp_path, socket.gethostname(), pid=2**22 + 1)

    def held(self, **options):
        raise Timeout("lock")

    monkeypatch.setattr(lock.FileLock, "acquire", held)
    with pytest.raises(OutputLocked, match=r"process 4194305 on .* which has ended.*fuser"), workspace(tmp_path):
        pass


def left_by(output, host, pid=4242, age_s=0.0):
    """Create the files that a killed run on another machine leaves."""
    with workspace(output):
        pass
    path = output / ".wasnow" / "holder.json"
    path.write_text(json.dumps({"pid": pid, "host": host, "since": "2026-01-01T00:00:00+00:00"}))
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


def test_a_dead_holder_on_this_machine_does_not_block_the_folder(tmp_path):
    left_by(tmp_path, socket.gethostname(), pid=2**22 + 1)
    started = time.monotonic()
    with workspace(tmp_path) as space:
        assert json.loads((space.folder / "holder.json").read_text())["pid"] == os.getpid()
    assert time.monotonic() - started < 5


def test_a_running_holder_on_another_machine_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "WATCH_S", 30.0)
    path = left_by(tmp_path, "node7")
    over = threading.Event()

    def sign():
        while not over.wait(0.1):
            os.utime(path)

    signing = threading.Thread(target=sign)
    signing.start()
    try:
        with pytest.raises(OutputLocked, match=r"process 4242 on node7 since .* stop it there"), workspace(tmp_path):
            pass
    finally:
        over.set()
        signing.join()


@pytest.mark.parametrize("age_s", [0.0, 1e4])
def test_a_holder_on_another_machine_without_heartbeat_counts_as_dead(tmp_path, monkeypatch, age_s):
    monkeypatch.setattr(lock, "WATCH_S", 0.3 if age_s == 0 else 1e6)
    left_by(tmp_path, "node7", age_s=age_s)
    with workspace(tmp_path) as space:
        assert json.loads((space.folder / "holder.json").read_text())["pid"] == os.getpid()


def test_a_writer_has_a_heartbeat_while_it_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT_S", 0.02)
    with workspace(tmp_path) as space:
        path = space.folder / "holder.json"
        first = path.stat().st_mtime_ns
        until = time.monotonic() + 10
        while path.stat().st_mtime_ns == first and time.monotonic() < until:
            time.sleep(0.02)
        assert path.stat().st_mtime_ns > first
        assert str(current_writer(tmp_path)).startswith(f"process {os.getpid()} on ")
    assert not path.exists()
    assert current_writer(tmp_path) is None


def test_a_disk_without_locks_is_refused(tmp_path, monkeypatch):
    def no_locks(self, **options):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.FileLock, "acquire", no_locks)
    with pytest.raises(OutputError, match="has no locks"), workspace(tmp_path):
        pass


def test_the_progress_of_a_run_can_be_read_by_other_processes(tmp_path):
    filled(tmp_path, blocks=3)
    assert finished_blocks(tmp_path) == (3, None)
    with workspace(tmp_path) as space:
        space.begin({"tile": 512})
        space.expect(7)
    with (tmp_path / ".wasnow" / "journal.jsonl").open("ab") as file:
        file.write(b'{"crc": 1, "rec')
    assert finished_blocks(tmp_path) == (3, 7)
    with workspace(tmp_path) as space:
        space.clear()
    assert finished_blocks(tmp_path) == (0, None)


def test_a_file_instead_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(OutputError, match="is a file"), workspace(tmp_path / "out"):
        pass


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    target = tmp_path / "x.json"
    target.write_bytes(b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="no space left"):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
