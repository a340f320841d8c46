"""The plateau schedule against torch's own class, and that it is a function of the values alone."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from torch.optim.lr_scheduler import ReduceLROnPlateau

from epochal.engine.schedule.plateau import factors
from epochal.engine.schedule.schedule import ScheduleConfig, factor, segments

READ = TypeAdapter(ScheduleConfig).validate_python

MODES = st.sampled_from(["min", "max"])
VALUES = st.lists(
    st.one_of(
        st.just(math.nan),
        st.floats(-3, 3),
        st.sampled_from([0.0, 0.5, 1.0, 1.0 + 1e-5, 1.0 - 1e-5, 1.01, 0.99]),
    ),
    max_size=40,
)
RULES = st.fixed_dictionaries(
    {},
    optional={
        "factor": st.floats(0.01, 0.99),
        "patience": st.integers(0, 6),
        "threshold": st.sampled_from([0.0, 1e-4, 1e-2, 0.5]),
        "threshold_mode": st.sampled_from(["rel", "abs"]),
        "cooldown": st.integers(0, 5),
        "floor": st.sampled_from([0.0, 1e-3, 0.2, 1.0]),
    },
)


def plateau(**fields):
    return READ({"kind": "plateau", **fields})


def of_torch(values, *, mode, floor=0.0, **options):
    """The rates of torch's class at the base rate 1, before the first value and after each."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = ReduceLROnPlateau(optimizer, mode=mode, min_lr=floor, eps=0.0, **options)
    rates = [optimizer.param_groups[0]["lr"]]
    for value in values:
        scheduler.step(value)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


@settings(deadline=None)  # torch's first scheduler imports much
@given(VALUES, RULES, MODES)
def test_the_factors_are_torchs_for_any_values_and_options(values, options, mode):
    found = list(factors(plateau(**options), values, mode=mode))
    assert found == of_torch(values, mode=mode, **options)


@given(VALUES, RULES, MODES)
def test_what_is_not_finite_in_a_record_is_what_nan_is_to_torch(values, options, mode):
    recorded = [None if math.isnan(value) else value for value in values]
    assert list(factors(plateau(**options), recorded, mode=mode)) == list(
        factors(plateau(**options), values, mode=mode)
    )


@given(VALUES, VALUES, RULES, MODES)
def test_a_factor_stands_whatever_is_measured_later(values, later, options, mode):
    known = list(factors(plateau(**options), values, mode=mode))
    more = list(factors(plateau(**options), [*values, *later], mode=mode))
    assert more[: len(known)] == known


@given(VALUES, RULES, MODES, st.floats(0, 9))
def test_no_epoch_before_the_first_that_may_be_lowered_is(values, options, mode, warmup):
    schedule = plateau(warmup=warmup, **options)
    early = schedule.first_lowered - schedule.first_seen
    assert set(list(factors(schedule, values, mode=mode))[:early]) <= {1.0}
    worst = [math.nan] * early
    assert list(factors(schedule, worst, mode=mode))[early] == max(schedule.factor, schedule.floor)


@pytest.mark.parametrize(
    ("warmup", "seen"), [(0, 0), (0.3, 0), (1, 0), (1.5, 1), (2, 1), (2.001, 2)]
)
def test_validations_count_once_the_warm_up_has_ended(warmup, seen):
    assert plateau(warmup=warmup).first_seen == seen


def test_as_pieces_it_is_its_warm_up_and_the_base_rate():
    schedule, constant = (READ({"kind": kind, "warmup": 2}) for kind in ("plateau", "constant"))
    assert [factor(schedule, t, epochs=5) for t in (0, 1, 2, 4.5)] == [0, 0.5, 1, 1]
    for epoch in range(5):
        assert segments(schedule, epoch, epochs=5) == segments(constant, epoch, epochs=9)


def test_updates_are_the_unit_of_the_warm_up_alone():
    given = plateau(warmup=15, patience=7, cooldown=3, unit="updates")
    assert given.in_epochs(num_updates=10) == plateau(warmup=1.5, patience=7, cooldown=3)


@pytest.mark.parametrize(("fields", "words"), [
    ({"factor": 1}, "less than 1"),
    ({"factor": 0}, "greater than 0"),
    ({"patience": -1}, "greater than or equal to 0"),
    ({"threshold": 1}, "expected a share below 1, or threshold_mode: abs"),
    ({"floor": 1.5}, "less than or equal to 1"),
    ({"mode": "best"}, "'max' or 'min'"),
    ({"min_lr": 1e-5}, "min_lr"),
])  # fmt: skip
def test_what_is_no_plateau_is_refused(fields, words):
    with pytest.raises(ValidationError, match=words):
        plateau(**fields)


def test_a_threshold_that_is_a_number_may_be_any():
    assert plateau(threshold=20, threshold_mode="abs").threshold == 20
