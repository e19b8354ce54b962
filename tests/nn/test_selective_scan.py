"""The chunked scan against the sequential one, and both against closed forms."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wasnow.errors import UsageError
from wasnow.nn.selective_scan import FEWEST, SCANS, chunked, compiled, scan_named, sequential


def drawn(
    length: int, *, batch: int = 2, width: int = 3, states: int = 2, seed: int = 0, dtype=torch.float32, pace: float = 1
) -> list[Tensor]:
    """u, Δ, A, B, C; ``pace`` times Δ."""
    draw = torch.Generator().manual_seed(seed)
    normal = [torch.randn(batch, length, wide, generator=draw, dtype=dtype) for wide in (width, width, states, states)]
    rate = -torch.exp(torch.randn(width, states, generator=draw, dtype=dtype))
    return [normal[0], pace * torch.nn.functional.softplus(normal[1]), rate, normal[2], normal[3]]


def gap(one: Tensor, other: Tensor) -> float:
    """As a share of the largest number."""
    return float((one - other).detach().abs().max() / other.detach().abs().max())


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 400),
    states=st.integers(1, 3),
    batch=st.integers(1, 2),
    at_once=st.sampled_from([1, 600, 1 << 20]),
    pace=st.sampled_from([1e-4, 0.1, 1.0, 30.0]),
    reverse=st.booleans(),
)
def test_the_chunked_scan_equals_the_equations(length, states, batch, at_once, pace, reverse):
    told = drawn(length, batch=batch, states=states, pace=pace)
    assert gap(chunked(*told, reverse=reverse, at_once=at_once), sequential(*told, reverse=reverse)) < 1e-5


def test_a_long_memory_is_kept_over_many_segments():
    told = drawn(3000, batch=1, states=1, pace=1e-3)
    exact = sequential(*(each.double() for each in told))
    assert gap(chunked(*told, at_once=1).double(), exact) < 1e-5


@pytest.mark.parametrize("pace", [1e-30, 1e4, 1e30])
@pytest.mark.parametrize("scan", [sequential, chunked])
def test_no_decay_is_so_extreme_that_numbers_overflow(scan, pace):
    u, delta, rate, write, read = drawn(200, pace=pace)
    told = [(u / pace).requires_grad_(), delta.requires_grad_(), rate, write, read]
    answer = scan(*told)
    answer.sum().backward()
    assert torch.isfinite(answer).all()
    assert torch.isfinite(told[0].grad).all()
    if scan is chunked:
        assert gap(answer, sequential(*told)) < 1e-5


def test_fast_and_slow_channels_live_side_by_side():
    u, delta, _, write, read = drawn(500, width=4, states=1)
    rate = torch.tensor([[-1e-8], [-1.0], [-1e4], [0.0]])
    told = (u, delta, rate, write, read)
    exact = sequential(*(each.double() for each in told))
    answer = chunked(*told).double()
    for channel in range(4):
        assert gap(answer[..., channel], exact[..., channel]) < 1e-5


def test_a_scan_without_decay_is_a_running_sum():
    u, delta, _, write, read = drawn(333, states=1)
    answer = chunked(u, delta, torch.zeros(3, 1), write, read)
    assert gap(answer, (delta * u * write).cumsum(1) * read) < 1e-5


def test_one_impulse_dies_away_as_an_exponential():
    u = torch.zeros(1, 100, 1)
    u[0, 7] = 2.0
    delta, ones = torch.full((1, 100, 1), 0.25), torch.ones(1, 100, 1)
    answer = chunked(u, delta, torch.tensor([[-0.5]]), ones, ones)
    t = torch.arange(100)
    assert torch.allclose(answer[0, :, 0], torch.where(t < 7, 0, 0.5 * torch.exp(-0.125 * (t - 7.0))), atol=1e-6)


def test_reversed_is_the_reversed_sequence():
    told = drawn(150)
    u, delta, rate, write, read = told
    turned = chunked(u.flip(1), delta.flip(1), rate, write.flip(1), read.flip(1)).flip(1)
    assert torch.allclose(chunked(*told, reverse=True), turned, atol=1e-6)


@given(st.integers(0, 149))
@settings(max_examples=20, deadline=None)
def test_no_step_depends_on_later_ones(t):
    told = drawn(150)
    changed = [each.clone() for each in told]
    changed[0][:, t:] += 1.0
    assert torch.equal(chunked(*told, at_once=1)[:, :t], chunked(*changed, at_once=1)[:, :t])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 7, 2 * FEWEST + 5])
def test_gradients_are_those_of_the_equations(length, reverse):
    told = [each.requires_grad_() for each in drawn(length, dtype=torch.float64)]
    weights = torch.randn(2, length, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    wanted = torch.autograd.grad((sequential(*told, reverse=reverse) * weights).sum(), told)
    found = torch.autograd.grad((chunked(*told, reverse=reverse, at_once=1) * weights).sum(), told)
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_are_those_of_finite_differences(reverse):
    told = [each.requires_grad_() for each in drawn(FEWEST + 3, batch=1, width=2, dtype=torch.float64)]
    assert torch.autograd.gradcheck(
        lambda *each: chunked(*each, reverse=reverse, at_once=1), told, fast_mode=True, atol=1e-7
    )


def test_gradients_in_float32_are_close_to_exact_ones_over_long_memories():
    told = drawn(2000, batch=1, pace=0.01)
    exact = [each.double().requires_grad_() for each in told]
    rough = [each.requires_grad_() for each in told]
    wanted = torch.autograd.grad(chunked(*exact).square().sum(), exact)
    found = torch.autograd.grad(chunked(*rough).square().sum(), rough)
    for one, other in zip(found, wanted, strict=True):
        assert gap(one.double(), other) < 1e-4


def test_only_requested_inputs_get_a_gradient():
    u, delta, rate, write, read = drawn(20)
    chunked(u.requires_grad_(), delta, rate, write, read).sum().backward()
    assert u.grad is not None
    assert all(each.grad is None for each in (delta, rate, write, read))


def test_half_precision_inputs_use_float32_states():
    told = [each.bfloat16() for each in drawn(300)]
    exact = sequential(*(each.float() for each in told))
    with torch.autocast("cpu", torch.bfloat16):
        under = chunked(*told)
    for answer in (under, chunked(*told)):
        assert answer.dtype == torch.float32
        assert gap(answer, exact) < 1e-5
    told[0].requires_grad_()
    chunked(*told).sum().backward()
    assert told[0].grad.dtype == torch.bfloat16


def test_states_of_one_segment_exist_at_a_time(monkeypatch):
    """16 numbers of state a channel would make a tensor 16 times as large as the input."""
    from wasnow.nn import selective_scan

    largest = 0
    usual = selective_scan._run

    def watched(decay, *others, **options):
        nonlocal largest
        largest = max(largest, decay.numel())
        return usual(decay, *others, **options)

    monkeypatch.setattr(selective_scan, "_run", watched)
    told = drawn(4096, batch=1, width=4, states=16)
    u = told[0].requires_grad_()
    chunked(*told, at_once=1 << 14).sum().backward()
    assert u.grad is not None
    assert 0 < largest <= (1 << 14) + 4 * 16 * FEWEST < u.numel() * 16 / 8


def test_an_unknown_scan_is_rejected_with_a_suggestion():
    assert scan_named("chunked") is chunked
    with pytest.raises(UsageError, match="did you mean 'chunked'"):
        scan_named("chunkd")


def test_a_missing_kernel_is_reported_with_advice(monkeypatch):
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    with pytest.raises(UsageError, match="choose the scan 'chunked'"):
        scan_named("mamba_ssm")


@pytest.mark.parametrize("reverse", [False, True])
def test_the_kernel_of_mamba_ssm_gets_its_own_argument_order(monkeypatch, reverse):
    """The stand-in follows that package's own description: (B, D, L), (D, N) and (B, N, L)."""

    def selective_scan_fn(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
        batch, width, length = u.shape
        assert A.shape == (width, 2)
        assert B.shape == C.shape == (batch, 2, length)
        assert all(each.is_contiguous() for each in (u, delta, B, C))
        decay, entering = torch.exp(torch.einsum("bdl,dn->bdln", delta, A)), torch.einsum("bdl,bnl->bdln", delta * u, B)
        state, answers = torch.zeros(batch, width, 2), []
        for t in range(length):
            state = decay[:, :, t] * state + entering[:, :, t]
            answers.append(torch.einsum("bdn,bn->bd", state, C[:, :, t]))
        return torch.stack(answers, -1)

    interface = ModuleType("mamba_ssm.ops.selective_scan_interface")
    interface.selective_scan_fn = selective_scan_fn
    for name in ("mamba_ssm", "mamba_ssm.ops"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    told = drawn(40)
    assert scan_named("mamba_ssm") is compiled is SCANS["mamba_ssm"]
    assert gap(compiled(*told, reverse=reverse), sequential(*told, reverse=reverse)) < 1e-5
