"""Schedules: pure functions of the fractional epoch, and what of them is in an epoch's key."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from epochal.engine.schedule.schedule import ScheduleConfig, factor, segments

READ = TypeAdapter(ScheduleConfig).validate_python

KINDS = st.one_of(
    st.builds(lambda warmup: {"kind": "constant", "warmup": warmup}, st.floats(0, 3)),
    st.builds(
        lambda warmup, final: {"kind": "cosine", "warmup": warmup, "final": final},
        st.floats(0, 3), st.floats(0, 1),
    ),
    st.builds(
        lambda warmup, decay, final: {
            "kind": "warmup_stable_decay", "warmup": warmup, "decay": decay, "final": final
        },
        st.floats(0, 3), st.floats(0, 3), st.floats(0, 1),
    ),
    st.builds(
        lambda marks, by: {"kind": "multi_step", "milestones": sorted(marks), "factor": by},
        st.sets(st.floats(0.25, 12), min_size=1, max_size=4), st.floats(0.1, 1),
    ),
)  # fmt: skip


@pytest.mark.parametrize(
    ("config", "t", "expected"),
    [
        ({"kind": "constant"}, 3.3, 1.0),
        ({"kind": "constant", "warmup": 2}, 0.5, 0.25),
        ({"kind": "constant", "warmup": 2}, 2.0, 1.0),
        ({"kind": "cosine"}, 0.0, 1.0),
        ({"kind": "cosine"}, 5.0, 0.5),
        ({"kind": "cosine"}, 10.0, 0.0),
        ({"kind": "cosine", "final": 0.2}, 5.0, 0.6),
        ({"kind": "cosine", "warmup": 2}, 6.0, 0.5),
        ({"kind": "multi_step", "milestones": [3, 6]}, 2.999, 1.0),
        ({"kind": "multi_step", "milestones": [3, 6]}, 3.0, 0.1),
        ({"kind": "multi_step", "milestones": [3, 6], "factor": 0.5}, 7.0, 0.25),
        ({"kind": "multi_step", "milestones": [3, 6], "values": [2.0, 0.3]}, 6.5, 0.3),
        ({"kind": "multi_step", "milestones": [1], "warmup": 2}, 1.0, 0.05),
        ({"kind": "step", "size": 2, "factor": 0.5, "warmup": 4}, 2.0, 0.125),
        ({"kind": "polynomial", "power": 2, "final": 0.2}, 5.0, 0.4),
        ({"kind": "warmup_stable_decay", "warmup": 1, "decay": 4}, 0.5, 0.5),
        ({"kind": "warmup_stable_decay", "warmup": 1, "decay": 4}, 5.9, 1.0),
        ({"kind": "warmup_stable_decay", "warmup": 1, "decay": 4}, 8.0, 0.5),
        ({"kind": "warmup_stable_decay", "warmup": 1, "decay": 4, "final": 0.5}, 10.0, 0.5),
    ],
)
def test_a_schedule_has_the_value_that_its_definition_says(config, t, expected):
    assert factor(READ(config), t, epochs=10) == pytest.approx(expected, abs=1e-12)


@given(KINDS, st.integers(6, 14), st.floats(0, 1))
def test_the_factor_stays_between_zero_and_its_largest_level(config, epochs, part):
    value = factor(READ(config), part * epochs, epochs=epochs)
    assert 0 <= value <= 1 + 1e-12
    assert math.isfinite(value)


@given(KINDS, st.integers(6, 14), st.integers(6, 14), st.integers(0, 13), st.data())
def test_equal_segments_mean_equal_rates(config, one, other, epoch, data):
    first, second = READ(config), READ(config)
    if epoch >= min(one, other):
        return
    if segments(first, epoch, epochs=one) != segments(second, epoch, epochs=other):
        return
    t = epoch + data.draw(st.floats(0, 1, exclude_max=True))
    assert factor(first, t, epochs=one) == pytest.approx(factor(second, t, epochs=other), rel=1e-9)


def test_a_trunk_does_not_know_its_length():
    config = READ({"kind": "warmup_stable_decay", "warmup": 1, "decay": 3})
    for epoch in range(9):
        assert segments(config, epoch, epochs=12) == segments(config, epoch, epochs=20)
    assert segments(config, 9, epochs=12) != segments(config, 9, epochs=20)


def test_another_level_from_a_milestone_on_leaves_the_epochs_before_it_alone():
    one = READ({"kind": "multi_step", "milestones": [5], "factor": 0.1})
    other = READ({"kind": "multi_step", "milestones": [5], "factor": 0.2})
    equal = [segments(one, e, epochs=8) == segments(other, e, epochs=8) for e in range(8)]
    assert equal == [True] * 5 + [False] * 3


@pytest.mark.parametrize(
    ("config", "epochs", "word"),
    [
        ({"kind": "constant", "warmup": 11}, 10, "warmup"),
        ({"kind": "warmup_stable_decay", "warmup": 5, "decay": 6}, 10, "decay"),
    ],
)
def test_a_schedule_that_does_not_fit_is_refused(config, epochs, word):
    with pytest.raises(ValueError, match=word):
        READ(config).check(epochs)


@pytest.mark.parametrize(
    "config",
    [
        {"kind": "multi_step", "milestones": []},
        {"kind": "multi_step", "milestones": [3, 2]},
        {"kind": "multi_step", "milestones": [0]},
        {"kind": "multi_step", "milestones": [1], "values": [1.0, 2.0]},
        {"kind": "multi_step", "milestones": [1], "values": [-1.0]},
        {"kind": "cosine", "final": 2},
        {"kind": "cosine", "finale": 0},
        {"kind": "sawtooth"},
        {"warmup": 1},
    ],
)
def test_what_is_no_schedule_is_refused(config):
    with pytest.raises(ValidationError):
        READ(config)
