"""Files that are not weights are recognised by their first bytes."""

import struct

import pytest

from wasnow.errors import CheckpointError
from wasnow.models import checkpoint
from wasnow.models.clip_weights import download, store
from wasnow.models.file_kind import other_content
from wasnow.models.published.convert import read_weights

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1710540580\n"
KINDS = {
    "Git LFS pointer": (POINTER, "git lfs pull"),
    "HTML page": (b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title>", "led to a web page"),
    "XML document": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "download"),
    "gzip archive": (b"\x1f\x8b\x08\x00" + bytes(60), "unpack"),
    "text instead": (b"weights moved to https://example.org\n", "download the file itself"),
    "empty file": (b"", "use another copy"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_file_that_is_not_weights_is_named_by_its_first_bytes(tmp_path, monkeypatch, kind, name):
    monkeypatch.setattr(store, "cache", lambda: tmp_path / "cache")
    content, advice = KINDS[kind]
    path = tmp_path / name
    path.write_bytes(content)
    for read in (checkpoint.load, checkpoint.read_header, read_weights, lambda path: download.get("mine", file=path)):
        with pytest.raises(CheckpointError, match=kind) as caught:
            read(path)
        assert advice in str(caught.value)
        assert "\n" not in str(caught.value)


def test_weights_are_not_mistaken_for_other_files(tmp_path):
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    for content in (struct.pack("<Q", len(header)) + header + bytes(4), b"PK\x03\x04" + bytes(20), b"\x80\x02}q\x00."):
        (tmp_path / "w").write_bytes(content)
        assert other_content(tmp_path / "w") is None
