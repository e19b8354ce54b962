"""What stands between a model and its tiles: the same answers, or one clear line."""

import importlib.util
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from wasnow.errors import UsageError
from wasnow.models import loading, registry
from wasnow.models.contract import ChangeLogits, ChangeModel, FeatureModel, ModelCard
from wasnow.pipeline import acceleration
from wasnow.pipeline.acceleration import accelerated, require_openvino, through_openvino
from wasnow.pipeline.feature_cache import CachedFeatureModel, FeatureStore

INSTALLED = importlib.util.find_spec("openvino") is not None
ALONE = "WASNOW_TEST_OPENVINO"
"""Set where these tests have a process of their own: OpenVINO's threads do not outlive the forks of torch's loaders,
which other tests make."""

needs_openvino = pytest.mark.skipif(
    not INSTALLED or ALONE not in os.environ,
    reason="run in a process of its own" if INSTALLED else "the extra [openvino] is not installed",
)
WORDS = ("building", "water")


class Difference(nn.Module):
    """A network that is written down in a moment; change alone, or two classes with "unchanged" before them."""

    def __init__(self, *, classes: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Conv2d(4, 3, 1) if classes else None

    @property
    def card(self) -> ModelCard:
        return ModelCard("difference", "test", "tests", classes=WORDS if self.head is not None else (), stride=2)

    def bind(self, classes):
        return self

    def forward(self, before, after, valid):
        one, two = self.conv(before), self.conv(after)
        change = (one - two).abs().sum(dim=1, keepdim=True) * valid
        if self.head is None:
            return ChangeLogits(change)
        return ChangeLogits(change, self.head(one), self.head(two), unchanged_channel=True)


class Wavering(Difference):
    """Goes one of two ways, by what it sees: nothing that could be written down."""

    def forward(self, before, after, valid):
        return super().forward(before, after, valid) if before.mean() > after.mean() else ChangeLogits(after[:, :1])


def batch(count: int, rows: int = 32, cols: int = 64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    valid = torch.ones(count, 1, rows, cols, dtype=torch.bool)
    valid[:, :, :4] = False
    return (
        torch.rand(count, 3, rows, cols, generator=generator),
        torch.rand(count, 3, rows, cols, generator=generator),
        valid,
    )


def first(tensors: tuple[torch.Tensor, ...], count: int) -> tuple[torch.Tensor, ...]:
    return tuple(each[:count] for each in tensors)


def conversions(monkeypatch) -> list[str]:
    """Grows by one whenever something is compiled."""
    made: list[str] = []
    real = acceleration._compiled

    def counted(*arguments):
        made.append("one more")
        return real(*arguments)

    monkeypatch.setattr(acceleration, "_compiled", counted)
    return made


# --- without OpenVINO -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not INSTALLED or ALONE in os.environ, reason="openvino is absent, or this is its own process")
def test_what_is_said_of_openvino_holds_in_a_process_of_its_own():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", __file__]
    done = subprocess.run(command, env={**os.environ, ALONE: "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_network_comes_back_without_norms_and_in_eval_mode():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()
    found = accelerated(network)
    assert type(found) is nn.Sequential
    assert not found.training
    assert not any(isinstance(part, nn.BatchNorm2d) for part in found.modules())


def test_what_is_no_network_comes_back_as_it_is():
    model = registry.build("irmad")
    assert accelerated(model) is model


def test_a_missing_package_is_one_line_with_the_command(monkeypatch):
    monkeypatch.setattr(acceleration, "find_spec", lambda name: None)
    for ask in (require_openvino, lambda: accelerated(Difference(), device="openvino")):
        with pytest.raises(UsageError, match=r"pip install 'wasnow\[openvino\]'") as error:
            ask()
        assert "\n" not in str(error.value)


@needs_openvino
def test_what_is_no_network_is_refused_by_openvino():
    with pytest.raises(UsageError, match="irmad is no network"):
        accelerated(registry.build("irmad"), device="openvino")


# --- with it ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped():
    """The network that comes with wasnow, in other words than its own, and what OpenVINO makes of it."""
    pytest.importorskip("openvino", reason="the extra [openvino] is not installed")
    torch.set_num_threads(1)
    model = loading.load("semantic-cd-mini").bind(WORDS)
    return model, accelerated(model, device="openvino")


def test_the_shipped_network_answers_as_torch_does(shipped):
    model, faster = shipped
    # The engine calls it in such modes, which must not reach the conversion.
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        faster(*batch(1))
        found = faster(*batch(1))
    with torch.inference_mode():
        wanted = model(*batch(1))
    torch.testing.assert_close(found.change.sigmoid(), wanted.change.sigmoid(), rtol=0, atol=1e-3)
    for one, other in zip(found.land_cover, wanted.land_cover, strict=True):
        torch.testing.assert_close(one.softmax(dim=1), other.softmax(dim=1), rtol=0, atol=1e-3)


def test_what_a_run_asks_of_the_network_it_gets(shipped):
    model, faster = shipped
    assert isinstance(faster, ChangeModel)
    assert isinstance(faster, FeatureModel)
    assert faster.card == model.card
    assert faster.card == model.card
    assert not hasattr(faster, "weights_of_its_own")


def test_features_can_be_kept_and_answered_from(shipped, tmp_path):
    model, faster = shipped
    remembering = CachedFeatureModel(faster, FeatureStore(tmp_path, 10**9), "of this test")
    tiles = batch(1)
    fresh, kept = remembering(*tiles), remembering(*tiles)
    assert (remembering.encoded, remembering.reused) == (1, 1)
    torch.testing.assert_close(kept.change, fresh.change, rtol=1e-3, atol=1e-3)
    with torch.inference_mode():
        features = model.encode(*tiles)
        for one, other in zip(faster.encode(*tiles), features, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
        wanted = model.answer(features, (32, 64))
    found = faster.answer(features, (32, 64))
    torch.testing.assert_close(found.change.sigmoid(), wanted.change.sigmoid(), rtol=0, atol=1e-3)


@needs_openvino
@pytest.mark.parametrize("classes", [False, True])
def test_any_network_of_the_contract_can_be_converted(classes):
    model = Difference(classes=classes).eval()
    faster = through_openvino(model)
    assert not isinstance(faster, FeatureModel)
    with torch.no_grad():
        wanted = model(*batch(2))
    for _ in range(2):
        found = faster(*batch(2))
        assert (found.land_cover is None) == (not classes)
        assert found.unchanged_channel == classes
        torch.testing.assert_close(found.change, wanted.change, rtol=1e-4, atol=1e-4)


@needs_openvino
def test_a_smaller_last_batch_is_answered_by_what_there_is(monkeypatch):
    made = conversions(monkeypatch)
    model = Difference().eval()
    faster = through_openvino(model)
    tiles = batch(3)
    faster(*tiles)
    found = faster(*first(tiles, 2))
    assert found.change.shape[0] == 2
    assert len(made) == 1
    with torch.no_grad():
        torch.testing.assert_close(found.change, model(*first(tiles, 2)).change, rtol=1e-4, atol=1e-4)


@needs_openvino
def test_another_shape_is_converted_once(monkeypatch):
    made = conversions(monkeypatch)
    faster = through_openvino(Difference())
    for size in ((32, 32), (32, 64), (32, 32), (32, 64)):
        assert faster(*batch(1, *size)).change.shape[-2:] == size
    assert len(made) == 2


@needs_openvino
def test_an_answer_stays_what_it_was_when_the_next_one_comes():
    faster = through_openvino(Difference())
    before, after, valid = batch(1)
    faster(before, after, valid)
    kept = faster(before, after, valid).change
    copy = kept.clone()
    faster(after * 3, before, valid)
    assert torch.equal(kept, copy)


@needs_openvino
def test_a_network_that_cannot_be_written_down_is_one_clear_line():
    with pytest.raises(UsageError, match=r"OpenVINO cannot run difference .*use --device cpu") as error:
        through_openvino(Wavering())(*batch(1))
    assert "\n" not in str(error.value)


@needs_openvino
@pytest.mark.parametrize("wrong", [1.5, float("nan")])
def test_a_conversion_that_answers_otherwise_is_an_error_and_no_map(monkeypatch, wrong):
    model = Difference().eval()

    def off(graph, inputs, precision):
        return lambda given: tuple(part * wrong for part in graph(*given))

    monkeypatch.setattr(acceleration, "_compiled", off)
    with pytest.raises(UsageError, match=r"answers otherwise .*use --device cpu"):
        through_openvino(model)(*batch(1))


@needs_openvino
def test_bfloat16_is_asked_of_openvino_and_not_of_the_network(monkeypatch):
    asked = {}

    class Core:
        def compile_model(self, written, device, settings):
            asked.update(settings, device=device)
            raise RuntimeError("enough")

    real = acceleration.import_module
    monkeypatch.setattr(
        acceleration,
        "import_module",
        lambda name: SimpleNamespace(convert_model=real(name).convert_model, Core=Core),
    )
    with pytest.raises(UsageError, match="enough"):
        accelerated(Difference(), device="openvino", precision="bf16")(*batch(1))
    assert (asked["device"], asked["INFERENCE_PRECISION_HINT"]) == ("CPU", "bf16")
    assert asked["INFERENCE_NUM_THREADS"] == torch.get_num_threads()


@needs_openvino
def test_the_telemetry_of_openvino_is_never_loaded(tmp_path):
    package = tmp_path / "openvino_telemetry"
    package.mkdir()
    trace = tmp_path / "loaded"
    (package / "__init__.py").write_text(f"open({str(trace)!r}, 'w').close()\n")
    (package / "backend.py").write_text("backend_ga4 = None\n")
    code = (
        "import importlib.util, sys, torch\n"
        "from wasnow.pipeline import acceleration\n"
        "with acceleration._no_telemetry():\n"
        "    import openvino, openvino.tools.ovc.convert_impl\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
        "assert importlib.util.find_spec('openvino_telemetry') is not None\n"
    )
    path = os.pathsep.join([str(tmp_path), *([os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else [])])
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, check=True)
    assert not trace.exists()
