"""MambaSCD and VMamba against their equations and sizes. What all networks promise is in ``tests/contract``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from parity.published import description
from wasnow.data.encodings import ENCODINGS
from wasnow.errors import CheckpointError, UsageError
from wasnow.models.mamba_scd import PUBLISHED_WORDS, MambaSCD, PairLook
from wasnow.models.published.convert import fit, ours_of
from wasnow.models.published.names import UPSTREAMS
from wasnow.nn.fused import fused
from wasnow.nn.selective_scan import sequential
from wasnow.nn.vmamba import PRESETS, DropPath, Scan2d, VMamba

SMALL = {"encoder": {"width": 8, "depths": (1, 1, 2, 1)}, "width": 8}


def small(**options) -> MambaSCD:
    torch.manual_seed(0)
    return MambaSCD(("a", "b"), **{**SMALL, **options}).eval()


# ------------------------------------------------------------------------------------------------------------- encoder


@torch.inference_mode()
def test_four_scans_read_a_map_by_rows_by_columns_and_both_reversed():
    torch.manual_seed(0)
    part = Scan2d(6)
    for each in (part.A_logs, part.Ds):
        each.copy_(torch.randn_like(each))
    x = torch.randn(2, 3, 5, 6)
    inside = nn.functional.silu(part.conv2d(part.in_proj(x).permute(0, 3, 1, 2)))
    by_rows = [(row, col) for row in range(3) for col in range(5)]
    by_cols = [(row, col) for col in range(5) for row in range(3)]
    total = torch.zeros(2, 12, 3, 5)
    for number, order in enumerate((by_rows, by_cols, by_rows[::-1], by_cols[::-1])):
        sequence = torch.stack([inside[:, :, row, col] for row, col in order], 1)
        told = sequence @ part.x_proj_weight[number].T
        delta = nn.functional.softplus(told[..., :1] @ part.dt_projs_weight[number].T + part.dt_projs_bias[number])
        channels = slice(12 * number, 12 * (number + 1))
        answer = sequential(sequence, delta, -part.A_logs[channels].exp(), told[..., 1:2], told[..., 2:])
        answer = answer + part.Ds[channels] * sequence
        for step, (row, col) in enumerate(order):
            total[:, :, row, col] += answer[:, step]
    wanted = part.out_proj(part.out_norm(total.permute(0, 2, 3, 1)))
    assert torch.allclose(part(x), wanted, atol=1e-5)


@torch.inference_mode()
def test_every_place_of_a_new_encoder_depends_on_every_other():
    torch.manual_seed(0)
    part = Scan2d(4).eval()
    x = torch.randn(1, 5, 7, 4)
    quiet = part(x)
    for row, col in ((0, 0), (4, 6), (2, 3)):
        louder = x.clone()
        louder[0, row, col] += 3
        assert ((part(louder) - quiet).abs().amax(-1) > 0).all()


@pytest.mark.parametrize(("size", "millions"), [("small", 50.4), ("base", 89.0)])
def test_sizes_have_about_the_published_number_of_parameters(size, millions):
    """Their count has a norm and a classifier of 1000 classes, and no norms of the maps; and it is rounded."""
    with torch.device("meta"):
        encoder = VMamba(PRESETS[size])
    last = encoder.config.widths[-1]
    own = sum(each.numel() for name, each in encoder.named_parameters() if not name.startswith("norms."))
    assert (own + 2 * last + 1000 * last + 1000) / 1e6 == pytest.approx(millions, rel=0.006)


@torch.inference_mode()
@pytest.mark.parametrize(("height", "width"), [(64, 64), (33, 50), (1, 5)])
def test_maps_are_an_eighth_and_so_on_of_any_size_rounded_up(height, width):
    encoder = small().encoder
    maps = encoder(torch.randn(1, 3, height, width))
    for each, stride, channels in zip(maps, (4, 8, 16, 32), (8, 16, 32, 64), strict=True):
        assert each.shape == (1, channels, -(-height // stride), -(-width // stride))
        assert each.is_contiguous(memory_format=torch.channels_last)


def test_initial_states_decay_over_ten_to_a_thousand_steps():
    torch.manual_seed(0)
    duration = nn.functional.softplus(Scan2d(64).dt_projs_bias.detach())
    assert 0.001 <= duration.min() < 0.0013
    assert 0.08 < duration.max() <= 0.1001


def test_drop_path_skips_whole_images_and_keeps_the_mean():
    torch.manual_seed(0)
    part, ones = DropPath(0.25), torch.ones(4000, 2, 2)
    dropped = part.train()(ones)
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (dropped == dropped[:, :1, :1]).all()
    assert float(dropped.mean()) == pytest.approx(1, abs=0.03)
    assert part.eval()(ones) is ones


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"depth": 2}, "did you mean 'depths'"),
        ({"depths": (2, 2)}, "one per stage"),
        ({"width": 7}, "must be even"),
        ({"drop_path": 1.0}, "at least 0 and below 1"),
    ],
)
def test_an_invalid_encoder_is_rejected(wrong, message):
    with pytest.raises(UsageError, match=message):
        MambaSCD(encoder=wrong)


# ------------------------------------------------------------------------------------------------------------- network


@torch.inference_mode()
def test_a_pair_is_scanned_stacked_woven_and_side_by_side():
    class Seen(nn.Module):
        def forward(self, x):
            self.x = x
            return x[:, :2]

    look = PairLook(2, 2, sequential)
    look.stacked, look.woven, look.beside = Seen(), Seen(), Seen()
    look.join = nn.Identity()
    before, after = torch.randn(2, 1, 2, 3, 4)
    found = look(before, after)
    assert torch.equal(look.stacked.x, torch.cat([before, after], 1))
    assert look.woven.x.shape == look.beside.x.shape == (1, 2, 3, 8)
    for col in range(4):
        assert torch.equal(look.woven.x[..., 2 * col], before[..., col])
        assert torch.equal(look.woven.x[..., 2 * col + 1], after[..., col])
    assert torch.equal(look.beside.x, torch.cat([before, after], 3))
    # Each arrangement is taken apart again as it was put together.
    assert torch.equal(found, torch.cat([before, before, after, before, after], 1))


@torch.inference_mode()
def test_the_scan_does_not_change_the_prediction():
    pair = torch.rand(2, 1, 3, 40, 56)
    fast, slow = small(), small(scan="sequential")
    assert fast.config() == slow.config()
    one, other = fast(*pair), slow(*pair)
    for mine, theirs in ((one.change, other.change), (one.before, other.before), (one.after, other.after)):
        assert torch.allclose(mine, theirs, atol=1e-5 * float(theirs.abs().max()))


def test_an_unknown_scan_is_rejected():
    with pytest.raises(UsageError, match="did you mean 'chunked'"):
        small(scan="chunk")


@torch.inference_mode()
def test_all_batch_norms_are_folded():
    network = small()
    network.train()(*torch.rand(2, 2, 3, 64, 64))
    folded = fused(network.eval())
    assert any(isinstance(part, nn.BatchNorm2d) for part in network.modules())
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
    pair = torch.rand(2, 1, 3, 64, 64)
    wanted = network(*pair).change
    assert torch.allclose(folded(*pair).change, wanted, atol=1e-4 * float(wanted.abs().max()))


def test_training_under_autocast_keeps_float32_states():
    network = small().train()
    with torch.autocast("cpu", torch.bfloat16):
        answer = network(*torch.rand(2, 2, 3, 64, 64))
    (answer.change.float().square().mean() + answer.before.float().square().mean()).backward()
    assert all(torch.isfinite(each.grad).all() for each in network.encoder.parameters())


# ------------------------------------------------------------------------------------------------------ published names


def of_2025(name: str) -> str:
    """ChangeMamba's later name of a parameter, as that repository reads its earlier files."""
    name = re.sub(
        r"st_block_(\d)(\d)\.",
        lambda found: f"stage_blocks.{4 - int(found[1])}.{('cat', 'interleave', 'split')[int(found[2]) - 1]}.",
        name,
    )
    name = re.sub(r"smooth_layer_(\d)_semantic\.", lambda found: f"smooth_layers.{3 - int(found[1])}.", name)
    name = re.sub(r"st_block_(\d)_semantic\.", lambda found: f"stage_blocks.{4 - int(found[1])}.", name)
    name = re.sub(r"smooth_layer_(\d)\.", lambda found: f"smooth_layers.{3 - int(found[1])}.", name)
    name = re.sub(r"fuse_layer_(\d)\.", lambda found: f"fuse_layers.{4 - int(found[1])}.", name)
    return re.sub(r"trans_layer_(\d)\.", lambda found: f"transition_layers.{3 - int(found[1])}.", name)


def test_both_generations_of_published_names_map_to_the_same_parameters():
    names = UPSTREAMS["mamba-scd-tiny"].names
    theirs = [name for name, _ in description("mambascd_tiny")["manifest"]]
    places = [ours_of(name, names) for name in theirs]
    assert all(len(place) == 1 for place in places)
    assert places == [ours_of(of_2025(name), names) for name in theirs]
    assert sum(of_2025(name) != name for name in theirs) > 300
    with torch.device("meta"):
        assert {place[0] for place in places} == set(MambaSCD().state_dict())


@pytest.mark.parametrize("size", PRESETS)
def test_published_weights_of_another_size_are_rejected(size):
    upstream = UPSTREAMS[f"mamba-scd-{size}"]
    assert upstream.network == "mamba-scd"
    with torch.device("meta"):
        network = MambaSCD(upstream.classes, **upstream.options)
    assert network.config()["size"] == size
    width = PRESETS[size].width // 2
    stem = {"encoder.patch_embed.0.weight": torch.zeros(width + 1, 3, 3, 3)}
    with pytest.raises(CheckpointError, match=rf"instead of \({width}, 3, 3, 3\)"):
        fit(Path("theirs.pth"), network, stem, upstream.names, called=f"mamba-scd-{size}")


def test_published_classes_are_in_the_order_of_their_labels():
    encoding = next(each for each in ENCODINGS.values() if each.name == "second-e2")
    assert [encoding.words[encoding.codes[code] - 1] for code in range(1, 7)] == list(PUBLISHED_WORDS)
