"""Defects of checkpoints and resuming of the trainer that this one replaces.

The numbers are those of the list in test_cvnets_defects_all.py.
"""

import pytest
import torch
from support.numbers.evaluation import metrics
from support.numbers.tiny_model import Net, batches, cross_entropy, new_state, run_epoch, samples
from support.runs.bare_run import BareRun
from support.runs.epoch_commits import durable_at_once
from support.runs.project import Project, environment

from epochal.data.errors import TrainingFailed
from epochal.data.store.open import open_store
from epochal.data.tables.schemas import OBSERVATIONS
from epochal.data.tables.writing import read_table
from epochal.engine.config.numerics import EmaConfig
from epochal.engine.loop.evaluate import validate_epoch
from epochal.engine.model.ema import WeightAverage

OFTEN = {"checkpoint__every_updates": 1}


@pytest.fixture
def project(tmp_path, home):
    return Project(tmp_path / "project", epochs=2, sampling={"policy": "none"})


def broken_and_gone_on(project, *, call):
    """A run that ended at that micro-step, and was then started again."""
    with environment(FAIL_AT_CALL=str(call)), pytest.raises(TrainingFailed):
        BareRun(project.config, **OFTEN)()
    again = BareRun(project.config, **OFTEN)()
    assert list(again.resumed)[:1] == [("train", (call - 1) // 12)]
    return again


def column(run, epoch, artifact, name, schema):
    record = run.view.record_of(run.view.stage("train", epoch))
    with run.session.stage_store.fetch_artifact(record, artifact) as path:
        return read_table(path, schema=schema).columns[name].tolist()


def test_17_an_epoch_goes_on_inside_itself_each_sample_once(project):
    """A resume went on at the next epoch, so that the rest of this one was never trained on."""
    again = broken_and_gone_on(project, call=8)
    ids = column(again, 0, "observations", "sample_id", OBSERVATIONS)
    assert sorted(ids) == list(range(180))


def test_18_updates_are_numbered_without_a_gap_after_a_resume(project, tmp_path):
    """The count was put one too far at each resume."""
    whole = BareRun(project.config, store=f"file://{tmp_path}/whole")()
    again = broken_and_gone_on(project, call=20)
    for run in (whole, again):
        done = [
            run.view.record_of(run.view.stage("train", epoch)).values["updates_done"]
            for epoch in (0, 1)
        ]
        assert done == [6, 12]
    assert again.digests == whole.digests


def test_20_one_commit_for_each_due_update_and_none_before_the_first(project, monkeypatch):
    """With accumulation it saved again at each micro-batch of one count, and at count 0."""
    durable_at_once(monkeypatch)
    run = BareRun(project.config, epochs=1, checkpoint__every_updates=2)()
    assert [len(part.metrics["train/loss"]) for part in run.parts] == [2, 4, 6]


def test_21_no_checkpoint_is_removed_or_overwritten_before_the_next_one_stands(project):
    """The last checkpoint was removed, then written in its own place, on local disks only."""
    BareRun(project.config)()
    paths = [path for path in project.store.glob("stages/**/*") if path.is_file()]
    before = {path: path.read_bytes() for path in paths}
    BareRun(project.config, epochs=3)()
    assert {path: path.read_bytes() for path in paths} == before
    store = open_store(f"file://{project.store}")
    with pytest.raises(FileExistsError):
        store.put_new(paths[0].relative_to(project.store).as_posix(), b"another")


def test_29_other_weights_are_measured_as_they_are_and_the_models_own_come_back():
    """The loss landscape put weights into the model, measured a copy, and mixed its points."""
    x, y = samples(60)
    state = new_state(Net)
    state.ema = WeightAverage(state.model, EmaConfig(decay=0.9, warm_up=False))
    run_epoch(state, x, y)
    own = {name: one.clone() for name, one in state.model.state_dict().items()}

    def measured(model):
        found = validate_epoch(
            model,
            batches(x, y, batch_size=16),
            step=cross_entropy(),
            metrics=metrics("accuracy"),
            seed=1,
        )
        return found.values["loss"]

    first = measured(state.model)
    with state.ema.applied() as averaged:
        there = measured(averaged)
    other = new_state(Net, seed=9)
    other.model.load_state_dict(state.ema.tensors)
    assert there == measured(other.model) != first
    assert measured(state.model) == first
    for name, tensor in state.model.state_dict().items():
        assert torch.equal(tensor, own[name]), name
