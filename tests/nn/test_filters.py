"""The bi-temporal filter: its equations written out, its size, and other grids than its own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wasnow.nn.filters import BiTemporalFilter, spread


def awake(width=6, grid=(3, 4), start="published"):
    torch.manual_seed(0)
    made = BiTemporalFilter(width, grid, start=start).double()
    with torch.no_grad():
        for each in made.parameters():
            each.copy_(torch.randn_like(each) * 0.3)
    return made


def test_it_is_the_published_equations_written_out():
    made, (rows, cols) = awake(), (3, 4)
    x1, x2 = torch.randn(2, 2, rows * cols, 6, dtype=torch.float64)
    y1, y2 = made(x1, x2, (rows, cols))
    for b in range(2):
        s = torch.stack([(made.place.weight[0] * torch.cat([x1[b, n], x2[b, n]])).sum().sigmoid() for n in range(12)])
        for t, (x, y) in enumerate(((x1[b], y1[b]), (x2[b], y2[b]))):
            u = made.gate_weight[t].flatten(1)
            gate = torch.stack(
                [
                    ((u[0] * x1[b, :, d]).sum() + (u[1] * x2[b, :, d]).sum() + made.gate_bias[t]).sigmoid()
                    for d in range(6)
                ]
            )
            for n in range(12):
                expected = x[n] + made.of_places(x[n] * s[n]) + made.of_channels(x[n] * gate)
                assert torch.allclose(y[n], expected, atol=1e-12)


def test_it_has_4_20_million_parameters_at_the_width_of_vit_l():
    made = BiTemporalFilter(1024, (16, 16))
    assert sum(each.numel() for each in made.parameters()) == 4 * (1024**2 + 1024) + 2 * 1024 + 2 * (2 * 256 + 1)
    assert sum(each.numel() for each in made.parameters()) == pytest.approx(4.20e6, rel=0.002)


def test_it_begins_as_if_it_were_not_there():
    made = BiTemporalFilter(8, (2, 2))
    x1, x2 = torch.randn(2, 1, 4, 8)
    for y, x in zip(made(x1, x2, (2, 2)), (x1, x2), strict=True):
        assert torch.equal(y, x)


def test_the_published_start_opens_every_gate_to_the_full():
    made = BiTemporalFilter(8, (8, 8), start="published")
    assert (made.gate_weight == 1).all()
    gate = torch.einsum("tin,ind->td", made.gate_weight.flatten(2), torch.ones(2, 64, 8)).sigmoid()
    assert (gate == 1).all()


def test_both_dates_weigh_alike_at_the_start():
    made = BiTemporalFilter(8, (2, 2))
    assert (made.place.weight == 1 / 16).all()
    assert (made.gate_weight == 1 / 8).all()


SIDES = st.integers(1, 9)


@given(SIDES, SIDES, SIDES, SIDES)
@settings(max_examples=60, deadline=None)
def test_weights_keep_their_sum_on_any_grid(h, w, rows, cols):
    weights = torch.rand(2, h, w, dtype=torch.float64)
    other = spread(weights, rows, cols)
    assert other.shape == (2, rows, cols)
    assert (other >= 0).all()
    assert torch.allclose(other.sum((1, 2)), weights.sum((1, 2)))


def test_weights_on_their_own_grid_are_themselves():
    weights = torch.rand(2, 3, 5)
    assert spread(weights, 3, 5) is weights


def test_an_image_twice_as_fine_opens_the_same_gates():
    """Every token repeated four times says the same as before, and so do the gates."""
    made = awake(grid=(3, 4))
    x1, x2 = torch.randn(2, 1, 3, 4, 6, dtype=torch.float64)
    coarse = made(x1.flatten(1, 2), x2.flatten(1, 2), (3, 4))
    fine = [each.repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1, 2) for each in (x1, x2)]
    for y, z in zip(made(*fine, (6, 8)), coarse, strict=True):
        assert torch.allclose(y.unflatten(1, (6, 8))[:, ::2, ::2].flatten(1, 2), z, atol=1e-12)
