"""Bi-SRNet against its equations. What all networks promise is in ``tests/contract``."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wasnow.models.bisrnet import BiSRNet, CrossReasoning, SpatialReasoning, attend
from wasnow.models.sscd_l import SSCDL


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 500))
def test_attention_in_parts_equals_the_equation(places, others, at_once):
    torch.manual_seed(places)
    query, key, value = torch.randn(2, places, 3), torch.randn(2, others, 3), torch.randn(2, others, 5)
    whole = torch.softmax(query @ key.transpose(1, 2), dim=-1) @ value
    assert torch.allclose(attend(query, key, value, at_once=at_once), whole, atol=1e-5)


@torch.inference_mode()
def test_reasoning_within_a_date_equals_its_equation():
    torch.manual_seed(0)
    reason = SpatialReasoning(16)
    reason.gamma.fill_(0.7)
    x = torch.randn(1, 16, 3, 4)
    q, k, v = (conv(x)[0].flatten(1) for conv in (reason.project.query, reason.project.key, reason.project.value))
    for place in range(12):
        scores = torch.stack([q[:, place] @ k[:, other] for other in range(12)]).softmax(0)
        seen = sum(scores[other] * v[:, other] for other in range(12))
        row, col = divmod(place, 4)
        assert torch.allclose(reason(x)[0, :, row, col], x[0, :, row, col] + 0.7 * seen, atol=1e-5)


@torch.inference_mode()
def test_cross_reasoning_queries_one_date_and_reads_the_other():
    torch.manual_seed(0)
    cross = CrossReasoning(16)
    cross.gamma_before.fill_(0.5)
    cross.gamma_after.fill_(2.0)
    x1, x2 = torch.randn(2, 1, 16, 3, 4)
    (q1, k1, v1), (q2, k2, v2) = cross.project_before(x1), cross.project_after(x2)
    y1, y2 = cross(x1, x2)
    seen1 = (torch.softmax(q1 @ k2.mT, -1) @ v2).mT.reshape(x1.shape)
    seen2 = (torch.softmax(q2 @ k1.mT, -1) @ v1).mT.reshape(x1.shape)
    assert torch.allclose(y1, x1 + 0.5 * seen1, atol=1e-5)
    assert torch.allclose(y2, x2 + 2.0 * seen2, atol=1e-5)


@pytest.fixture(scope="module")
def both():
    """SSCD-l, and a new Bi-SRNet with the same weights where they have the same parts."""
    torch.manual_seed(0)
    plain, reasoning = SSCDL().eval(), BiSRNet().eval()
    unexpected = reasoning.load_state_dict(plain.state_dict(), strict=False).unexpected_keys
    assert not unexpected
    return plain, reasoning


@torch.inference_mode()
def test_a_new_network_equals_sscd_l(both):
    plain, reasoning = both
    before, after = torch.rand(2, 1, 3, 32, 48)
    one, two = plain(before, after), reasoning(before, after)
    assert torch.equal(one.change, two.change)
    assert torch.equal(one.before, two.before)
    assert torch.equal(one.after, two.after)


def test_reasoning_adds_its_weighted_attention(both):
    plain, reasoning = both
    projections = 2 * (128 * 16 + 16) + 128 * 128 + 128
    assert reasoning.card.parameters - plain.card.parameters == 4 * projections + 4  # and as many gammas
