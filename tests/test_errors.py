"""Exceptions: exit codes, one-line messages, and the way between processes."""

import pickle

import pytest

from wasnow import errors
from wasnow.errors import (
    CheckpointError,
    DatasetError,
    DownloadFailed,
    InputError,
    OutOfMemory,
    PairsError,
    RasterUnreadable,
    ResumeRefused,
    TrainingDiverged,
    UnknownLabels,
    UnknownModel,
    UsageError,
    WasnowError,
    WorkersLost,
    did_you_mean,
)

EXAMPLES = [
    UnknownModel("irmat", ["irmad", "cva"]),
    RasterUnreadable("a.tif", "is empty (0 bytes)", "Copy it again"),
    CheckpointError("w.safetensors", "no such file"),
    PairsError("pairs.csv", [f"row {i}: no such file" for i in range(12)]),
    DatasetError("d: two faults", ["one", "two"]),
    UnknownLabels("l.png", {str(i): 5 for i in range(6)}, "binary"),
    ResumeRefused("out", ["tile was 512, is now 256"]),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_exception_survives_pickling_with_its_attributes(error):
    restored = pickle.loads(pickle.dumps(error))
    assert type(restored) is type(error)
    assert str(restored) == str(error)
    assert vars(restored) == vars(error)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_a_message_is_one_line(error):
    assert "\n" not in str(error)


@pytest.mark.parametrize("kind", [OutOfMemory, DownloadFailed, WorkersLost])
def test_missing_resources_are_neither_usage_errors_nor_input_errors(kind):
    assert kind.exit_code == errors.EXIT_RESOURCES == 8
    assert not issubclass(kind, UsageError | InputError)


def test_divergence_has_its_own_exit_code():
    assert TrainingDiverged.exit_code == errors.EXIT_DIVERGED == 9
    assert not issubclass(TrainingDiverged, UsageError | InputError)


def test_each_branch_of_the_tree_has_its_own_exit_code():
    branches = [kind.exit_code for kind in WasnowError.__subclasses__()]
    assert len(set(branches)) == len(branches)


def test_only_ten_faults_of_a_list_are_shown_and_the_rest_counted():
    error = PairsError("pairs.csv", [f"row {i}" for i in range(12)])
    assert "row 9; and 2 more" in str(error)
    assert len(error.faults) == 12


def test_the_nearest_known_word_is_suggested_and_nothing_for_a_distant_one():
    assert did_you_mean("irmat", ["irmad", "cva"]) == "; did you mean 'irmad'?"
    assert did_you_mean("zzz", ["irmad", "cva"]) == ""
