"""A convolution and its activation in one pass: the numbers of two passes, and two passes wherever one cannot be."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from wasnow.nn import one_pass
from wasnow.nn.fused import fused
from wasnow.nn.one_pass import NOTHING, convolved, kind_of

ACTIVATIONS = {
    NOTHING: lambda x: x,
    "relu": functional.relu,
    "hardtanh": functional.relu6,
    "swish": functional.silu,
}


@given(
    st.sampled_from(list(ACTIVATIONS)),
    st.sampled_from([(3, 8, 1), (16, 16, 16), (6, 4, 2), (1, 16, 1)]),
    st.sampled_from([(1, 1), (3, 1), (3, 2), (5, 1)]),
    st.booleans(),
    st.sampled_from([torch.channels_last, torch.contiguous_format]),
    st.sampled_from([1, 2]),
    st.tuples(st.integers(1, 3), st.integers(5, 20), st.integers(5, 20)),
)
def test_one_pass_gives_the_values_of_two(activation, channels, kernel, bias, layout, stride, shape):
    inside, out, groups = channels
    side, dilation = kernel
    torch.manual_seed(0)
    batch, rows, cols = shape
    # Wide enough that ReLU6 cuts at both ends.
    x = 4 * torch.randn(batch, inside, rows, cols).contiguous(memory_format=layout)
    weight = torch.randn(out, inside // groups, side, side)
    offset = torch.randn(out) if bias else None
    padding = (dilation * (side // 2),) * 2
    with torch.inference_mode():
        found = convolved(
            x, weight, offset, stride=(stride, stride), padding=padding, dilation=(dilation, dilation), groups=groups,
            activation=activation,
        )  # fmt: skip
        wanted = ACTIVATIONS[activation](
            functional.conv2d(x, weight, offset, (stride, stride), padding, (dilation, dilation), groups)
        )
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.fixture
def passes(monkeypatch) -> list[str]:
    """What the one pass was asked for."""
    asked: list[str] = []
    plain = one_pass._operator()

    def watched(*arguments):
        asked.append(arguments[7])
        return plain(*arguments)

    monkeypatch.setattr(one_pass, "_operator", lambda: watched)
    return asked


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 1), nn.SiLU(),
        nn.Conv2d(8, 2, 1),
    ).eval()  # fmt: skip


def test_activations_are_folded_into_their_convolutions(passes):
    plain = network()
    one = fused(plain)
    x = torch.rand(1, 3, 9, 7)
    with torch.inference_mode():
        torch.testing.assert_close(one(x), plain(x))
    assert passes == ["relu", "swish", "none"]
    assert [type(part).__name__ for part in one if type(part) is not nn.Identity] == ["OnePassConv"] * 3


def test_gradients_use_the_plain_implementation(passes):
    one = fused(network())
    x = torch.rand(1, 3, 9, 7, requires_grad=True)
    one(x).sum().backward()
    assert x.grad is not None
    assert passes == []


def test_an_exported_network_has_torchs_own_convolutions(passes):
    one = fused(network())
    x = torch.rand(1, 3, 9, 7)
    with torch.no_grad():
        written = torch.export.export(one, (x,))
        names = {str(node.target) for node in written.graph.nodes if node.op == "call_function"}
        assert "aten.conv2d.default" in names
        assert not any("mkldnn" in name for name in names)
        torch.testing.assert_close(written.module()(x), one(x))


def test_other_number_types_use_the_plain_implementation(passes):
    one = fused(network().double())
    with torch.inference_mode():
        assert one(torch.rand(1, 3, 9, 7, dtype=torch.float64)).dtype == torch.float64
    assert passes == []


def test_bfloat16_is_bfloat16_as_with_two_passes():
    plain = network()
    one = fused(plain)
    x = torch.rand(1, 3, 9, 7)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found, wanted = one(x), plain(x)
    assert found.dtype == wanted.dtype == torch.bfloat16
    torch.testing.assert_close(found, wanted, rtol=0.05, atol=0.02)


def test_without_onednn_everything_uses_the_plain_implementation(passes, monkeypatch):
    monkeypatch.setattr(one_pass, "_operator", lambda: None)
    plain = network()
    x = torch.rand(1, 3, 9, 7)
    with torch.inference_mode():
        torch.testing.assert_close(fused(plain)(x), plain(x))


def test_hooks_of_a_convolution_or_an_activation_still_run():
    plain, heard = network(), []
    plain[2].register_forward_hook(lambda *_: heard.append("activation"))
    plain[3].register_forward_hook(lambda *_: heard.append("convolution"))
    with torch.inference_mode():
        fused(plain)(torch.rand(1, 3, 9, 7))
    assert heard == ["activation", "convolution"]


def test_an_unsupported_activation_stays():
    assert kind_of(nn.Softplus()) is None
    kept = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Softplus()).eval()
    x = torch.rand(1, 3, 5, 5)
    with torch.inference_mode():
        torch.testing.assert_close(fused(kept)(x), kept(x))


@pytest.mark.parametrize("padding", ["same", 1])
def test_other_padding_than_zeros_uses_the_plain_implementation(padding, passes):
    mode = "zeros" if padding == "same" else "reflect"
    plain = nn.Sequential(nn.Conv2d(3, 4, 3, padding=padding, padding_mode=mode), nn.ReLU()).eval()
    x = torch.rand(1, 3, 6, 6)
    with torch.inference_mode():
        torch.testing.assert_close(fused(plain)(x), plain(x))
    assert passes == []


@pytest.mark.parametrize("fault", [lambda *_: torch.zeros(1, 1, 1, 2), lambda *_: 1 / 0, lambda: None])
def test_an_operator_with_another_behaviour_is_not_used(fault, monkeypatch):
    def broken(*arguments):
        try:
            return fault(*arguments)
        except ZeroDivisionError:
            raise RuntimeError("unknown attribute") from None

    monkeypatch.setattr(torch.ops.mkldnn, "_convolution_pointwise", broken, raising=False)
    one_pass._tried.cache_clear()
    try:
        assert one_pass._operator() is None
    finally:
        monkeypatch.undo()
        one_pass._tried.cache_clear()
    assert one_pass._operator() is not None
