"""The selective scan of Mamba: a recurrence whose decay, input and output depend on the place.

    h_t = exp(Δ_t A) h_{t-1} + Δ_t u_t B_t          for each channel: a state h of N numbers, h_0 = 0, A < 0 < Δ
    y_t = h_t · C_t

A. Gu and T. Dao, "Mamba: linear-time sequence modeling with selective state spaces", 2023, algorithm 2; the caller adds
the term D u_t. `sequential` computes these lines step by step. `chunked` computes the same in parallel, without
compiled code:

    chunk 1   from 0 ─> · · · · ─> end  ┐     1. all chunks in parallel, each from state 0: T steps
    chunk 2   from 0 ─> · · · · ─> end  ┤     2. the true initial states, sequentially: K steps,
       ⋮                                ┤             start_k = end_{k-1} + exp(A ΣΔ of chunk k-1) start_{k-1}
    chunk K   from 0 ─> · · · · ─> end  ┘     3. all chunks again in parallel, each from its true state: T steps

So L = K T steps take about √(8L) operations instead of L. There is no division by a decay, and no exponent is above 0:
fast decay gives 0, where ``exp(-cumsum)`` would overflow. Long sequences are split into segments, so that states exist
for one segment at a time; the backward pass stores the state at each border and recomputes the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from math import ceil, isqrt
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from wasnow.errors import UsageError, did_you_mean

AT_ONCE = {"cpu": 1 << 20, "cuda": 1 << 25}
"""Maximum number of state values at a time, by device type: 4 MB fit a processor's cache; 128 MB keep a GPU
busy between kernel launches.
"""

FEWEST = 64
"""Minimum number of steps of a segment, however wide the states are."""


class Scan(Protocol):
    """The interface of `sequential`, `chunked` and `compiled`."""

    def __call__(
        self, u: Tensor, delta: Tensor, rate: Tensor, write: Tensor, read: Tensor, *, reverse: bool = False
    ) -> Tensor:
        """Return the output after every step.

        Args:
            u: ``(B, L, D)``, the input.
            delta: ``(B, L, D)``, Δ, the duration of each step, at least 0.
            rate: ``(D, N)``, A, the decay rate of each channel, at most 0.
            write: ``(B, L, N)``, B.
            read: ``(B, L, N)``, C.
            reverse: start with the last step.

        Returns:
            ``(B, L, D)`` in the order of ``u``; float32, or float64 if ``u`` is.
        """
        ...


def sequential(u: Tensor, delta: Tensor, rate: Tensor, write: Tensor, read: Tensor, *, reverse: bool = False) -> Tensor:
    """Compute the equations step by step: the reference `Scan`."""
    u, delta, rate, write, read = (each.to(counting(u.dtype)) for each in (u, delta, rate, write, read))
    state = u.new_zeros(len(u), *rate.shape)
    # Unbound once: the gradient of a slice is as long as the sequence, and each step would need one.
    steps = list(zip(*(each.unbind(1) for each in (u, delta, write, read)), strict=True))
    answers = []
    for new, lasting, writing, reading in reversed(steps) if reverse else steps:
        state = torch.exp(lasting[..., None] * rate) * state + (lasting * new)[..., None] * writing[:, None]
        answers.append((state * reading[:, None]).sum(-1))
    return torch.stack(answers[::-1] if reverse else answers, 1)


def chunked(
    u: Tensor,
    delta: Tensor,
    rate: Tensor,
    write: Tensor,
    read: Tensor,
    *,
    reverse: bool = False,
    at_once: int | None = None,
) -> Tensor:
    """Compute the same in parallel: a `Scan` for any length and device.

    Args:
        u: as in `Scan`.
        delta: as in `Scan`.
        rate: as in `Scan`.
        write: as in `Scan`.
        read: as in `Scan`.
        reverse: as in `Scan`.
        at_once: maximum number of state values at a time; None takes that of `AT_ONCE`. Gradients need six times as
            many.
    """
    batch, length, width = u.shape
    most = AT_ONCE.get(u.device.type, AT_ONCE["cpu"]) if at_once is None else at_once
    steps = max(FEWEST, most // max(1, batch * width * rate.shape[1]))
    # Segments of equal length, so that the last one is not short.
    steps = ceil(length / ceil(length / steps))
    inputs = (u, delta, rate, write, read)
    if torch.is_grad_enabled() and any(each.requires_grad for each in inputs):
        return cast(Tensor, cast(Any, _Chunked).apply(*inputs, steps, reverse))
    return _forward(*inputs, steps, reverse)[0]


def compiled(u: Tensor, delta: Tensor, rate: Tensor, write: Tensor, read: Tensor, *, reverse: bool = False) -> Tensor:
    """Compute the same with the CUDA kernel of the package ``mamba_ssm``: a `Scan` for tensors on a GPU.

    Raises:
        UsageError: the package is not installed.
    """
    kind = counting(u.dtype)
    sequences = [each.to(kind) for each in (u, delta, write, read)]
    if reverse:
        sequences = [each.flip(1) for each in sequences]
    u, delta, write, read = (each.mT.contiguous() for each in sequences)
    answer = cast(Tensor, _kernel()(u, delta, rate.to(kind), write, read)).mT
    return answer.flip(1) if reverse else answer


def _kernel() -> Callable[..., Any]:
    try:
        module = import_module("mamba_ssm.ops.selective_scan_interface")
    except ImportError as error:
        raise UsageError(
            f"the scan 'mamba_ssm' needs the package mamba_ssm and a GPU ({error}); install it, or choose the scan "
            "'chunked', which needs neither"
        ) from None
    return cast(Callable[..., Any], module.selective_scan_fn)


SCANS: dict[str, Scan] = {"chunked": chunked, "sequential": sequential, "mamba_ssm": compiled}


def scan_named(name: str) -> Scan:
    """Return the scan of this name.

    Raises:
        UsageError: unknown name, or its package is not installed.
    """
    if name not in SCANS:
        raise UsageError(f"unknown scan {name!r}; use one of {', '.join(SCANS)}{did_you_mean(name, list(SCANS))}")
    if SCANS[name] is compiled:
        _kernel()
    return SCANS[name]


def counting(kind: torch.dtype) -> torch.dtype:
    """Return the number type of states: float32, or float64 where requested. Sums in half precision lose too much."""
    return torch.promote_types(kind, torch.float32)


# -------------------------------------------------------------------------------------------------- segments and chunks


def _cuts(length: int, steps: int, reverse: bool) -> list[slice]:
    """Return segments, in the order of the scan."""
    cuts = [slice(start, min(start + steps, length)) for start in range(0, length, steps)]
    return cuts[::-1] if reverse else cuts


def _chunk(steps: int) -> int:
    """Return T for a number of steps: it minimises 2 T + steps / T; a nearby divisor avoids padding."""
    best = max(1, isqrt(steps // 2))
    near = sorted(range(ceil(best / 2), 2 * best + 1), key=lambda each: abs(each - best))
    return next((each for each in near if steps % each == 0), best)


def _cut(sequence: Tensor, where: slice, kind: torch.dtype, reverse: bool, chunk: int) -> Tensor:
    """Return ``(B, n, ·)`` of a segment in the order of the scan, padded with 0 to whole chunks.

    With Δ = 0 the state does not change over the padding.
    """
    part = sequence[:, where].to(kind)
    if reverse:
        part = part.flip(1)
    missing = -part.shape[1] % chunk
    return functional.pad(part, (0, 0, 0, missing)) if missing else part


def _run(
    decay: Tensor, entering: Tensor, whole: Tensor, state: Tensor, chunk: int, *, backwards: bool = False
) -> Tensor:
    """Compute ``h_t = decay_t h_{t-1} + entering_t``, overwriting ``entering``.

    Args:
        decay: ``(B, K T, D, N)``.
        entering: the same shape; becomes h.
        whole: ``(B, K, D, N)``, the product of the decays of each chunk.
        state: ``(B, D, N)``, h before the first step.
        chunk: T.
        backwards: start with the last step.

    Returns:
        ``(B, D, N)``, h after the last step.
    """
    in_chunks = (torch.unflatten(each, 1, (-1, chunk)).unbind(2) for each in (decay, entering))
    steps = list(zip(*in_chunks, strict=True))
    order = range(whole.shape[1])
    if backwards:
        steps.reverse()
        order = order[::-1]
    ends = steps[0][1]
    for kept, new in steps[1:]:
        ends = torch.addcmul(new, kept, ends)
    starts = torch.empty_like(whole)
    for number in order:
        starts[:, number] = state
        state = torch.addcmul(ends[:, number], whole[:, number], state)
    for kept, new in steps:
        starts = torch.addcmul(new, kept, starts, out=new)
    return state


def _decays(delta: Tensor, rate: Tensor) -> Tensor:
    """Map ``(B, n, D)`` to decays ``(B, n, D, N)`` between 0 and 1."""
    return (delta[..., None] * rate).exp_()


def _of_chunks(delta: Tensor, rate: Tensor, chunk: int) -> Tensor:
    """Return decays over whole chunks: ``(B, K, D, N)``."""
    return _decays(torch.unflatten(delta, 1, (-1, chunk)).sum(2), rate)


def _states(
    u: Tensor, delta: Tensor, rate: Tensor, write: Tensor, state: Tensor, chunk: int, *, backwards: bool = False
) -> tuple[Tensor, ...]:
    """Return decays and states of a segment, ``(B, n, D, N)`` both, and the state ``(B, D, N)`` after its last step."""
    decay = _decays(delta, rate)
    states = (delta * u)[..., None] * write[..., None, :]
    return decay, states, _run(decay, states, _of_chunks(delta, rate, chunk), state, chunk, backwards=backwards)


def _summed(products: Tensor) -> Tensor:
    """Sum over the last axis, which usually has length 1 in vision."""
    return products.squeeze(-1) if products.shape[-1] == 1 else products.sum(-1)


# -------------------------------------------------------------------------------------------------- there and backwards


def _forward(
    u: Tensor, delta: Tensor, rate: Tensor, write: Tensor, read: Tensor, steps: int, reverse: bool
) -> tuple[Tensor, list[Tensor]]:
    """Return the output, and the state before each segment."""
    kind = counting(u.dtype)
    rate = rate.to(kind)
    answer = torch.empty_like(u, dtype=kind, memory_format=torch.contiguous_format)
    state = rate.new_zeros(len(u), *rate.shape)
    borders = []
    for where in _cuts(u.shape[1], steps, reverse):
        borders.append(state)
        count = where.stop - where.start
        chunk = _chunk(count)
        # A backward scan reads the steps in reverse order, so nothing is flipped.
        own = [_cut(each, where, kind, False, chunk) for each in (u, delta, write, read)]
        _, states, state = _states(own[0], own[1], rate, own[2], state, chunk, backwards=reverse)
        answer[:, where] = _summed(states.mul_(own[3][..., None, :]))[:, :count]
    return answer, borders


class _Chunked(torch.autograd.Function):
    """`_forward` and its gradient, which follows the same recurrence from the end.

    g_t = C_t dy_t + exp(Δ_{t+1} A) g_{t+1};   dC_t = h_t dy_t;   dB_t = g_t Δ_t u_t;   du_t = g_t · B_t Δ_t
    dΔ_t = g_t · (B_t u_t + A exp(Δ_t A) h_{t-1});   dA = Σ g_t Δ_t exp(Δ_t A) h_{t-1}
    """

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, delta: Tensor, rate: Tensor, write: Tensor, read: Tensor, steps: int, reverse: bool
    ) -> Tensor:
        answer, borders = _forward(u, delta, rate, write, read, steps, reverse)
        ctx.save_for_backward(u, delta, rate, write, read, *borders)
        ctx.steps, ctx.reverse = steps, reverse
        return answer

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        u, delta, rate, write, read, *borders = ctx.saved_tensors
        reverse, kind = ctx.reverse, grad.dtype
        grads = [torch.empty_like(each, memory_format=torch.contiguous_format) for each in (u, delta, write, read)]
        exact = rate.to(kind)
        grad_rate = torch.zeros_like(exact)
        later = torch.zeros_like(borders[0])  # exp(Δ A) g of the first step of the segment that comes after
        for where, start in reversed(list(zip(_cuts(u.shape[1], ctx.steps, reverse), borders, strict=True))):
            count = where.stop - where.start
            chunk = _chunk(count)
            own = [_cut(each, where, kind, reverse, chunk) for each in (u, delta, write, read, grad)]
            u_, delta_, write_, read_, grad_ = own
            decay, states, _ = _states(u_, delta_, exact, write_, start, chunk)
            before = torch.cat([start[:, None], states[:, :-1]], 1)
            reading = (grad_[..., None] * states).sum(2)
            states = grad_[..., None] * read_[..., None, :]
            # The decay of the following step; 1 after the last one.
            behind = torch.cat([decay[:, 1:], torch.ones_like(decay[:, :1])], 1)
            whole = _of_chunks(functional.pad(delta_[:, 1:], (0, 0, 0, 1)), exact, chunk)
            _run(behind, states, whole, later, chunk, backwards=True)
            later = decay[:, 0] * states[:, 0]
            through = before.mul_(decay).mul_(states)  # the gradient of Δ A
            grad_rate += (through * delta_[..., None]).sum((0, 1))
            written = _summed(states * write_[..., None, :])
            parts = (
                written * delta_,
                written * u_ + _summed(through * exact),
                (states * (delta_ * u_)[..., None]).sum(2),
                reading,
            )
            for whole_grad, part in zip(grads, parts, strict=True):
                part = part[:, :count]
                whole_grad[:, where] = part.flip(1) if reverse else part
        return grads[0], grads[1], grad_rate.to(rate.dtype), grads[2], grads[3], None, None
