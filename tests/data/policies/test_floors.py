"""Policies keep their promises for any table: floor, revisit, full phases, and no dependence on
anything but table, context and config."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.numbers.random_observations import observations, without_classes

from epochal.data.config.loader import SamplingConfig
from epochal.data.mining.plan import plan_epoch
from epochal.data.policies.easy_skip import at_least
from epochal.data.policies.selective_backprop import ranked_by_loss
from epochal.data.policies.shared.pool import PlanContext
from epochal.data.samples.table import SampleTable, update


def mined(*columns, count, previous=None, epoch=0, confidence=0.9):
    ids = np.arange(count)
    table = previous
    for offset, one in enumerate(columns):
        table = update(
            table,
            one,
            epoch=epoch + offset,
            sample_ids_N=ids,
            labels_N=None,
            confidence=confidence,
        )
    return table


def all_easy(ids, *, labels=None):
    columns = observations(ids, labels=labels)
    columns["correct"][:] = True
    columns["confidence"][:] = 0.99
    return columns


def plan(table, *, epoch=1, full=False, seed=7, **fields):
    config = SamplingConfig(policy="easy_skip", **fields)
    return plan_epoch(table, PlanContext(epoch=epoch, full=full, seed=seed), config)


def is_easy(table, confidence=0.9):
    sure = table["confidence"].astype(np.float64) >= confidence
    return (table["epoch_seen"] >= 0) & table["correct"] & sure & np.isfinite(table["loss"])


@st.composite
def tables(draw):
    """A table after some epochs of which each saw some of the samples."""
    count = draw(st.integers(1, 60))
    table = None
    for epoch in range(draw(st.integers(1, 4))):
        seen = np.flatnonzero(draw(st.lists(st.booleans(), min_size=count, max_size=count)))
        labels = draw(st.lists(st.integers(-1, 3), min_size=len(seen), max_size=len(seen)))
        columns = observations(seen, seed=draw(st.integers(0, 99)), labels=np.array(labels, int))
        columns["confidence"] = np.maximum(columns["confidence"], 0.8)
        if draw(st.booleans()):
            columns["loss"][::5] = np.nan
        table = mined(columns, count=count, previous=table, epoch=epoch)
    return table


CONFIGS = st.fixed_dictionaries(
    {
        "confidence": st.sampled_from([0.5, 0.9, 1.0]),
        "revisit": st.integers(1, 5),
        "floor": st.sampled_from([0.01, 0.1, 0.3, 0.99, 1.0]),
    }
)
SEEDS = st.integers(0, 2**63 - 1)
EPOCHS = st.integers(4, 40)


@given(tables(), CONFIGS, EPOCHS, SEEDS)
def test_only_easy_samples_are_skipped_and_weights_are_one(table, config, epoch, seed):
    planned = plan(table, epoch=epoch, seed=seed, **config)
    skipped = ~planned.keep_N
    assert not (skipped & ~is_easy(table, config["confidence"])).any()
    assert not (skipped & (table["epoch_seen"] < 0)).any()
    assert not (skipped & ~np.isfinite(table["loss"])).any()
    assert planned.keep_N.dtype == np.bool_
    assert planned.weight_N.dtype == np.float32
    assert (planned.weight_N == 1).all()


@given(tables(), CONFIGS, EPOCHS, SEEDS)
def test_never_less_than_the_floor_is_kept_overall_and_of_each_class(table, config, epoch, seed):
    keep = plan(table, epoch=epoch, seed=seed, **config).keep_N
    share = config["floor"]
    assert keep.sum() >= math.ceil(share * len(keep) - 1e-6)
    for label in np.unique(table["label"]):
        of_class = table["label"] == label
        assert keep[of_class].sum() >= math.ceil(share * of_class.sum() - 1e-6)


@given(tables(), CONFIGS, EPOCHS, SEEDS)
def test_the_floor_adds_no_more_than_it_needs(table, config, epoch, seed):
    bare = plan(table, epoch=epoch, seed=seed, **{**config, "floor": 1e-9}).keep_N
    keep = plan(table, epoch=epoch, seed=seed, **config).keep_N
    assert (keep | ~bare).all()
    for label in np.unique(table["label"]):
        of_class = table["label"] == label
        need = math.ceil(config["floor"] * of_class.sum() - 1e-6)
        assert keep[of_class].sum() == max(bare[of_class].sum(), need)


@given(tables(), CONFIGS, EPOCHS, SEEDS, st.sampled_from(["easy_skip", "none"]))
def test_full_epochs_and_no_policy_keep_everything(table, config, epoch, seed, policy):
    context = PlanContext(epoch=epoch, full=policy == "easy_skip", seed=seed)
    planned = plan_epoch(table, context, SamplingConfig(policy=policy, **config))
    assert planned.keep_N.all()
    assert (planned.weight_N == 1).all()


@given(tables(), CONFIGS, EPOCHS, SEEDS)
def test_planning_again_from_the_planned_table_gives_the_same_plan(table, config, epoch, seed):
    once = plan(table, epoch=epoch, seed=seed, **config)
    planned = table.with_plan(keep_N=once.keep_N, weight_N=once.weight_N)
    again = plan(planned, epoch=epoch, seed=seed, **config)
    assert again.keep_N.tolist() == once.keep_N.tolist()


@given(tables(), CONFIGS, EPOCHS, SEEDS, st.randoms())
def test_the_order_of_the_rows_plays_no_part(table, config, epoch, seed, random):
    order = list(range(len(table)))
    random.shuffle(order)
    shuffled = SampleTable({name: array[order] for name, array in table.columns.items()})
    expected = plan(table, epoch=epoch, seed=seed, **config).keep_N[order]
    assert plan(shuffled, epoch=epoch, seed=seed, **config).keep_N.tolist() == expected.tolist()


@given(tables(), SEEDS, EPOCHS)
def test_planning_draws_from_no_global_generator_and_changes_no_column(table, seed, epoch):
    state = np.random.get_state()[1].tolist()
    before = {name: array.tobytes() for name, array in table.columns.items()}
    plan(table, epoch=epoch, seed=seed)
    assert np.random.get_state()[1].tolist() == state
    assert {name: array.tobytes() for name, array in table.columns.items()} == before


@settings(max_examples=25, deadline=None)
@given(
    revisit=st.integers(1, 4),
    seed=SEEDS,
    epochs=st.integers(6, 20),
    floor=st.sampled_from([1e-6, 0.2]),
)
def test_nobody_is_unseen_for_more_epochs_than_revisit_says(revisit, seed, epochs, floor):
    count = 80
    rng = np.random.default_rng(seed % 1000)
    table = mined(all_easy(range(count)), count=count)
    unseen = np.zeros(count, dtype=int)
    for epoch in range(1, epochs):
        keep = plan(table, epoch=epoch, seed=seed, revisit=revisit, floor=floor).keep_N
        unseen = np.where(keep, 0, unseen + 1)
        assert unseen.max() <= revisit
        columns = all_easy(np.flatnonzero(keep))
        columns["correct"][:] = rng.random(len(columns["correct"])) < 0.9
        table = mined(columns, count=count, previous=table, epoch=epoch)


def test_returns_come_evenly_and_not_in_waves():
    count = 9000
    table, kept = mined(all_easy(range(count)), count=count), []
    for epoch in range(1, 13):
        keep = plan(table, epoch=epoch).keep_N
        kept.append(keep.mean())
        table = mined(all_easy(np.flatnonzero(keep)), count=count, previous=table, epoch=epoch)
    assert min(kept) > 0.31
    assert max(kept) < 0.36


def test_a_sample_whose_return_was_missed_is_due_until_it_is_seen():
    table = mined(all_easy(range(100)), count=100)
    assert plan(table, epoch=3).keep_N.all()
    assert plan(table, epoch=9).keep_N.all()


def test_when_nothing_is_easy_any_more_everything_returns():
    table = mined(all_easy(range(50)), count=50)
    assert not plan(table).keep_N.all()
    hard = all_easy(range(50))
    hard["correct"][:] = False
    assert plan(mined(hard, count=50, previous=table, epoch=1), epoch=2).keep_N.all()


def test_a_model_without_classes_trains_on_everything():
    assert plan(mined(without_classes(range(20)), count=20)).keep_N.all()


def test_the_floor_brings_back_the_hardest_of_the_class():
    columns = all_easy(range(100), labels=np.arange(100) % 2)
    columns["loss"] = np.arange(100, dtype=np.float32)
    table = mined(columns, count=100)
    bare = plan(table, revisit=1000, floor=1e-9).keep_N
    keep = plan(table, revisit=1000, floor=0.2).keep_N
    back = np.flatnonzero(keep & ~bare)
    for label in (0, 1):
        rest = [row for row in range(99, -1, -1) if row % 2 == label and not bare[row]]
        wanted = 10 - bare[label::2].sum()
        assert sorted(row for row in back if row % 2 == label) == sorted(rest[:wanted])


def test_equally_hard_samples_come_back_by_lot_and_not_by_id():
    columns = all_easy(range(400), labels=np.zeros(400, int))
    columns["loss"][:] = 0.5
    table = mined(columns, count=400)
    one = plan(table, epoch=1, revisit=1000, floor=0.1).keep_N
    other = plan(table, epoch=2, revisit=1000, floor=0.1).keep_N
    assert one.sum() >= 40
    assert one.tolist() != other.tolist()
    assert 10 < np.flatnonzero(one).mean() / 10 < 30


def test_labels_that_are_large_numbers_are_classes_like_any_other():
    labels = np.array([0, 10**15] * 50)
    table = mined(all_easy(range(100), labels=labels), count=100)
    keep = plan(table, revisit=1000, floor=0.3).keep_N
    assert keep[::2].sum() >= 15
    assert keep[1::2].sum() >= 15


@pytest.mark.parametrize("floor", [0.1, 0.9])
def test_a_million_samples_are_planned_in_milliseconds(floor):
    table = mined(observations(np.arange(1_280_000)), count=1_280_000)
    spent = []
    for _ in range(5):
        begun = time.process_time()
        plan(table, floor=floor)
        spent.append(time.process_time() - begun)
    assert min(spent) < (0.05 if floor < 0.5 else 0.5), spent


@given(st.floats(2**-20, 1), st.floats(0, 1, width=32))
def test_a_threshold_in_float32_says_what_one_in_float64_says(threshold, value):
    found = np.array([value, np.nan], dtype=np.float32) >= at_least(threshold)
    assert found.tolist() == [value >= threshold, False]


@given(st.integers(0, 2**32 - 1), st.integers(1, 400), st.integers(0, 5))
def test_equal_losses_are_ranked_by_lot(seed, rows, decimals):
    draw = np.random.default_rng(seed)
    loss_R = np.round(draw.normal(size=rows), decimals).astype(np.float32)
    loss_R[draw.random(rows) < 0.1] = -0.0
    lot_R = draw.integers(0, 2**63, rows).astype(np.uint64)
    lot_R[draw.random(rows) < 0.5] &= np.uint64(0xF00000000000000F)  # equal upper halves
    lot_R += np.arange(rows, dtype=np.uint64) << np.uint64(4)
    expected_R = np.lexsort((lot_R, loss_R))
    np.testing.assert_array_equal(ranked_by_loss(loss_R, lot_R), expected_R)
