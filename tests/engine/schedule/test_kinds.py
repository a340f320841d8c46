"""Kinds of schedules against torch's, and properties that all kinds share."""

import itertools
import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from torch.optim import lr_scheduler

from epochal.data.config.loader import LoaderConfig
from epochal.data.errors import TargetError
from epochal.data.loading.order import micro_batches
from epochal.engine.schedule.schedule import (
    ScheduleConfig,
    factor,
    factor_function,
    samples,
    segments,
)

READ = TypeAdapter(ScheduleConfig).validate_python
EPOCHS = 10
PARTS = st.floats(0, 1)
LENGTHS = st.floats(0.05, 7)
WARMUPS = st.just(0.0) | st.floats(0.01, 3)


def kind(name, **fields):
    return st.fixed_dictionaries({"kind": st.just(name), "warmup": WARMUPS, **fields})


SMOOTH = st.one_of(
    kind("constant"),
    kind("cosine", final=PARTS),
    kind("polynomial", power=st.floats(0.2, 4), final=PARTS),
    kind("warmup_stable_decay", decay=st.floats(0.1, 3), final=PARTS),
    kind("cyclic", low=PARTS, period=LENGTHS, rise=st.floats(0.1, 0.9)),
    kind("one_cycle", rise=st.floats(0.1, 0.9), initial=PARTS, final=PARTS,
         shape=st.sampled_from(["cosine", "linear"])),
)  # fmt: skip
KINDS = st.one_of(
    SMOOTH,
    kind("step", size=LENGTHS, factor=st.floats(0.05, 1)),
    kind("cyclic", low=PARTS, period=LENGTHS, rise=PARTS, amplitude_decay=st.floats(0.1, 1)),
    kind("one_cycle", rise=PARTS, initial=PARTS, final=PARTS),
)


def of_torch(make, steps, *, base=1.0, **options):
    """The rates of a scheduler of torch before each of so many steps."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is stepped without the optimizer
        scheduler = make(optimizer, **options)
        rates = []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            scheduler.step()
    return rates


def ours(config, moments, epochs=EPOCHS):
    function = factor_function(READ(config), epochs=epochs)
    return [function(t) for t in moments]


def check(found, expected):
    assert len(found) == len(expected)
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= 1e-12


# torch's schedulers step per epoch or per update; ours is asked at (u + 0.5) / n of an epoch, which
# is step 2 u + 1 of a scheduler that is stepped twice per update.
UPDATES = 7
HALVES = [step / (2 * UPDATES) for step in range(2 * UPDATES * EPOCHS)]


def test_step_is_torchs_at_every_epoch():
    expected = of_torch(lr_scheduler.StepLR, EPOCHS, step_size=3, gamma=0.3)
    check(ours({"kind": "step", "size": 3, "factor": 0.3}, range(EPOCHS)), expected)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_polynomial_is_torchs_at_every_half_update(power):
    options = {"total_iters": len(HALVES), "power": power}
    expected = of_torch(lr_scheduler.PolynomialLR, len(HALVES), **options)
    check(ours({"kind": "polynomial", "power": power}, HALVES), expected)


def test_cosine_is_torchs_at_every_half_update():
    options = {"T_max": len(HALVES), "eta_min": 0.2}
    expected = of_torch(lr_scheduler.CosineAnnealingLR, len(HALVES), **options)
    check(ours({"kind": "cosine", "final": 0.2}, HALVES), expected)


@pytest.mark.parametrize(("mode", "decay"), [("triangular", 1.0), ("triangular2", 0.5)])
def test_cyclic_is_torchs_at_every_half_update(mode, decay):
    up, down = 8, 20  # half updates: a period of two epochs of seven updates
    expected = of_torch(
        lr_scheduler.CyclicLR, len(HALVES), base_lr=0.1, max_lr=1.0, step_size_up=up,
        step_size_down=down, mode=mode, cycle_momentum=False,
    )  # fmt: skip
    config = {"kind": "cyclic", "low": 0.1, "period": 2, "rise": up / (up + down)}
    check(ours({**config, "amplitude_decay": decay}, HALVES), expected)


@pytest.mark.parametrize("shape", ["cosine", "linear"])
def test_one_cycle_is_torchs_at_equal_parts_of_rise_and_fall(shape):
    total, rise = 100, 0.3
    expected = of_torch(
        lr_scheduler.OneCycleLR, total, max_lr=1.0, total_steps=total, pct_start=rise,
        anneal_strategy={"cosine": "cos", "linear": "linear"}[shape], cycle_momentum=False,
    )  # fmt: skip
    top = rise * total - 1  # torch's rise has one step less than its part of the run
    turn = rise * EPOCHS
    moments = [
        turn * step / top if step <= top
        else turn + (EPOCHS - turn) * (step - top) / (total - 1 - top)
        for step in range(total)
    ]  # fmt: skip
    check(ours({"kind": "one_cycle", "shape": shape, "rise": rise}, moments), expected)


@given(KINDS, st.integers(6, 14), PARTS)
def test_the_factor_is_finite_and_not_below_zero(config, epochs, part):
    value = factor(READ(config), part * epochs, epochs=epochs)
    assert math.isfinite(value)
    assert 0 <= value <= 1 + 1e-12


@given(SMOOTH, st.integers(6, 14), PARTS)
def test_without_steps_the_factor_is_continuous(config, epochs, part):
    function = factor_function(READ(config), epochs=epochs)
    t, near = part * epochs, 1e-9
    low, high = max(0.0, t - near), min(float(epochs), t + near)
    tolerance = 1e-6 if config["kind"] != "polynomial" else 2e-2  # steep at its end below power 1
    assert function(low) == pytest.approx(function(high), abs=tolerance)


def value_of(segment, t):
    """The value at t from what a key holds alone."""
    name, start, end, first, last, *form = segment
    x = first + (last - first) * (t - start) / (end - start)
    if name == "line":
        return x
    fall = max(0, 1 - x) ** form[1] if name == "power" else 0.5 * (1 + math.cos(math.pi * x))
    return form[0] + (1 - form[0]) * fall


@given(KINDS, st.integers(6, 14), st.data())
def test_the_segments_of_an_epoch_give_the_factor_there(config, epochs, data):
    schedule = READ(config)
    epoch = data.draw(st.integers(0, epochs - 1))
    found = segments(schedule, epoch, epochs=epochs)
    assert found[0][1] == epoch
    assert found[-1][2] == epoch + 1
    assert all(one[2] == other[1] for one, other in itertools.pairwise(found))
    one = data.draw(st.sampled_from(found))
    t = one[1] + (one[2] - one[1]) * data.draw(st.floats(0.01, 0.99))
    tolerance = 1e-8 if config["kind"] != "polynomial" else 1e-3
    assert value_of(one, t) == pytest.approx(factor(schedule, t, epochs=epochs), abs=tolerance)


@given(st.floats(0, 3), st.floats(0, 1), st.integers(6, 12))
def test_a_straight_fall_is_one_function_however_it_is_written(warmup, final, epochs):
    decay = {"kind": "warmup_stable_decay", "warmup": warmup, "decay": epochs - warmup}
    power = {"kind": "polynomial", "warmup": warmup, "power": 1}
    for epoch in range(epochs):
        one, other = (
            segments(READ({**config, "final": final}), epoch, epochs=epochs)
            for config in (decay, power)
        )
        assert [part[0] for part in one] == [part[0] for part in other]
        assert [x for part in one for x in part[1:]] == pytest.approx(
            [x for part in other for x in part[1:]], rel=1e-11, abs=1e-11
        )


EQUAL = [
    ({"kind": "step", "size": 4, "factor": 0.5},
     {"kind": "multi_step", "milestones": [4, 8], "factor": 0.5}),
    ({"kind": "cosine"}, {"kind": "one_cycle", "rise": 0, "final": 0}),
    ({"kind": "cosine"}, {"kind": "one_cycle", "rise": 1e-38, "final": 0}),
    ({"kind": "constant"}, {"kind": "cosine", "final": 1}),
    ({"kind": "constant"}, {"kind": "polynomial", "power": 3, "final": 1}),
    ({"kind": "constant"}, {"kind": "cyclic", "low": 1, "period": 0.3}),
    ({"kind": "constant"}, {"kind": "one_cycle", "initial": 1, "final": 1}),
    ({"kind": "constant", "warmup": 2}, {"kind": "step", "size": 50, "warmup": 2}),
    ({"kind": "polynomial"}, {"kind": "warmup_stable_decay", "warmup": 0, "decay": 10}),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal_functions_have_equal_segments(one, other):
    for epoch in range(EPOCHS):
        found = [segments(READ(config), epoch, epochs=EPOCHS) for config in (one, other)]
        assert found[0] == found[1], epoch


@pytest.mark.parametrize("config", [
    {"kind": "step", "size": 0.4},
    {"kind": "cyclic", "low": 0.1, "period": 1.3, "amplitude_decay": 0.9, "warmup": 1},
])  # fmt: skip
def test_what_does_not_know_the_length_is_shared_by_a_longer_run(config):
    for epoch in range(EPOCHS):
        short, long = (segments(READ(config), epoch, epochs=n) for n in (EPOCHS, 3 * EPOCHS))
        assert short == long


def test_an_epoch_of_a_very_long_run_costs_no_more_than_one_of_a_short_run():
    config = READ({"kind": "cyclic", "low": 0.1, "period": 0.5})
    assert len(segments(config, 999_998, epochs=1_000_000)) == 4


def test_durations_in_updates_are_parts_of_epochs():
    given = {"kind": "multi_step", "milestones": [10, 25], "warmup": 5, "unit": "updates"}
    found = READ(given).in_epochs(num_updates=10)
    assert found == READ({"kind": "multi_step", "milestones": [1, 2.5], "warmup": 0.5})


@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 5), st.booleans())
def test_the_number_of_updates_is_that_of_the_plan_of_an_epoch(count, size, accumulate, drop_last):
    config = LoaderConfig(batch_size=size, drop_last=drop_last)
    order = torch.arange(count).numpy()
    plan = micro_batches(order, batch_size=size, accumulate=accumulate, drop_last=drop_last)
    assert config.num_updates(count, accumulate=accumulate) == plan.num_updates


def test_a_function_of_the_users_rises_from_zero_too():
    config = READ({"kind": "custom", "target": "rates:rate", "warmup": 2})
    function = factor_function(config, epochs=4, custom=lambda t: 10 - t)
    assert [function(t) for t in (0, 1, 2, 3.5)] == [0, 4, 8, 6.5]
    assert len(samples(function, 1)) == 257
    assert samples(function, 1)[::256] == [4, 8]


@settings(max_examples=20)
@given(st.sampled_from([-0.1, math.nan, math.inf, None, "1", True, torch.ones(1)]))
def test_what_is_no_factor_is_refused(value):
    config = READ({"kind": "custom", "target": "rates:rate"})
    with pytest.raises(TargetError, match="schedule: its target gave .* at epoch 1.5, expected"):
        factor_function(config, epochs=4, custom=lambda _: value)(1.5)


@pytest.mark.parametrize("config", [
    {"kind": "step"},
    {"kind": "step", "size": 0},
    {"kind": "polynomial", "power": 0},
    {"kind": "cyclic", "low": 2, "period": 1},
    {"kind": "cyclic", "low": 0.1, "period": 1, "amplitude_decay": 0},
    {"kind": "one_cycle", "rise": 1.1},
    {"kind": "one_cycle", "shape": "square"},
    {"kind": "custom"},
    {"kind": "custom", "target": "no colon"},
    {"kind": "constant", "unit": "steps"},
])  # fmt: skip
def test_what_is_no_schedule_is_refused(config):
    with pytest.raises(ValidationError):
        READ(config)


@pytest.mark.parametrize(("config", "word"), [
    ({"kind": "step", "size": 1e-5}, "size: 1e-05 epochs is too short"),
    ({"kind": "cyclic", "low": 0, "period": 1e-5}, "period"),
    ({"kind": "step", "size": 0.001, "factor": 3}, "grows beyond all numbers"),
])  # fmt: skip
def test_a_schedule_of_too_many_pieces_is_refused(config, word):
    with pytest.raises(ValueError, match=word):
        READ(config).check(EPOCHS)
