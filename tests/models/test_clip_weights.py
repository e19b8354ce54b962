"""CLIP weights of others come in whole, checked, under our names, and answer as they did; or are refused in words."""

import dataclasses
import errno
import functools
import hashlib
import json
import shutil
from collections import namedtuple

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel

from parity.fill import fill
from parity.fill import load as load_fixture
from parity.published import FOLDER, images
from wasnow.errors import CheckpointError, DiskFull, DownloadFailed, OutputError, UsageError
from wasnow.models import sealed
from wasnow.models.clip_weights import download, known, store
from wasnow.models.clip_weights.known import KNOWN, Published
from wasnow.nn.clip import Clip
from wasnow.nn.clip_words import tokenize

FIXTURES = ["openclip_tiny", "openclip_tiny_quickgelu"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WASNOW_CACHE", str(tmp_path / "cache"))


@functools.cache
def filled(fixture):
    spec, _ = load_fixture(FOLDER, fixture)
    state = {name: torch.from_numpy(np.asarray(value)) for name, value in fill(spec["manifest"], spec["salt"]).items()}
    return {**state, "logit_scale": torch.tensor(spec["logit_scale"])}


def their_weights(fixture="openclip_tiny"):
    return dict(filled(fixture))


def open_clip_config(fixture="openclip_tiny"):
    """What open_clip writes beside its weights: the only place that tells heads and activation of such small towers."""
    spec, _ = load_fixture(FOLDER, fixture)
    image = spec["vision"]
    return {
        "model_cfg": {
            "embed_dim": spec["embed_dim"],
            "quick_gelu": spec["quick_gelu"],
            "vision_cfg": {**image, "head_width": image["width"] // image["heads"]},
            "text_cfg": spec["text"],
        }
    }


def save_open_clip(folder, fixture="openclip_tiny", *, state=None, wrap=lambda state: state):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(open_clip_config(fixture)))
    torch.save(wrap(their_weights(fixture) if state is None else state), folder / "theirs.pt")
    return folder / "theirs.pt"


def hugging_face(activation="quick_gelu"):
    """A small CLIPModel with random weights."""
    torch.manual_seed(0)
    tower = {"hidden_act": activation, "num_hidden_layers": 2, "intermediate_size": 40}
    config = CLIPConfig(
        text_config={**tower, "hidden_size": 16, "num_attention_heads": 4},
        vision_config={**tower, "hidden_size": 24, "num_attention_heads": 2, "patch_size": 4, "image_size": 16},
        projection_dim=12,
    )
    return CLIPModel(config).eval()


def close(ours, theirs):
    """Within 1e-5, relative to the largest number."""
    return (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


# --- parity -------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("fixture", FIXTURES)
def test_converted_weights_give_the_outputs_of_open_clip(fixture, tmp_path):
    made = download.get("tiny", file=save_open_clip(tmp_path / fixture, fixture))
    clip = store.load("tiny")
    spec, expected = load_fixture(FOLDER, fixture)
    expected = {name: torch.from_numpy(value) for name, value in expected.items()}
    pooled, patches = (functional.normalize(each, dim=-1) for each in clip.image(images(fixture)[0]))
    words = functional.normalize(clip.text(tokenize(spec["texts"])), dim=-1)
    assert close(pooled, expected["image_embedding"])
    assert close(patches, expected["dense_embedding"])
    assert close(words, expected["text_embedding"])
    assert close(patches[0] @ words.T, expected["cosine"])
    assert clip.logit_scale.item() == pytest.approx(spec["logit_scale"])
    assert made.config.activation == ("quickgelu" if spec["quick_gelu"] else "gelu")


@torch.no_grad()
def test_the_two_activations_give_different_outputs(tmp_path):
    file = save_open_clip(tmp_path / "theirs")
    answers = []
    for activation in ("gelu", "quickgelu"):
        download.get(activation, file=file, activation=activation)
        answers.append(store.load(activation).image(images("openclip_tiny")[0])[0])
    assert not close(answers[0], answers[1])


@torch.no_grad()
@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("safe", [True, False])
def test_a_folder_written_by_transformers_gives_the_outputs_of_transformers(activation, safe, tmp_path):
    model, folder = hugging_face(activation), tmp_path / "folder"
    model.save_pretrained(folder)
    if not safe:
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    made = download.get(file=folder, name="folder")
    clip = store.load(made.path)
    ids, shown = tokenize(["water", "solar farm"]), torch.randn(1, 3, 16, 16)
    assert close(clip.text(ids), model.get_text_features(ids).pooler_output)
    assert close(clip.image(shown)[0], model.get_image_features(shown).pooler_output)
    assert made.config.activation == activation.replace("_", "")
    assert made.config.text_heads == 4


def test_every_weight_is_converted_and_none_is_added(tmp_path):
    download.get("tiny", file=save_open_clip(tmp_path / "theirs"))
    tensors, _ = sealed.read_sealed(store.find("tiny"))
    ours = torch.cat([each.flatten() for each in tensors.values()]).sort().values
    theirs = torch.cat([each.flatten() for each in their_weights().values()]).sort().values
    assert torch.equal(ours, theirs)


def test_the_file_is_the_state_of_a_network_that_has_a_clip(tmp_path):
    made = download.get("tiny", file=save_open_clip(tmp_path / "theirs"))

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.clip = Clip(made.config)

    tensors, header = sealed.read_sealed(made.path)
    Network().load_state_dict(tensors)
    assert header["kind"] == "clip"
    assert header["name"] == "tiny"
    assert header["config"] == made.config.dict()
    assert header["sha256"] == hashlib.sha256((tmp_path / "theirs" / "theirs.pt").read_bytes()).hexdigest()


WRAPPINGS = {
    "a training script's": lambda state: {"epoch": 3, "state_dict": state},
    "DataParallel's": lambda state: {f"module.{name}": each for name, each in state.items()},
    "both": lambda state: {"state_dict": {f"module.{name}": each for name, each in state.items()}},
    "half precision": lambda state: {name: each.half() for name, each in state.items()},
    "open_clip's newer names": lambda state: {
        name if name.startswith(("visual.", "logit")) else f"text.{name}": each for name, each in state.items()
    },
    "OpenAI's extras": lambda state: {**state, "input_resolution": torch.tensor(56), "vocab_size": torch.tensor(49408)},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrappers_around_weights_are_removed(wrapping, tmp_path):
    made = download.get("tiny", file=save_open_clip(tmp_path / "theirs", wrap=WRAPPINGS[wrapping]))
    ours = store.load("tiny").state_dict()
    exact = {
        name: each.half().float() if wrapping == "half precision" else each for name, each in their_weights().items()
    }
    assert all(each.dtype == torch.float32 for each in ours.values())
    assert torch.equal(ours["text.token_embedding.weight"], exact["token_embedding.weight"])
    assert torch.equal(ours["image.projection.weight"], exact["visual.proj"].T)
    query, key, value = exact["transformer.resblocks.2.attn.in_proj_bias"].chunk(3)
    for name, each in (("q", query), ("k", key), ("v", value)):
        assert torch.equal(ours[f"text.blocks.2.self_attn.{name}_proj.bias"], each)
    assert made.config.image_size == 56


def test_the_same_weights_give_the_same_bytes(tmp_path):
    file = save_open_clip(tmp_path / "theirs")
    first = download.get("tiny", file=file).path.read_bytes()
    assert download.get("tiny", file=file, overwrite=True).path.read_bytes() == first


# --- what is not said is not guessed --------------------------------------------------------------------------------


def usual_widths():
    """Shapes of a one-block CLIP of usual widths, where heads are known and the activation is not."""
    torch.manual_seed(0)
    state = {
        "visual.class_embedding": torch.randn(384),
        "visual.conv1.weight": torch.randn(384, 3, 8, 8),
        "visual.positional_embedding": torch.randn(5, 384),
        "visual.proj": torch.randn(384, 16),
        "token_embedding.weight": torch.randn(300, 384),
        "positional_embedding": torch.randn(77, 384),
        "text_projection": torch.randn(384, 16),
        "logit_scale": torch.tensor(4.6),
    }
    for norm in ("visual.ln_pre", "visual.ln_post", "ln_final"):
        state |= {f"{norm}.weight": torch.ones(384), f"{norm}.bias": torch.zeros(384)}
    for begins in ("visual.transformer.resblocks.0", "transformer.resblocks.0"):
        for name, shape in {
            "ln_1": (384,),
            "ln_2": (384,),
            "attn.out_proj": (384, 384),
            "mlp.c_fc": (32, 384),
            "mlp.c_proj": (384, 32),
        }.items():
            state |= {f"{begins}.{name}.weight": torch.randn(shape), f"{begins}.{name}.bias": torch.randn(shape[0])}
        state |= {f"{begins}.attn.in_proj_weight": torch.randn(1152, 384)}
        state |= {f"{begins}.attn.in_proj_bias": torch.randn(1152)}
    return state


def test_an_unknown_activation_is_required_from_the_user(tmp_path):
    torch.save(usual_widths(), tmp_path / "theirs.pt")
    with pytest.raises(UsageError, match=r"pass --activation gelu .* or --activation quickgelu"):
        download.get("mine", file=tmp_path / "theirs.pt")
    assert store.stored() == []
    made = download.get("mine", file=tmp_path / "theirs.pt", activation="gelu")
    assert (made.config.activation, made.config.image_heads, made.config.text_heads) == ("gelu", 6, 6)


def test_an_unknown_number_of_heads_requires_a_description(tmp_path):
    torch.save(their_weights(), tmp_path / "theirs.pt")
    with pytest.raises(
        CheckpointError, match=r"number of attention heads of its image tower of width 64 .* open_clip_config"
    ):
        download.get("mine", file=tmp_path / "theirs.pt", activation="gelu")


def test_an_unknown_activation_is_rejected_with_a_suggestion():
    with pytest.raises(UsageError, match="did you mean 'quickgelu'"):
        download.get("remoteclip-vit-l-14", activation="quick_gelu")


def test_towers_with_different_activations_are_rejected(tmp_path):
    hugging_face().save_pretrained(tmp_path / "folder")
    held = json.loads((tmp_path / "folder" / "config.json").read_text())
    held["vision_config"]["hidden_act"] = "gelu"
    (tmp_path / "folder" / "config.json").write_text(json.dumps(held))
    with pytest.raises(CheckpointError, match="the towers differ in hidden_act"):
        download.get(file=tmp_path / "folder")


# --- wrong files --------------------------------------------------------------------------------------------------


def without(name):
    return lambda state: {key: each for key, each in state.items() if key != name}


WRONG = {
    "a missing norm": (without("ln_final.bias"), r"it has no ln_final\.bias \(48,\)"),
    "a missing part that tells a size": (without("visual.conv1.weight"), r"it has no visual\.conv1\.weight"),
    "a missing half of attention": (
        without("visual.transformer.resblocks.3.attn.in_proj_bias"),
        r"no visual\.transformer\.resblocks\.3\.attn\.in_proj_bias \(192,\)",
    ),
    "another shape": (
        lambda state: {**state, "transformer.resblocks.1.mlp.c_fc.weight": torch.zeros(7, 48)},
        r"transformer\.resblocks\.1\.mlp\.c_fc\.weight has shape \(7, 48\) instead of \(192, 48\)",
    ),
    "something more": (
        lambda state: {**state, "visual.head.weight": torch.zeros(2, 3)},
        r"it has visual\.head\.weight \(2, 3\), which CLIP does not have",
    ),
    "positions of no square": (
        lambda state: {**state, "visual.positional_embedding": torch.zeros(12, 64)},
        "12 rows instead of a square number plus 1",
    ),
    "the image tower alone": (
        lambda state: {name: each for name, each in state.items() if name.startswith("visual.")},
        "has the image tower of a CLIP without the text tower",
    ),
    "a ResNet": (
        lambda state: {"visual.layer1.0.conv1.weight": torch.zeros(1), "transformer.x": torch.zeros(1)},
        r"a CLIP with a ResNet; use one with a vision transformer",
    ),
    "another network": (lambda state: {"conv1.weight": torch.zeros(1)}, r"not a CLIP: its first tensor is conv1"),
    "no numbers": (
        lambda state: {**state, "ln_final.bias": torch.full((48,), float("nan"))},
        "ln_final.bias has NaN",
    ),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_file_is_rejected_with_the_first_difference(fault, tmp_path):
    wrap, words = WRONG[fault]
    with pytest.raises(CheckpointError, match=words) as caught:
        download.get("tiny", file=save_open_clip(tmp_path / "theirs", wrap=wrap))
    assert "\n" not in str(caught.value)
    assert store.stored() == []


def test_the_image_tower_of_transformers_alone_is_rejected(tmp_path):
    hugging_face().vision_model.save_pretrained(tmp_path / "folder")
    file = tmp_path / "folder" / "model.safetensors"
    save_file({f"vision_model.{name}": each for name, each in hugging_face().vision_model.state_dict().items()}, file)
    with pytest.raises(CheckpointError, match="without the text tower"):
        download.get("half", file=file, activation="gelu")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_archive_is_rejected_with_advice(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "ViT-L-14.pt")
    with pytest.raises(CheckpointError, match=r"a TorchScript archive.*wasnow weights get openai-vit-l-14"):
        download.get(file=tmp_path / "ViT-L-14.pt", activation="quickgelu")


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_a_pickle_with_code_is_rejected(tmp_path, capsys):
    torch.save({**their_weights(), "x": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="could run code"):
        download.get(file=tmp_path / "evil.pt")
    assert "run" not in capsys.readouterr().out


def test_a_truncated_file_a_missing_one_and_an_empty_folder_are_rejected(tmp_path):
    file = save_open_clip(tmp_path / "theirs")
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="truncated"):
        download.get(file=file)
    with pytest.raises(CheckpointError, match="no such file or folder"):
        download.get(file=tmp_path / "nothing.pt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"a folder without model\.safetensors or"):
        download.get(file=tmp_path / "empty")


# --- finding --------------------------------------------------------------------------------------------------------


def test_weights_are_found_by_name_and_by_path(tmp_path):
    made = download.get("tiny", file=save_open_clip(tmp_path / "theirs"))
    assert store.find("tiny") == store.find(made.path) == made.path
    assert [one.name for one in store.stored()] == ["tiny"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            "remoteclip-vit-l-14",
            r"not in the cache yet; get them with wasnow weights get remoteclip-vit-l-14, .*--from",
        ),
        ("remoteclip-vit-l-15", "did you mean 'remoteclip-vit-l-14'"),
        ("some/where.safetensors", "no such file; check the path"),
    ],
)
def test_missing_weights_name_the_command_that_gets_them(asked, words):
    with pytest.raises(CheckpointError, match=words):
        store.find(asked)


def test_published_weights_are_not_mistaken_for_converted_ones(tmp_path):
    file = save_open_clip(tmp_path / "theirs")
    with pytest.raises(CheckpointError, match=r"convert them once with wasnow weights get --from"):
        store.find(file)
    hugging_face().save_pretrained(tmp_path / "folder")
    for path in (tmp_path / "folder", tmp_path / "folder" / "model.safetensors"):
        with pytest.raises(CheckpointError, match=r"once with wasnow weights get --from"):
            store.find(path)


def test_a_trained_model_is_not_mistaken_for_clip_weights(tmp_path):
    sealed.write_sealed(tmp_path / "best.safetensors", {"x": torch.zeros(1)}, {"format": 1})
    with pytest.raises(CheckpointError, match="a trained model instead of CLIP weights"):
        store.find(tmp_path / "best.safetensors")


def test_damage_in_the_cache_is_detected_on_loading(tmp_path):
    made = download.get("tiny", file=save_open_clip(tmp_path / "theirs"))
    held = bytearray(made.path.read_bytes())
    held[-100] ^= 1
    made.path.write_bytes(held)
    with pytest.raises(CheckpointError, match="checksum"):
        store.load("tiny")


def test_a_name_is_reused_for_other_weights_only_with_overwrite(tmp_path):
    file = save_open_clip(tmp_path / "theirs")
    made = download.get("tiny", file=file)
    assert download.get("tiny", file=file) == made
    other = save_open_clip(tmp_path / "others", "openclip_tiny_quickgelu", wrap=lambda state: {"state_dict": state})
    with pytest.raises(OutputError, match="pass --overwrite"):
        download.get("tiny", file=other)
    with pytest.raises(OutputError, match="pass --overwrite"):
        download.get("tiny", file=file, activation="quickgelu")
    assert download.get("tiny", file=other, overwrite=True).config.activation == "quickgelu"


def test_weights_without_a_name_are_named_after_their_file(tmp_path):
    file = save_open_clip(tmp_path / "theirs").rename(tmp_path / "theirs" / "My Own CLIP (2).pt")
    assert download.get(file=file).name == "my-own-clip-2"
    with pytest.raises(UsageError, match="not a valid name"):
        download.get("../up", file=file)


# --- downloading, without a network ---------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub with one file, which counts its requests."""
    file = save_open_clip(tmp_path / "hub")
    state = usual_widths()
    torch.save(state, file)
    published = Published(
        "someone/clip", "file.pt", "gelu", "c0ffee0", file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest()
    )
    monkeypatch.setattr(known, "KNOWN", {**KNOWN, "known": published})
    asked = []

    def download(repo, name, *, revision, local_dir):
        asked.append((repo, name, revision))
        return shutil.copy(file, local_dir / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    return asked, published, file


def publish(monkeypatch, published, **changes):
    monkeypatch.setattr(known, "KNOWN", {**known.KNOWN, "known": dataclasses.replace(published, **changes)})


def test_known_weights_are_downloaded_once_checked_and_converted(hub, tmp_path):
    asked, published, _ = hub
    made = download.get("known")
    assert asked == [("someone/clip", "file.pt", "c0ffee0")]
    assert made.verified
    assert (made.sha256, made.source) == (published.sha256, "someone/clip file.pt @ c0ffee0")
    assert download.get("known") == made
    assert len(asked) == 1
    # What was downloaded is not kept beside what was made of it.
    left = [path.relative_to(tmp_path / "cache") for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert [str(path) for path in left] == ["weights/known.safetensors"]


def test_a_local_file_is_checked_against_the_published_digest(hub, tmp_path):
    asked, _, file = hub
    made = download.get("known", file=file)
    assert made.verified
    assert not asked
    torch.save({**usual_widths(), "logit_scale": torch.tensor(1.0)}, file)
    with pytest.raises(CheckpointError, match=r"its sha256 is .*\.\.\. instead of the published .*\.\.\."):
        download.get("known", file=file, overwrite=True)


def test_a_published_file_is_recognised_under_any_name(hub, tmp_path):
    _, published, file = hub
    shutil.copy(file, tmp_path / "x.pt")
    made = download.get(file=tmp_path / "x.pt")
    assert (made.name, made.config.activation, made.verified) == ("known", published.activation, True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"size": 7}, "instead of the published 7"), ({"sha256": "0" * 64}, r"instead of the published 0{16}")],
)
def test_a_download_that_differs_from_the_published_file_is_deleted(hub, monkeypatch, tmp_path, changes, words):
    publish(monkeypatch, hub[1], **changes)
    with pytest.raises(CheckpointError, match=words):
        download.get("known")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_without_a_published_digest_weights_are_recorded_as_unverified(hub, monkeypatch):
    digest = hub[1].sha256
    publish(monkeypatch, hub[1], size=None, sha256=None)
    made = download.get("known")
    assert not made.verified
    assert store.header(made.path)["sha256"] == digest


def test_without_a_known_activation_nothing_is_downloaded(hub, monkeypatch):
    publish(monkeypatch, hub[1], activation=None)
    with pytest.raises(UsageError, match="pass --activation gelu or --activation quickgelu"):
        download.get("known")
    assert not hub[0]
    assert download.get("known", activation="quickgelu").config.activation == "quickgelu"


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (
            ConnectionError("no\nroute"),
            DownloadFailed,
            r"cannot be downloaded \(ConnectionError: no route\); check",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), DiskFull, "no space left"),
    ],
)
def test_a_download_that_fails_is_one_line_and_leaves_nothing_in_the_cache(hub, monkeypatch, error, kind, words):
    def interrupted(*_, local_dir, **__):
        (local_dir / "file.pt.incomplete").write_bytes(b"half")
        raise error

    monkeypatch.setattr("huggingface_hub.hf_hub_download", interrupted)
    with pytest.raises(kind, match=words) as caught:
        download.get("known")
    assert "\n" not in str(caught.value)
    assert store.stored() == []


def test_a_download_without_a_network_is_reported(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(download, "_check_room", lambda *_: None)
    with pytest.raises(
        DownloadFailed, match=r"chendelong/RemoteCLIP/RemoteCLIP-ViT-B-32\.pt cannot be downloaded .*--from"
    ):
        download.get("remoteclip-vit-b-32")


def test_a_full_disk_is_detected_before_the_download(hub, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("usage", "free")(hub[1].size))
    with pytest.raises(DiskFull, match="are required while converting"):
        download.get("known")
    assert not hub[0]


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UsageError, match=r"did you mean 'openai-vit-l-14'.*georsclip-vit-h-14"):
        download.get("openai-vitl-14")
    with pytest.raises(UsageError, match="no weights named"):
        download.get()


def test_the_list_of_known_weights_is_well_formed():
    for name, one in KNOWN.items():
        assert one.sha256 is None or (len(one.sha256) == 64 and set(one.sha256) <= set("0123456789abcdef")), name
        assert one.revision is None or len(one.revision) == 40, name
        assert one.repo.count("/") == 1, name
