"""The preview page: self-contained, with images, labels and their shares."""

import base64
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.io import MemoryFile

from data.fakes import binary, save, second
from wasnow.data.dataset import open_dataset
from wasnow.data.preview import label_png, percent, shrunk, spread, write_preview
from wasnow.vocabulary import NO_CHANGE_COLOR, NO_LABEL, Vocabulary


def test_the_page_shows_pairs_and_labels_with_their_shares(tmp_path: Path) -> None:
    made = second(tmp_path / "d", count=3)
    dataset = open_dataset(tmp_path / "d")
    text = write_preview(dataset, tmp_path / "page.html", shown=4).read_text()
    assert len(re.findall(r'<img (?:class="label" )?src="data:image/', text)) == 4 * 4
    for word in dataset.vocabulary.words:
        assert word in text
    share = np.mean([truth.change.mean() for truth in made["train"]])
    assert percent(float(share)) in text
    assert "second-e1 assumed" in text


def test_the_page_loads_nothing_and_escapes_names(tmp_path: Path) -> None:
    binary(tmp_path / "<b>set</b>", names=("one", "<i>two"))
    text = write_preview(open_dataset(tmp_path / "<b>set</b>"), tmp_path / "page.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "<script" not in text
    assert "default-src 'none'" in text
    assert "<i>two" not in text
    assert "<b>set" not in text


def test_faulty_pairs_are_listed_and_the_others_shown(tmp_path: Path) -> None:
    binary(tmp_path / "d")
    save(tmp_path / "d" / "B" / "two.png", np.zeros((5, 5, 3), np.uint8))
    dataset = open_dataset(tmp_path / "d", strict=False)
    text = write_preview(dataset, tmp_path / "page.html").read_text()
    assert "One fault" in text
    assert "two.png" in text
    assert "all / three" in text


def test_label_images_have_the_colours_of_the_legend() -> None:
    vocabulary = Vocabulary(("water", "road"))
    with (
        MemoryFile(label_png(np.array([[0, 1, 2, NO_LABEL]], np.uint8), vocabulary)) as memory,
        memory.open() as raster,
    ):
        colors = [raster.colormap(1)[int(index)][:3] for index in raster.read(1)[0]]
    assert colors[:3] == [NO_CHANGE_COLOR, vocabulary.color(1), vocabulary.color(2)]
    assert colors[3] not in colors[:3]


@given(st.integers(0, 1000), st.integers(1, 400))
def test_an_even_spread_has_the_requested_number_or_all(count: int, most: int) -> None:
    picked = spread(count, most)
    assert len(picked) == min(count, most)
    assert all(0 <= index < count for index in picked)
    gaps = np.diff(picked)
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 1


@given(st.integers(1, 90), st.integers(1, 90))
def test_downsampling_keeps_a_constant_image_constant(height: int, width: int) -> None:
    flat = np.full((height, width, 3), 77, np.uint8)
    small = shrunk(flat, 16)
    assert max(small.shape[:2]) <= max(16, 1)
    assert (small == 77).all()


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0 %"), (0.0001, "< 0.1 %"), (0.034, "3.4 %"), (0.5, "50 %"), (float("nan"), "–")]
)
def test_shares_are_formatted_as_per_cent(share: float, text: str) -> None:
    assert percent(share) == text


def test_photographs_are_jpeg_and_labels_png(tmp_path: Path) -> None:
    binary(tmp_path / "d", names=("one",))
    text = write_preview(open_dataset(tmp_path / "d"), tmp_path / "page.html").read_text()
    kinds = [base64.b64decode(code)[:4] for code in re.findall(r"base64,([A-Za-z0-9+/=]+)", text)]
    assert [kind.startswith(b"\xff\xd8") for kind in kinds] == [True, True, False]
