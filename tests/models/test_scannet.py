"""SCanNet's attention against plain loops over stripes. What all networks promise is in ``tests/contract``."""

import math

import pytest
import torch
from torch.nn import functional

from wasnow.models.scannet import Block, Columns, Rows, Scan, SCanNet
from wasnow.models.ted import TED

SIZES = [(5, 7), (1, 4), (6, 1), (4, 4)]


def seen(query, key, value, place, heads):
    """One stripe ``(C, n)`` by itself, as the published code cuts it: attention by head, and a padded 3x3 over it."""
    found = []
    for q, k, v in zip(*(each.chunk(heads) for each in (query, key, value)), strict=True):
        scores = torch.softmax(q.T @ k / math.sqrt(len(q)), dim=-1)
        found.append(v @ scores.T)
    strip = functional.conv2d(value[None, :, :, None], place.weight, place.bias, padding=1, groups=len(value))
    return torch.cat(found) + strip[0, :, :, 0]


@torch.inference_mode()
@pytest.mark.parametrize("size", SIZES)
def test_columns_attend_only_to_themselves(size):
    torch.manual_seed(0)
    columns = Columns(8, 2)
    query, key, value = torch.randn(3, 2, 8, *size)
    answer = columns(query, key, value)
    for i in range(2):
        for col in range(size[1]):
            alone = seen(query[i, :, :, col], key[i, :, :, col], value[i, :, :, col], columns.place, 2)
            assert torch.allclose(answer[i, :, :, col], alone, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("size", SIZES)
def test_rows_are_the_columns_of_the_turned_map(size):
    torch.manual_seed(0)
    rows, columns = Rows(8, 2), Columns(8, 2)
    columns.place.weight.copy_(rows.place.weight.mT)
    columns.place.bias.copy_(rows.place.bias)
    query, key, value = torch.randn(3, 2, 8, *size)
    assert torch.allclose(rows(query, key, value), columns(query.mT, key.mT, value.mT).mT, atol=1e-5)


def reach(module, size, place):
    """Which places feel a nudge at one: ``(h, w)`` bool."""
    x = torch.randn(1, *size, 16, dtype=torch.float64)
    nudged = x.clone()
    nudged[0, *place, 3] += 1
    return (module(nudged) - module(x)).abs().amax((0, 3)) > 1e-9


@torch.inference_mode()
def test_one_block_covers_a_row_and_a_column_and_two_cover_everything():
    torch.manual_seed(0)
    first, second = (Block(16, 4).double() for _ in range(2))
    cross = torch.zeros(5, 6, dtype=torch.bool)
    cross[2], cross[:, 3] = True, True
    assert torch.equal(reach(first, (5, 6), (2, 3)), cross)
    assert reach(torch.nn.Sequential(first, second), (5, 6), (2, 3)).all()


def test_it_is_ted_with_two_blocks_between():
    norm, width = 2 * 384, 384
    half = 192 * 9 + 192
    block = 2 * norm + 3 * width * (width + 1) + width * (width + 1) + 2 * half
    block += 4 * width * (width + 1) + width * (4 * width + 1)
    scan = width * (width + 1) + norm + 2 * block + norm
    assert sum(each.numel() for each in Scan().parameters()) == scan
    assert SCanNet().card.parameters == TED().card.parameters + scan


@torch.inference_mode()
def test_no_parameter_depends_on_the_image_size():
    torch.manual_seed(0)
    scan = Scan().eval()
    for size in ((3, 9), (16, 16)):
        x = torch.randn(1, 384, *size)
        assert scan(x).shape == x.shape
