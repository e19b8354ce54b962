"""``wasnow weights``, as it is typed."""

import json

import pytest
import torch
import typer
from typer.testing import CliRunner

from wasnow.cli import weights as verb

run = CliRunner()


@pytest.fixture
def app():
    """A program with this verb alone."""
    program = typer.Typer()
    # With one verb alone, typer would leave its name out.
    program.command("other")(lambda: None)
    program.add_typer(verb.app, name="weights")
    return program


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WASNOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def folder(tmp_path):
    """Small weights as transformers writes them."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    tower = {"num_hidden_layers": 1, "intermediate_size": 8, "hidden_size": 8, "num_attention_heads": 2}
    text = {**tower, "vocab_size": 300, "eos_token_id": 299}
    config = CLIPConfig(text_config=text, vision_config={**tower, "patch_size": 4, "image_size": 8}, projection_dim=4)
    CLIPModel(config).save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


def test_an_empty_cache_lists_the_weights_that_can_be_downloaded(app, tmp_path):
    result = run.invoke(app, ["weights"])
    assert result.exit_code == 0
    for words in ("remoteclip-vit-l-14", "chendelong/RemoteCLIP", "unknown", str(tmp_path / "cache")):
        assert words in result.stdout
    told = json.loads(run.invoke(app, ["weights", "--json"]).stdout)
    assert told["here"] == []
    assert "openai-vit-b-16" in told["can_be_fetched"]


def test_weights_from_a_folder_are_reported_and_listed(app, folder):
    result = run.invoke(app, ["weights", "get", "--from", str(folder), "--name", "mine"])
    assert result.exit_code == 0
    assert "ViT 8 wide, 1 blocks, patches of 4 px, images of 8 px; quickgelu" in result.stdout
    assert "mine has no known published digest" in result.stderr
    assert "not verified" in run.invoke(app, ["weights"]).stdout
    (one,) = json.loads(run.invoke(app, ["weights", "--json"]).stdout)["here"]
    assert (one["name"], one["config"]["activation"], one["verified"]) == ("mine", "quickgelu", False)


def test_quiet_prints_nothing_and_json_one_object(app, folder):
    result = run.invoke(app, ["weights", "get", "--from", str(folder), "--quiet"])
    assert (result.exit_code, result.output) == (0, "")
    result = run.invoke(app, ["weights", "get", "--from", str(folder), "--json"])
    assert json.loads(result.stdout)["config"]["image_width"] == 8


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["get"], 2, "no weights named"),
        (["get", "remote-clip"], 2, "unknown weights 'remote-clip'"),
        (["get", "georsclip-vit-l-14"], 2, "pass --activation gelu or --activation quickgelu"),
        (["get", "x", "--name", "y"], 2, "leave one out"),
        (["get", "--name", "y"], 2, "--name requires --from FILE"),
        (["get", "--from", "nowhere.pt"], 3, "nowhere.pt: no such file or folder"),
    ],
)
def test_errors_are_one_line_with_an_exit_code(app, arguments, code, words):
    result = run.invoke(app, ["weights", *arguments])
    assert result.exit_code == code
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_without_a_network_a_download_fails_in_one_line(app, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("wasnow.models.clip_weights.download._check_room", lambda *_: None)
    result = run.invoke(app, ["weights", "get", "remoteclip-vit-b-32"])
    assert result.exit_code == 8
    assert "cannot be downloaded" in result.stderr
    assert result.stderr.count("\n") == 1


def test_without_a_home_folder_the_command_asks_for_a_cache(app, monkeypatch):
    monkeypatch.delenv("WASNOW_CACHE")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    result = run.invoke(app, ["weights"])
    assert result.exit_code == 2
    assert "set WASNOW_CACHE" in result.output
