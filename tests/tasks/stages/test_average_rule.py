"""Which epochs are averaged: a pure function of the validations, decided once all are there."""

import pytest
from support.numbers.stage_keys import FACTS, config

from epochal.data.stage_store.records import StageRecord
from epochal.tasks.stages.average import chosen_epochs, is_decided
from epochal.tasks.stages.registry import list_stages

LOSSES = [4.0, 2.0, 3.0, 1.0]
SHA = "f" * 64


def averaging(averaging, **sets):
    """The stages of a run of four epochs, the stage `average` among them."""
    sets = {"epochs": 4, "schedule": {"kind": "constant"}, "sampling__policy": "none", **sets}
    run = config(averaging=averaging, metrics={"best": "loss"}, **sets)
    stages = list_stages(run, FACTS)
    return run, stages, next(stage for stage in stages if stage.kind == "average")


def validated(stages, losses):
    """Records of the validations of the first epochs."""
    found = {}
    for stage in stages:
        if stage.kind == "validate" and stage.epoch < len(losses):
            found[stage.key] = StageRecord(
                stage="validate", epoch=stage.epoch, key=stage.key, inputs={}, environment={},
                environment_digest=SHA, consumed={}, artifacts={},
                values={"metrics": {"loss": losses[stage.epoch]}},
            )  # fmt: skip
    return found


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        (LOSSES, (1, 3)),
        ([1.0, 2.0, 3.0, 4.0], (0, 1)),
        ([None, 2.0, None, None], (1,)),
        ([2.0, 2.0, 2.0, 2.0], (0, 1)),
    ],
)
def test_the_best_are_those_of_the_lowest_loss_and_of_equal_ones_the_first(losses, expected):
    _, stages, average = averaging({"best": 2})
    assert chosen_epochs(average, validated(stages, losses)) == expected


def test_the_best_are_decided_once_every_validation_is_there():
    _, stages, average = averaging({"best": 2})
    assert [is_decided(average, validated(stages, LOSSES[:count])) for count in range(5)] == [
        False, False, False, False, True,
    ]  # fmt: skip


def test_the_last_are_decided_from_the_start_and_no_other_epoch_is_a_parent():
    _, _, average = averaging({"last": 2})
    assert chosen_epochs(average, {}) == (2, 3)
    assert is_decided(average, {})
    assert set(average.parents) == {"train.2", "train.3"}


def test_a_run_that_was_stopped_averages_the_last_epochs_that_it_had():
    _, stages, average = averaging({"last": 2}, early_stopping={"patience": 1})
    records = validated(stages, [1.0, 0.5, 2.0])
    assert chosen_epochs(average, records) == (1, 2)
    assert is_decided(average, records)
