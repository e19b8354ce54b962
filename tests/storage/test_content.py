"""Files described by their first bytes, and paths that are not regular files."""

import os

import pytest

from wasnow.storage.content import describe_content, read_head, special_file

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (LFS, "Git LFS pointer"),
        (b"\n<!DOCTYPE html><html><body>Please log in", "HTML page"),
        (b"<?xml version='1.0'?>\n<Error><Code>AccessDenied</Code>", "error message of an object store"),
        (b"PK\x03\x04rest", "zip archive"),
        (b"\x1f\x8brest", "gzip archive"),
    ],
)
def test_a_file_is_described_by_its_first_bytes(head, kind):
    found = describe_content(head)
    assert found is not None
    assert kind in found[0]
    assert found[1]


@pytest.mark.parametrize("head", [b"", b"II*\0", b"\x89PNG\r\n", b"some text about html"])
def test_other_content_is_not_described(head):
    assert describe_content(head) is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes need POSIX")
def test_pipes_and_devices_are_special_and_never_read(tmp_path):
    pipe = tmp_path / "pipe.tif"
    os.mkfifo(pipe)
    assert special_file(pipe) == "a named pipe"
    assert read_head(pipe) == b""
    assert special_file("/dev/zero") == "a device"
    assert special_file("/proc/self/mem") == "a file of /proc"


def test_regular_files_folders_and_missing_paths_are_not_special(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    assert [special_file(path) for path in (tmp_path / "a", tmp_path, tmp_path / "missing")] == [None, None, None]
