"""`max_updates`: exactly so many updates, and only the epoch that it cuts knows of it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from support.numbers.stage_keys import FACTS, config
from support.numbers.tiny_model import batches, cross_entropy, new_state, samples
from support.runs.bare_run import BareRun
from support.runs.project import Project, environment

from epochal.data.errors import ConfigError, TrainingFailed
from epochal.data.loading.order import micro_batches
from epochal.engine.loop.epoch import Recipe, train_epoch
from epochal.tasks.planning.run_length import updates_left, updates_of, with_epochs
from epochal.tasks.planning.stage import DatasetFacts, RunInputs
from epochal.tasks.stages.registry import list_stages

PLAIN = {"sampling": {"policy": "none"}, "schedule": {"kind": "constant"}}


@given(
    st.integers(1, 400), st.integers(1, 50), st.integers(1, 5), st.integers(0, 4), st.booleans(),
    st.integers(1, 300),
)  # fmt: skip
def test_the_epochs_of_a_limit_have_exactly_that_many_updates(
    count, batch_size, accumulate, start, drop_last, limit
):
    found = config(
        **PLAIN,
        epochs=1000,
        max_updates=limit,
        loader={"batch_size": batch_size, "drop_last": drop_last},
        gradients={"accumulate": accumulate, "accumulate_from": start},
    )
    resolved = with_epochs(found, num_samples=count)
    total = 0
    for epoch in range(resolved.epochs):
        plan = micro_batches(
            torch.arange(count).numpy(),
            batch_size=batch_size,
            accumulate=found.gradients.accumulated(epoch),
            drop_last=drop_last,
        )
        whole = updates_of(found, epoch, num_samples=count)
        assert whole == plan.num_updates
        left = updates_left(resolved, epoch, num_samples=count)
        assert left is None or epoch == resolved.epochs - 1
        total += whole if left is None else left
    assert total == limit


def keys(count=100, **changes):
    run_inputs = RunInputs(FACTS.sources, DatasetFacts("c" * 64, count), FACTS.validation_data)
    found = with_epochs(config(**{**PLAIN, **changes}), num_samples=count)
    return {(one.kind, one.epoch): one.key for one in list_stages(found, run_inputs)}


def test_only_the_epoch_that_is_cut_has_the_limit_in_its_key():
    # 100 samples, 32 in a batch: 4 updates in an epoch
    whole = keys(epochs=3)
    cut = keys(max_updates=10, epochs=8)
    assert {place for place in whole if whole[place] != cut[place]} == {
        ("train", 2), ("validate", 2),
    }  # fmt: skip
    assert keys(max_updates=12, epochs=8) == whole
    assert keys(max_updates=100, epochs=3) == whole, "`epochs` is the upper bound"


def test_epochs_have_no_key_while_it_is_not_known_which_of_them_is_cut():
    found = keys(count=None, max_updates=10, epochs=3)  # the data's `version` is stated, not read
    assert found["initialise", None]
    assert {key for (kind, _), key in found.items() if kind != "initialise"} == {None}


def test_a_limit_needs_epochs_of_one_length():
    with pytest.raises(ValueError, match="max_updates: it needs the same number of updates"):
        config(schedule={"kind": "constant"}, max_updates=5)


def test_a_schedule_that_does_not_fit_is_an_error():
    found = config(
        **{**PLAIN, "schedule": {"kind": "warmup_stable_decay", "decay": 3}}, max_updates=4
    )
    with pytest.raises(ConfigError, match="max_updates: 4 leaves of 100 samples"):
        with_epochs(found, num_samples=100)


def test_a_cut_epoch_runs_at_the_rates_of_the_whole_one():
    x, y = samples(64)

    def rates(count, **more):
        state = new_state()
        result = train_epoch(
            state,
            batches(x[:count], y[:count], batch_size=8),
            Recipe(cross_entropy(), rate=lambda epoch: epoch),
            epoch=2,
            num_updates=count // 8,
            **more,
        )
        return result.updates["train/learning_rate"], state

    whole, _ = rates(64)
    cut, _ = rates(24, updates_per_epoch=8)
    assert cut.tolist() == whole[:3].tolist()


@pytest.fixture
def project(tmp_path, home):
    return Project(tmp_path / "project", epochs=9, sampling={"policy": "none"})


def updates_of_run(run):
    records = [one for one in run.view.records.values() if one.stage == "train"]
    return [one.values["updates"] for one in sorted(records, key=lambda one: one.epoch)]


def test_a_run_has_exactly_that_many_updates_and_a_validated_end(project):
    # 180 samples in 12 batches, two to an update: 6 updates in an epoch
    run = BareRun(project.config, max_updates=15)()
    assert updates_of_run(run) == [6, 6, 3]
    last = {one.stage: one for one in run.view.records.values() if one.epoch == 2}
    assert last["train"].values["updates_done"] == last["validate"].values["updates_done"] == 15
    assert last["train"].values["samples"] == 3 * 2 * 16
    longer = BareRun(project.config, max_updates=20)()
    assert updates_of_run(longer) == [6, 6, 6, 2]
    assert [one.stage.epoch for one in longer.outcomes if one.cached] == [None, 0, 0, 1, 1]


def test_epochs_may_be_left_out(project):
    text = project.config.read_text().replace("epochs: 9\n", "")
    assert "epochs" not in text
    project.config.write_text(text)
    before = project("plan", max_updates=15)
    assert before.json["data_not_read"] == ["train_data", "validation_data"]
    run = BareRun(project.config, max_updates=15)()
    assert updates_of_run(run) == [6, 6, 3]
    after = project("plan", max_updates=15)
    assert (after.code, after.json["would_run"], after.json["done"]) == (0, 0, 7)
    done = project("plan")
    assert done.code == 2
    assert "epochs: is missing" in done.err


def test_a_cut_epoch_goes_on_to_the_same_bytes(tmp_path, project):
    options = {"max_updates": 9, "checkpoint__every_updates": 1}
    whole = BareRun(project.config, store=f"file://{tmp_path}/whole", **options)()
    with environment(FAIL_AT_CALL="17"), pytest.raises(TrainingFailed):
        BareRun(project.config, **options)()
    again = BareRun(project.config, **options)()
    assert ("train", 1) in again.resumed
    assert again.digests == whole.digests


@pytest.mark.slow
def test_the_command_needs_no_epochs_beside_a_limit(tmp_path, tracker, prefect_api):
    project = Project(tmp_path / "project", sampling={"policy": "none"})
    project.config.write_text(project.config.read_text().replace("epochs: 4\n", ""))
    done = project("train", max_updates=8)
    assert done.code == 0, done.err
    assert done.stages(stage="train") == [("train", 0), ("train", 1)]
    client, run_id = MlflowClient(tracker), done.json["mlflow_run_id"]
    steps = [point.step for point in client.get_metric_history(run_id, "train/loss")]
    assert sorted(steps) == list(range(1, 9))
    assert client.get_run(run_id).data.tags["epochs"] == "2"
    longer = project("train", max_updates=12)
    assert longer.json["mlflow_run_id"] != run_id, "the epoch that was cut is another one now"
    assert longer.stages(cached=False) == [("train", 1), ("validate", 1)]
