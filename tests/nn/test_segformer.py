"""SegFormer's encoder and decoder against those of transformers, and the names that published weights come in."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import SegformerConfig, SegformerForImageClassification
from transformers.models.segformer.modeling_segformer import SegformerDecodeHead, SegformerDropPath

from wasnow.errors import UsageError
from wasnow.nn.segformer import PRESETS, STRIDES, MitConfig, MixTransformer, MLPDecoder, tower_of

TINY = MitConfig(widths=(8, 16, 40, 64), depths=(1, 2, 1, 1))


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    made = SegformerForImageClassification(SegformerConfig(hidden_sizes=TINY.widths, depths=TINY.depths))
    with torch.no_grad():
        for each in made.parameters():
            each.add_(torch.randn_like(each) * 0.1)
    return made.eval()


@pytest.fixture(scope="module")
def published(theirs, tmp_path_factory):
    """Their weights in a file, as transformers writes them for the hub."""
    folder = tmp_path_factory.mktemp("hub")
    theirs.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def ours(published):
    made = MixTransformer(TINY)
    made.load_state_dict(tower_of(published), strict=True)
    return made.eval()


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (32, 96)])
def test_published_weights_give_the_maps_of_transformers(theirs, ours, size):
    images = torch.randn(2, 3, *size)
    expected = theirs.segformer(images, output_hidden_states=True).hidden_states
    for one, other, stride, width in zip(ours(images), expected, STRIDES, TINY.widths, strict=True):
        assert one.shape == (2, width, size[0] // stride, size[1] // stride)
        assert torch.allclose(one, other, atol=1e-4)


def test_the_names_of_the_hub_map_to_those_of_transformers(theirs, published):
    assert any(name.startswith("segformer.encoder.block.0.0.attention.self.query") for name in published)
    of_hub, of_module = tower_of(published), tower_of(theirs.state_dict())
    assert of_hub.keys() == of_module.keys()
    assert all(torch.equal(each, of_module[name]) for name, each in of_hub.items())


def test_the_authors_names_map_to_the_same_tensors():
    """As in ``mit_b1.pth``: counted from 1, keys and values in one tensor, a classifier at the end."""
    both, bias = torch.rand(128, 64), torch.rand(128)
    state = {
        name: torch.rand(1)
        for name in (
            *("patch_embed2.proj.weight", "patch_embed2.norm.bias", "norm4.weight", "head.weight"),
            *("block1.0.norm1.weight", "block1.0.attn.q.weight", "block1.1.attn.proj.bias", "block1.0.attn.sr.weight"),
            *("block1.0.attn.norm.bias", "block1.0.norm2.weight", "block3.1.mlp.fc1.weight"),
            "block3.1.mlp.dwconv.dwconv.weight",
        )
    }
    kept = tower_of({**state, "block1.0.attn.kv.weight": both, "block1.0.attn.kv.bias": bias})
    assert set(kept) == {
        "stages.1.patch_embeddings.proj.weight",
        "stages.1.patch_embeddings.layer_norm.bias",
        "stages.3.layer_norm.weight",
        "stages.0.blocks.0.layernorm_before.weight",
        "stages.0.blocks.0.attention.q_proj.weight",
        "stages.0.blocks.0.attention.k_proj.weight",
        "stages.0.blocks.0.attention.k_proj.bias",
        "stages.0.blocks.0.attention.v_proj.weight",
        "stages.0.blocks.0.attention.v_proj.bias",
        "stages.0.blocks.1.attention.o_proj.bias",
        "stages.0.blocks.0.attention.sequence_reduction.sequence_reduction.weight",
        "stages.0.blocks.0.attention.sequence_reduction.layer_norm.bias",
        "stages.0.blocks.0.layernorm_after.weight",
        "stages.2.blocks.1.mlp.fc1.weight",
        "stages.2.blocks.1.mlp.dwconv.dwconv.weight",
    }
    assert torch.equal(kept["stages.0.blocks.0.attention.k_proj.weight"], both[:64])
    assert torch.equal(kept["stages.0.blocks.0.attention.v_proj.bias"], bias[64:])
    with torch.device("meta"):
        assert set(kept) <= MixTransformer(PRESETS["mit-b1"]).state_dict().keys()


@pytest.mark.parametrize(("name", "millions"), [("mit-b0", 3.4), ("mit-b1", 13.1), ("mit-b2", 24.2)])
def test_presets_have_the_published_number_of_parameters(name, millions):
    with torch.device("meta"):
        encoder = MixTransformer(PRESETS[name])
    assert abs(sum(each.numel() for each in encoder.parameters()) / 1e6 - millions) < 0.1


@torch.no_grad()
def test_maps_stay_channels_last(ours):
    for each in ours(torch.randn(1, 3, 64, 64)):
        assert each.is_contiguous(memory_format=torch.channels_last)


def test_later_blocks_are_skipped_more_often_and_only_in_training():
    torch.manual_seed(0)
    encoder = MixTransformer(MitConfig(widths=TINY.widths, depths=TINY.depths, drop_path=0.4))
    rates = [part.drop_prob for part in encoder.modules() if isinstance(part, SegformerDropPath)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4])  # of the first block: 0, so it has no such part
    image = torch.randn(4, 3, 32, 32)
    assert not torch.equal(encoder(image)[-1], encoder(image)[-1])
    encoder.eval()
    assert torch.equal(encoder(image)[-1], encoder(image)[-1])


def test_an_image_of_another_size_is_rejected(ours):
    with pytest.raises(ValueError, match="multiples of 32"):
        ours(torch.zeros(1, 3, 40, 32))


@torch.no_grad()
def test_the_decoder_is_that_of_segformer():
    torch.manual_seed(0)
    config = SegformerConfig(hidden_sizes=TINY.widths, decoder_hidden_size=24, num_labels=3)
    head, decoder = SegformerDecodeHead(config).eval(), MLPDecoder(TINY.widths, 24, 3).eval()
    head.batch_norm.running_mean.normal_()
    head.batch_norm.running_var.uniform_(0.5, 2)
    for level, linear in zip(decoder.levels, head.linear_projections, strict=True):
        level.weight.copy_(linear.proj.weight[..., None, None])
        level.bias.copy_(linear.proj.bias)
    decoder.join[0].load_state_dict(head.linear_fuse.state_dict())
    decoder.join[1].load_state_dict(head.batch_norm.state_dict())
    decoder.logits.load_state_dict(head.classifier.state_dict())
    maps = [
        torch.randn(2, width, 64 // stride, 96 // stride) for width, stride in zip(TINY.widths, STRIDES, strict=True)
    ]
    assert torch.allclose(decoder(maps), head(maps), atol=1e-5)


def test_a_new_network_preserves_the_variance_of_signals():
    """Convolutions at 0.02, as transformers begins, would leave a fiftieth of what the 3x3 inside an MLP is given."""
    torch.manual_seed(0)
    inside = MixTransformer(PRESETS["mit-b0"]).stages[0].blocks[0].mlp.dwconv
    x = torch.randn(1, 32 * 32, inside.dwconv.in_channels)
    assert 0.5 < inside(x, 32, 32).std().item() / x.std().item() < 3


@pytest.mark.parametrize(
    ("encoder", "advice"),
    [
        ("mit-b9", "use one of mit-b0, mit-b1, mit-b2; did you mean 'mit-b"),
        ({"widths": (8, 16, 40, 64), "dephts": (1, 1, 1, 1)}, "did you mean 'depths'"),
        ({"depths": (1, 1, 1, 1)}, "widths are missing"),
        ({"widths": (8, 16, 40)}, "four positive integers"),
        ({"widths": (8, 16, 41, 64)}, "must be multiples of the heads"),
        ({"widths": (8, 16, 40, 64), "reductions": (16, 4, 2, 1)}, "must divide 8, 4, 2 and 1"),
    ],
)
def test_an_invalid_encoder_is_rejected_with_advice(encoder, advice):
    with pytest.raises(UsageError, match=advice):
        MitConfig.named(encoder)


def test_an_encoder_is_the_same_after_json():
    assert MitConfig.named(TINY.dict()) == TINY
    assert hash(MitConfig.named(TINY.dict())) == hash(TINY)
