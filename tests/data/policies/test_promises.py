"""What every policy promises, whatever it selects by: floors, returns, full phases, weights."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.numbers.random_observations import observations
from support.runs.policy_runs import (
    POLICIES,
    WEIGHTED,
    config_of,
    context_of,
    course,
    learned,
    mined,
    planned,
)

from epochal.data.policies.shared.pool import PlanContext
from epochal.data.samples.table import FLAG_SUSPECT, SampleTable

SEEDS = st.integers(0, 2**63 - 1)
every_policy = pytest.mark.parametrize("name", POLICIES)


@st.composite
def situations(draw):
    """Settings, and observations of some epochs, each of some of the samples."""
    count = draw(st.integers(1, 50))
    epochs = []
    for _ in range(draw(st.integers(1, 4))):
        seen = np.flatnonzero(draw(st.lists(st.booleans(), min_size=count, max_size=count)))
        labels = draw(st.lists(st.integers(-1, 3), min_size=len(seen), max_size=len(seen)))
        columns = observations(seen, seed=draw(st.integers(0, 99)), labels=np.array(labels, int))
        if draw(st.booleans()):
            columns["loss"][::5] = np.nan
            columns["el2n"][::7] = np.nan
        epochs.append(columns)
    fields = draw(
        st.fixed_dictionaries(
            {
                "floor": st.sampled_from([0.01, 0.1, 0.5, 1.0]),
                "label_noise": st.sampled_from(["keep", "drop"]),
                "noise_from": st.just(1),
            }
        )
    )
    return count, epochs, fields, draw(SEEDS)


def table_of(name, situation, **more):
    """The settings, the last table before its plan, and the context of that."""
    count, epochs, fields, seed = situation
    config = config_of(name, **{**fields, "warm_up": 0, "final_full": 0, **more})
    table = None
    for epoch, columns in enumerate(epochs):
        if table is not None:
            _, table = planned(table, config, context_of(config, epoch, seed=seed))
        table = mined(config, columns, count=count, previous=table, epoch=epoch, seed=seed)
    return config, table, context_of(config, len(epochs), seed=seed)


def suspected(table):
    return (table["flags"] & FLAG_SUSPECT) > 0


@every_policy
def test_a_policy_leaves_samples_out(name):
    assert course(config_of(name)).shares.min() < 1


@every_policy
@settings(max_examples=15, deadline=None)
@given(situations())
def test_the_floor_holds_overall_and_in_each_class(name, situation):
    config, table, context = table_of(name, situation)
    keep = planned(table, config, context)[0].keep_N
    assert keep.sum() >= math.ceil(config.floor * len(keep) - 1e-6)
    for label in np.unique(table["label"]):
        of_class = table["label"] == label
        assert keep[of_class].sum() >= math.ceil(config.floor * of_class.sum() - 1e-6)


@every_policy
@settings(max_examples=15, deadline=None)
@given(situations())
def test_who_was_never_seen_or_had_no_finite_loss_trains(name, situation):
    config, table, context = table_of(name, situation)
    plan, after = planned(table, config, context)
    must = ((table["epoch_seen"] < 0) | ~np.isfinite(table["loss"])) & ~suspected(after)
    assert plan.keep_N[must].all()


@every_policy
@settings(max_examples=15, deadline=None)
@given(situations())
def test_weights_are_finite_positive_and_under_the_cap(name, situation):
    config, table, context = table_of(name, situation)
    plan = planned(table, config, context)[0]
    weight = plan.weight_N
    assert weight.dtype == np.float32
    assert (np.isfinite(weight) & (weight >= 0)).all()
    if name in WEIGHTED:
        assert (weight <= config.weight_cap * (1 + 1e-6)).all()
        assert weight[plan.keep_N].mean(dtype=np.float64) == pytest.approx(1, abs=1e-6)
    elif name != "custom":
        assert (weight == 1).all()


@every_policy
@settings(max_examples=15, deadline=None)
@given(situations())
def test_planning_again_gives_the_same_plan(name, situation):
    config, table, context = table_of(name, situation)
    once, after = planned(table, config, context)
    again, _ = planned(after, config, context)
    assert again.keep_N.tolist() == once.keep_N.tolist()
    assert again.weight_N.tobytes() == once.weight_N.tobytes()
    assert {key: one.tobytes() for key, one in again.more.items()} == {
        key: one.tobytes() for key, one in once.more.items()
    }


@every_policy
@settings(max_examples=15, deadline=None)
@given(situations(), st.randoms())
def test_the_order_of_the_rows_plays_no_part(name, situation, random):
    config, table, context = table_of(name, situation)
    order = list(range(len(table)))
    random.shuffle(order)
    shuffled = SampleTable({key: array[order] for key, array in table.columns.items()})
    expected, found = (planned(one, config, context)[0] for one in (table, shuffled))
    assert found.keep_N.tolist() == expected.keep_N[order].tolist()
    assert found.weight_N.tobytes() == expected.weight_N[order].tobytes()


@every_policy
@settings(max_examples=15, deadline=None)
@given(situations())
def test_full_epochs_train_on_everything_with_weight_one(name, situation):
    config, table, context = table_of(name, situation, label_noise="keep")
    full = PlanContext(epoch=context.epoch, full=True, seed=context.seed)
    plan = planned(table, config, full)[0]
    assert plan.keep_N.all()
    assert (plan.weight_N == 1).all()


@every_policy
def test_the_first_and_the_last_phase_are_full(name):
    config = config_of(name, warm_up=3, final_full=2)
    found = course(config, epochs=12)
    assert (found.shares[[0, 1, 9, 10]] == 1).all()
    assert (found.shares[2:9] < 1).any()


@every_policy
@settings(max_examples=6, deadline=None)
@given(seed=SEEDS, revisit=st.integers(1, 5), noise=st.sampled_from(["keep", "drop"]))
def test_nobody_is_away_for_longer_than_revisit_says(name, seed, revisit, noise):
    config = config_of(name, revisit=revisit, final_full=0, label_noise=noise)
    found = course(config, seed=seed, epochs=14, count=120)
    allowed = found.longest_absence <= revisit
    if noise == "drop":
        allowed |= np.any([suspected(table) for table in found.tables], axis=0)
    assert allowed.all()


@every_policy
def test_returns_are_spread_over_the_epochs_and_not_in_waves(name):
    if name in {"random by shares", "seta"}:
        pytest.skip("its share changes by design: as given, or by the sizes of the groups")

    def alike(ids, *, seed, epoch, labels):
        return learned(ids, seed=seed, epoch=8, labels=labels)

    options = {} if name in {"easy_skip", "infobatch", "cvnets", "custom"} else {
        "budget": 0.5, "budget_end": 0.5
    }  # fmt: skip
    config = config_of(name, final_full=0, **options)
    shares = course(config, count=6000, epochs=16, observe=alike).shares[4:]
    assert shares.max() - shares.min() < 0.1, shares


@every_policy
def test_when_nothing_can_rest_any_more_everything_comes_back(name):
    config = config_of(name, revisit=3, final_full=0)
    found = course(config, epochs=6, count=90)
    assert (found.shares < 1).any()
    hopeless = observations(np.arange(90), labels=np.arange(90) % 3)
    hopeless["loss"][:] = np.inf
    table = mined(config, hopeless, count=90, previous=found.tables[-1], epoch=5)
    plan = planned(table, config, context_of(config, 6))[0]
    assert plan.keep_N.all()
    assert (plan.weight_N == 1).all() or name == "custom"


@every_policy
def test_planning_touches_no_global_generator_and_no_column(name):
    config = config_of(name, label_noise="drop", noise_from=1)
    table = mined(config, observations(np.arange(50)), count=50)
    state = np.random.get_state()[1].tolist()
    before = {key: array.tobytes() for key, array in table.columns.items()}
    planned(table, config, context_of(config, 1))
    assert np.random.get_state()[1].tolist() == state
    assert {key: array.tobytes() for key, array in table.columns.items()} == before
