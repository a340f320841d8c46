"""TensorBoard and trackio as trackers."""

import math
import sys
from types import SimpleNamespace

import pytest

from epochal.data.errors import ConfigError
from epochal.tasks.trackers.built_in import TensorBoard, Trackio
from epochal.tasks.trackers.tracker import RunInfo
from epochal.tasks.tracking.points import Row

POINTS = [
    Row("train/loss", 1, 1_700_000_000_000, 0.5),
    Row("gradients/norm", 1, 1_700_000_000_000, 2.0),
    Row("train/loss", 2, 1_700_000_001_000, math.nan),
]


@pytest.fixture
def run(tmp_path):
    return RunInfo("digits", "digits@2", str(tmp_path), {"optimizer.args.lr": "0.1"})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_the_points_with_their_steps_and_times(run, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = TensorBoard(folder="./boards")
    tracker.open(run)
    tracker.log(POINTS)
    read = EventAccumulator(str(tmp_path / "boards" / "digits@2"))
    read.Reload()  # before the end: they are in the file when `log` returns
    tracker.close("FINISHED")
    losses = read.Scalars("train/loss")
    assert [(one.step, one.wall_time) for one in losses] == [
        (1, 1_700_000_000.0), (2, 1_700_000_001.0),
    ]  # fmt: skip
    assert losses[0].value == 0.5
    assert math.isnan(losses[1].value)
    text = read.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| optimizer.args.lr | 0.1 |" in text


def stand_in(calls, log):
    """A module with the three functions of trackio that are used."""
    return SimpleNamespace(
        init=lambda project, name=None, config=None: calls.append((project, name, config)),
        log=log,
        finish=lambda: calls.append("finished"),
    )


def test_trackio_gets_all_metrics_of_a_step_at_once(run, monkeypatch):
    calls = []

    def log(metrics, step=None):
        calls.append((step, metrics))

    monkeypatch.setitem(sys.modules, "trackio", stand_in(calls, log))
    tracker = Trackio()
    tracker.open(run)
    tracker.log(POINTS[:2])
    tracker.close("FINISHED")
    assert calls == [
        ("digits", "digits@2", {"optimizer.args.lr": "0.1"}),
        (1, {"train/loss": 0.5, "gradients/norm": 2.0}),
        "finished",
    ]


def test_trackio_of_its_first_versions_is_told_the_update_among_the_metrics(run, monkeypatch):
    calls = []
    monkeypatch.setitem(sys.modules, "trackio", stand_in(calls, calls.append))
    tracker = Trackio(project="mine")
    tracker.open(run)
    tracker.log(POINTS[:1])
    assert calls == [
        ("mine", "digits@2", {"optimizer.args.lr": "0.1"}), {"train/loss": 0.5, "update": 1},
    ]  # fmt: skip


@pytest.mark.parametrize(("made", "name"), [(TensorBoard, "tensorboard"), (Trackio, "trackio")])
def test_one_that_is_not_installed_says_how_to_install_it(made, name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"pip install 'epochal\[{name}\]'"):
        made()
