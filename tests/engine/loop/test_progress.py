"""Validation inside epochs: rows among the step metrics, and nothing else of the run changes."""

import copy
import os
import signal
from types import SimpleNamespace

import pytest
import torch
from mlflow import MlflowClient
from support.numbers.evaluation import metrics, validate
from support.numbers.tiny_model import batches, bits, cross_entropy, new_state, run_epoch, samples
from support.runs.bare_run import BareRun
from support.runs.project import Project, environment

from epochal.data.errors import Interrupted, TrainingFailed
from epochal.data.tables.writing import UPDATES, read_table
from epochal.engine.loop.evaluate import validate_epoch
from epochal.engine.loop.progress import MidEpochValidation, validation_columns, validations_of
from epochal.tasks.stages import validate as validation

INSIDE = {"validation__every_updates": 2}
OFTEN = {"checkpoint__every_updates": 1}


def rows(run, epoch):
    """(step, key) → value of what was validated inside that epoch."""
    record = run.view.record_of(run.view.stage("train", epoch))
    with run.session.stage_store.fetch_artifact(record, "updates") as path:
        table = read_table(path, schema=UPDATES).columns
    return {
        (step, key): value
        for step, key, value in zip(*(table[name].tolist() for name in table), strict=True)
        if key.startswith("validation_inside/")
    }


@pytest.fixture
def project(tmp_path, home):
    return Project(tmp_path / "project", epochs=2)


def test_it_changes_nothing_of_the_training():
    x, y = samples(61)
    plain, watched = new_state(), new_state()
    found = []

    def measure(progress):
        found.append((progress.updates, validate(watched, x, y).values["loss"]))
        return {"loss": found[-1][1]}

    run_epoch(plain, x, y)
    result = run_epoch(watched, x, y, validation=MidEpochValidation(3, measure))
    assert bits(plain) == bits(watched)
    assert [update for update, _ in found] == [3, 6]
    column = result.updates["validation_inside/loss"]
    assert [(row + 1, column[row]) for row in (2, 5)] == found


def test_values_are_those_of_the_weights_at_that_update():
    x, y = samples(61)
    state, by_hand = new_state(), []

    def look(progress):
        if progress.updates == 4 and not by_hand:
            other = copy.deepcopy(state.model).eval()
            with torch.no_grad():
                by_hand.append(float(torch.nn.functional.cross_entropy(other(x), y).double()))

    def measure(progress):
        return validate_epoch(
            state.model,
            batches(x, y, batch_size=61),
            step=cross_entropy(),
            metrics=metrics("accuracy"),
            seed=1,
        ).values

    result = run_epoch(state, x, y, validation=MidEpochValidation(4, measure), on_progress=look)
    assert result.updates["validation_inside/loss"][3] == pytest.approx(by_hand[0], rel=1e-6)


def test_columns_round_trip():
    inside = {2: {"accuracy": 0.5, "loss": 1.0}, 4: {"accuracy": 0.75, "loss": 0.5}}
    columns = validation_columns(inside, num_updates=5)
    assert list(columns) == ["validation_inside/accuracy", "validation_inside/loss"]
    assert validations_of(columns) == inside


def test_rows_stand_in_the_table_and_the_weights_are_those_of_a_run_without(tmp_path, project):
    plain = BareRun(project.config, store=f"file://{tmp_path}/plain")()
    run = BareRun(project.config, **INSIDE)()
    assert run.weights == plain.weights
    found = rows(run, 0)
    assert sorted(found) == [
        (step, f"validation_inside/{name}") for step in (2, 4) for name in ("accuracy", "loss")
    ]
    assert rows(plain, 0) == {}
    keys = {(one.kind, one.epoch): one.key for one in run.view.stages}
    before = {(one.kind, one.epoch): one.key for one in plain.view.stages}
    assert keys["initialise", None] == before["initialise", None]
    assert keys["train", 0] != before["train", 0]


def test_the_average_of_the_weights_is_validated_inside_too(project):
    run = BareRun(project.config, epochs=1, ema="{decay: 0.9}", **INSIDE)()
    assert (2, "validation_inside/ema/accuracy") in rows(run, 0)


@pytest.mark.parametrize("call", [4, 5, 6, 9, 10, 17, 20])
def test_an_epoch_goes_on_to_the_same_bytes(call, tmp_path, project):
    whole = BareRun(project.config, store=f"file://{tmp_path}/whole", **INSIDE)().digests
    with environment(FAIL_AT_CALL=str(call)), pytest.raises(TrainingFailed):
        BareRun(project.config, **INSIDE, **OFTEN)()
    again = BareRun(project.config, **INSIDE, **OFTEN)()
    assert again.digests == whole
    assert again.resumed


def test_a_signal_inside_it_commits_and_the_value_is_measured_by_the_next(
    tmp_path, project, monkeypatch
):
    whole = BareRun(project.config, store=f"file://{tmp_path}/whole", **INSIDE)().digests
    original, count = validation.measure, []

    def measure(session, *, seed, on_batch):
        count.append(seed)
        if len(count) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(session, seed=seed, on_batch=on_batch)

    monkeypatch.setattr(validation, "measure", measure)
    with pytest.raises(Interrupted):
        BareRun(project.config, **INSIDE)()
    again = BareRun(project.config, **INSIDE)()
    assert again.resumed == {("train", 0): 8}, "four updates of two micro-batches"
    assert again.digests == whole


def test_the_tracker_gets_them_at_their_updates_however_thinned(tmp_path, tracker, prefect_api):
    project = Project(tmp_path / "project", epochs=1, sampling={"policy": "none"})
    sets = {**INSIDE, "tracking__log_every_updates": 5}
    done = project("train", **sets, **OFTEN)
    assert done.code == 0, done.err
    client, run_id = MlflowClient(tracker), done.json["mlflow_run_id"]
    history = client.get_metric_history(run_id, "validation_inside/accuracy")
    assert [point.step for point in history] == [2, 4]
    assert all(0 <= point.value <= 1 for point in history)
    losses = client.get_metric_history(run_id, "train/loss")
    assert [point.step for point in losses] == [5, 6]


def test_nothing_is_measured_within_an_update():
    asked = []
    validation = MidEpochValidation(2, lambda progress: asked.append(progress.updates) or {})

    def after(partial_loss):
        return SimpleNamespace(
            updates=2,
            num_updates=6,
            validations={},
            recorder=SimpleNamespace(partial_loss=lambda: partial_loss),
        )

    validation.when_due(after([0.5]))
    assert asked == []
    validation.when_due(after(None))
    assert asked == [2]
