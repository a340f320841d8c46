"""Trackers beside MLflow: each point at least once, and none of them stops a run."""

import json
import textwrap

import pytest
from pydantic import ValidationError
from support.runs.project import Project
from support.stores.tracking_store import Finished, expected_keys_and_steps, keys_and_steps

from epochal.data.types import Target
from epochal.tasks.config.load import load_config
from epochal.tasks.config.parts import TrackingConfig
from epochal.tasks.running.lifecycle import active_run
from epochal.tasks.session.session import EpochPart
from epochal.tasks.trackers.delivery import OtherTracker, RunTrackers
from epochal.tasks.trackers.tracker import RunInfo
from epochal.tasks.tracking.connection import connect
from epochal.tasks.tracking.points import LogEvery

TRACKERS = """
    import json
    import os
    from pathlib import Path

    class ToFile:
        def __init__(self, path):
            self.path = Path(path)

        def tell(self, body):
            with self.path.open("a") as file:
                file.write(json.dumps(body) + chr(10))

        def open(self, run):
            print("noise of a tracker")
            self.tell(["open", run.reference, run.params, "MLFLOW_TRACKING_TOKEN" in os.environ])

        def log(self, points):
            for point in points:
                self.tell([point.key, point.step, point.timestamp_ms, point.value])

        def close(self, status):
            self.tell(["close", status])

    class Fails(ToFile):
        def log(self, points):
            raise OSError("the other side of the world is away")
"""


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "trackers_of_test.py").write_text(textwrap.dedent(TRACKERS))
    return folder


def other(finished, folder, notices, *, name="ToFile", epochs=None):
    """A tracker that has got all stages of the run."""
    target = Target(target=f"trackers_of_test:{name}", args={"path": str(folder / "points.jsonl")})
    tracker = OtherTracker(
        target,
        RunInfo("digits", "digits@1", str(folder), {"seed": "7"}),
        place="tracking.also[0]",
        stages=finished.stages,
        log_every=LogEvery(log_every_updates=1, per_group=True),
        measures=[("accuracy", "max")],
        notice=notices.append,
    )
    tracker.start()
    for record in finished.records:
        tracker.deliver(record)
    return tracker


def told(folder):
    return [json.loads(line) for line in (folder / "points.jsonl").read_text().splitlines()]


def test_an_own_tracker_gets_every_point_and_after_an_end_only_what_it_lacks(
    folder, home, monkeypatch, capfd
):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "of mine")
    finished, notices = Finished(epochs=1, updates=4), []
    tracker = other(finished, folder, notices)
    tracker.end("FINISHED")
    tracker.join(60)
    first = told(folder)
    assert first[0] == ["open", "digits@1", {"seed": "7"}, False]
    assert first[-1] == ["close", "FINISHED"]
    assert sorted((key, step) for key, step, *_ in first[1:-1]) == expected_keys_and_steps(
        finished, 1
    )
    finished.add_epoch(1)
    again = other(finished, folder, notices)
    again.end("FINISHED")
    again.join(60)
    more = told(folder)[len(first) :]
    assert {step for _, step, *_ in more[1:-1]} == {5, 6, 7, 8}
    assert notices == []
    assert capfd.readouterr() == ("", "")  # what it prints is in ~/.epochal/trackers.log


def test_what_is_committed_of_an_epoch_comes_before_its_end_and_only_once(folder, home):
    import numpy as np

    finished, notices = Finished(epochs=0, updates=4), []
    tracker = other(finished, folder, notices)
    finished.add_epoch(0)
    values = np.array([1.0, 2.0])
    tracker.deliver(
        EpochPart("k", {"train/loss": values}, updates_before=0, times=[[0, 1_700_000_000_000]])
    )
    for record in finished.records[1:]:
        tracker.deliver(record)
    tracker.end("KILLED")
    tracker.join(60)
    losses = [step for key, step, *_ in told(folder)[1:-1] if key == "train/loss"]
    assert losses == [1, 2, 3, 4]


def test_one_that_fails_is_said_once_and_mlflow_has_everything(folder, home, database):
    finished, notices = Finished(epochs=2, updates=4), []
    mlflow = finished.tracker(database.uri)
    both = RunTrackers(mlflow, [other(finished, folder, notices, name="Fails")])
    mlflow.start()
    for record in finished.records:
        mlflow.deliver(record)
    result = both.finish("FINISHED", best=None, tags={})
    assert result.problem is None
    assert keys_and_steps(database, result.run_id) == expected_keys_and_steps(finished, 2)
    (notice,) = notices
    assert "tracking.also[0] (trackers_of_test:Fails)" in notice
    assert "the other side of the world is away" in notice
    assert not [path for path in finished.store.listing("runs") if "/also-" in path]


def test_trackers_are_named_shortly_or_by_a_target():
    given = [
        "tensorboard",
        {"target": "trackio", "args": {"project": "mine"}},
        {"target": "my:Own"},
    ]
    config = TrackingConfig.model_validate({"also": given})
    assert [one.target for one in config.also] == [
        "epochal.tasks.trackers.built_in:TensorBoard",
        "epochal.tasks.trackers.built_in:Trackio",
        "my:Own",
    ]
    with pytest.raises(
        ValidationError, match="'wandb' is no tracker by name: expected tensorboard"
    ):
        TrackingConfig.model_validate({"also": ["wandb"]})


def test_a_run_writes_tensorboard_s_files_beside_its_config(tmp_path, tracker):
    tracking = {"experiment": "tests", "also": ["tensorboard"]}
    project = Project(tmp_path / "project", epochs=1, tracking=tracking)
    with active_run(load_config(project.config)) as active:
        for stage in active.run.stages():
            active.run.run_stage(stage)
    (events,) = (project.folder / "tensorboard" / "blobs@1").iterdir()
    assert events.stat().st_size > 1000
    assert connect(tracker).get_run(active.delivered.run_id).info.status == "FINISHED"
