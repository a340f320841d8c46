"""What follows from the records of a run: its best epoch, and the one that it was stopped with."""

import pytest
from support.numbers.stage_keys import FACTS, config

from epochal.data.stage_store.records import StageRecord
from epochal.tasks.planning.run_view import RunView
from epochal.tasks.stages.registry import list_stages

SHA = "f" * 64


def view(losses, **sets):
    """A run of four epochs whose validations are done where `losses`, by epoch, has one."""
    run = config(epochs=4, schedule={"kind": "constant"}, sampling__policy="none", **sets)
    stages = list_stages(run, FACTS)
    records = {
        stage.key: StageRecord(
            stage="validate", epoch=stage.epoch, key=stage.key, inputs={}, environment={},
            environment_digest=SHA, consumed={}, artifacts={},
            values={"metrics": {"loss": losses[stage.epoch]}},
        )
        for stage in stages
        if stage.kind == "validate" and stage.epoch in losses
    }  # fmt: skip
    return RunView(run, stages, records)


@pytest.mark.parametrize(
    ("mode", "losses", "epoch"),
    [
        ("min", {0: 3.0, 1: 1.0, 2: 1.0, 3: 2.0}, 1),
        ("max", {0: 3.0, 1: 1.0, 2: 3.0, 3: None}, 0),
        ("min", {0: None}, None),
    ],
)
def test_the_best_epoch_is_the_earliest_of_the_best_finite_values(mode, losses, epoch):
    best = view(losses, metrics={"best": "loss", "best_mode": mode}).best
    assert (None if best is None else best.epoch) == epoch


def test_an_epoch_that_is_not_validated_decides_nothing_and_no_later_one_does():
    sets = {"early_stopping": {"patience": 1, "metric": "loss"}}
    assert view({0: 1.0, 1: 2.0}, **sets).stopped_after == 1
    assert view({0: 1.0, 2: 2.0}, **sets).stopped_after is None


def test_a_run_that_ends_by_itself_was_not_stopped():
    sets = {"early_stopping": {"patience": 1, "metric": "loss"}}
    assert view({0: 4.0, 1: 3.0, 2: 2.0, 3: 5.0}, **sets).stopped_after is None


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ({}, "no validated epoch yet"),
        ({0: None}, "'loss' is NaN or infinite in its epoch validated"),
        ({0: None, 1: None}, "'loss' is NaN or infinite in all its 2 epochs validated"),
    ],
)
def test_where_no_epoch_is_best_the_reason_is_told(losses, said):
    run = view(losses, metrics={"best": "loss"})
    assert run.best is None
    assert said in run.why_no_best()


def test_a_metric_that_was_not_measured_is_told_apart_from_one_that_is_not_finite():
    run = view({0: 1.0}, metrics={"validation": ["loss", "accuracy"], "best": "loss"})
    assert "'accuracy' was not measured" in run.why_no_best(
        run.config.metrics.model_copy(update={"best": "accuracy"})
    )
