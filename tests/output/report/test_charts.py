"""Curves and matrices as SVG: where points lie, what is shaded, and that words are escaped."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from training.tiny import WORDS
from wasnow.output.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Series, curves, matrix
from wasnow.output.report.codes import dates_png, palette
from wasnow.vocabulary import NO_CHANGE_COLOR, Vocabulary


def drawn(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(f"<div>{text}</div>")


def path_of(text: str) -> list[tuple[float, float]]:
    path = next(one for one in drawn(text).iter("path") if one.get("class") == "curve")
    numbers = [float(n) for n in re.findall(r"[-\d.]+", path.get("d", ""))]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def test_a_curve_spans_the_frame_from_its_lowest_to_its_highest_value():
    points = path_of(curves([Series("loss", [0, 5, 10], [4.0, 1.0, 2.5])]))
    assert points == [(LEFT, TOP), ((LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM), (WIDTH - RIGHT, pytest.approx(111))]


def test_on_a_logarithmic_axis_equal_factors_are_equal_steps():
    points = path_of(curves([Series("loss", [0, 1, 2], [100.0, 10.0, 1.0])], log=True))
    assert points[0][1] - points[1][1] == pytest.approx(points[1][1] - points[2][1], abs=0.2)


def test_what_is_not_a_number_is_left_out_and_a_long_curve_is_thinned():
    assert len(path_of(curves([Series("a", [0, 1, 2], [1.0, math.nan, 2.0])]))) == 2
    assert len(path_of(curves([Series("a", range(5000), np.linspace(0, 1, 5000).tolist())]))) == 600


def test_nothing_to_draw_says_so():
    assert "nothing to draw yet" in curves([])
    assert "nothing to draw yet" in curves([Series("a", [1], [math.nan])])


def test_a_curve_that_never_moves_is_drawn_all_the_same():
    assert all(TOP < y < HEIGHT - BOTTOM for _, y in path_of(curves([Series("a", [1, 2], [3.0, 3.0])])))


def test_a_cell_is_as_dark_as_its_share_of_the_label():
    counts = np.array([[6, 0, 1], [2, 5, 1], [0, 0, 2]])
    cells = [one.get("fill-opacity") for one in drawn(matrix(counts, ("none", "a", "b"))).iter("rect")]
    assert [float(one or 0) for one in cells] == [0.75, 0, 0.25, 0.25, 1, 0.25, 0, 0, 0.5]


def test_codes_that_occur_nowhere_are_left_out_of_a_matrix():
    counts = np.zeros((4, 4), np.int64)
    counts[0, 2] = 3
    assert len(list(drawn(matrix(counts, ("none", "a", "b", "c"))).iter("rect"))) == 4


def test_words_are_escaped():
    text = matrix(np.ones((2, 2), np.int64), ("none", "<b>&"))
    drawn(text)
    assert "<b>" not in text
    assert "<i>" not in curves([Series("<i>", [0, 1], [0, 1])]).replace('<i style="', "")


def test_sample_pictures_hold_both_dates_in_the_colours_of_the_legend():
    rasterio = pytest.importorskip("rasterio")
    codes = np.array([[0, 1], [3, 255]], np.uint8)
    png = dates_png(codes, codes.T, Vocabulary(WORDS))
    with rasterio.MemoryFile(png) as memory, memory.open() as raster:
        index = raster.read(1)
        colors = raster.colormap(1)
    assert index[:, :2].tolist() == codes.tolist()
    assert index[:, -2:].tolist() == codes.T.tolist()
    assert colors[0] == (*NO_CHANGE_COLOR, 255)
    assert colors[3] == (*Vocabulary(WORDS).color(3), 255)
    assert len(palette(Vocabulary(WORDS))) == 256
