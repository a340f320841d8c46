"""The points of a run's curves: times, thinning, what is looked at first."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.stores.tracking_store import Finished, keys_and_steps

from epochal.tasks.session.session import EpochPart
from epochal.tasks.tracking.points import (
    FULL_UPDATES,
    LogEvery,
    PointReader,
    buckets,
    part_points,
    step_metrics,
    update_times_ms,
)

ALL = LogEvery(log_every_updates=1, per_group=True)


def test_update_times_run_evenly_between_anchors():
    times_U = update_times_ms([[0, 1000], [2, 1100], [4, 1300]], 5)
    assert times_U.tolist() == [1050, 1100, 1200, 1300, 1300]


def test_one_anchor_is_the_time_of_every_update():
    assert update_times_ms([[0, 7]], 3).tolist() == [7, 7, 7]


def test_times_without_anchors_are_refused():
    with pytest.raises(ValueError, match="at least one pair"):
        update_times_ms([], 3)


@given(
    gaps=st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 10**7)), max_size=8),
    start=st.integers(0, 2**42),
    num_updates=st.integers(0, 3000),
    data=st.data(),
)
def test_update_times_are_ordered_within_the_anchors_whatever_their_order(
    gaps, start, num_updates, data
):
    times = [[0, start]]
    for updates, gap_ms in gaps:
        times.append([times[-1][0] + updates, times[-1][1] + gap_ms])
    times_U = update_times_ms(times, num_updates)
    assert times_U.shape == (num_updates,)
    assert np.all(np.diff(times_U) >= 0)
    assert np.all((times_U >= start) & (times_U <= times[-1][1]))
    for update, moment in times[1:]:
        if update <= num_updates:
            assert times_U[update - 1] == moment
    shuffled = data.draw(st.permutations(times))
    assert np.array_equal(update_times_ms(shuffled, num_updates), times_U)


@settings(deadline=None)  # the first example imports pyarrow
@given(every=st.integers(1, 9), updates=st.integers(1, 30), earlier=st.integers(0, 50))
def test_thinning_takes_the_same_steps_in_any_cut_and_each_last_one(every, updates, earlier):
    done = earlier + updates
    steps = np.arange(earlier + 1, done + 1)
    columns = {"step": steps, "key": np.array(["train/loss"] * updates), "value": steps * 0.5}
    found = step_metrics(
        columns,
        times=[[0, 5]],
        updates=updates,
        updates_done=done,
        log_every=LogEvery(log_every_updates=every, per_group=True),
    )
    expected = sorted({step for step in steps.tolist() if step % every == 0} | {done})
    assert [row.step for row in found.steps] == expected


def points(values, *, earlier, whole=True, names=("train/loss",), log_every=ALL):
    """(key, step, value) of an epoch of these values, `earlier` updates into the run."""
    updates = len(values)
    steps = np.arange(earlier + 1, earlier + updates + 1)
    found = step_metrics(
        {
            "step": np.tile(steps, len(names)),
            "key": np.repeat(np.array(names, dtype=object), updates),
            "value": np.concatenate([values * (place + 1) for place in range(len(names))]),
        },
        times=[[0, 5], [updates, 5 + updates]],
        updates=updates,
        updates_done=earlier + updates,
        log_every=log_every,
        whole=whole,
    )
    return [(row.key, row.step, row.timestamp_ms, row.value) for row in found.steps]


def test_a_million_updates_make_some_thousand_points_with_every_bucket_s_extremes():
    values = np.random.default_rng(1).normal(size=1_000_000)
    values[654_321] = 40.0  # a spike
    found = points(values, earlier=0)
    assert 5000 < len(found) < 8000
    steps = [step for _, step, _, _ in found]
    assert steps == sorted(set(steps))
    assert steps[:FULL_UPDATES] == list(range(1, FULL_UPDATES + 1))
    assert 654_322 in steps
    assert min(value for *_, value in found) == values.min()
    bucket_N, last_N = buckets(np.arange(1, 1_000_001))
    assert len(np.unique(bucket_N)) * 2 - FULL_UPDATES >= len(found)
    assert (np.diff(last_N) >= 0).all()
    assert (last_N >= np.arange(1, 1_000_001)).all()


@settings(max_examples=40, deadline=None)
@given(
    earlier=st.integers(0, 20_000),
    cuts=st.lists(st.integers(1, 900), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_what_commits_inside_an_epoch_send_is_what_the_whole_epoch_sends(earlier, cuts, seed):
    values = np.random.default_rng(seed).integers(0, 5, sum(cuts)).astype(float)
    whole = points(values, earlier=earlier, names=("train/loss", "gradients/norm"))
    sent = []
    for done in np.cumsum(cuts).tolist():
        part = points(
            values[:done], earlier=earlier, whole=False, names=("train/loss", "gradients/norm")
        )
        now = [(key, step, value) for key, step, _, value in part]
        assert now[: len(sent)] == sent or set(sent) <= set(now)  # nothing that was sent goes
        sent = now
    assert set(sent) <= {(key, step, value) for key, step, _, value in whole}


def test_a_metric_that_is_not_a_number_is_seen_among_those_that_are():
    values = np.arange(4000, dtype=float)
    values[3001:3004] = np.nan  # updates 3,002 to 3,004, of the bucket from 3,001 to 3,008
    found = {step: value for _, step, _, value in points(values, earlier=0)}
    assert [step for step in found if 3000 < step <= 3008] == [3001, 3004, 3008]
    assert np.isnan(found[3004])


def test_what_seldom_happens_is_sent_where_it_happens():
    values = np.zeros(50)
    values[[7, 20]] = 1
    assert [step for _, step, _, _ in points(values, earlier=0, names=("gradients/skipped",))] == [
        8,
        21,
    ]
    assert len(points(values, earlier=0)) == 50  # of a loss a zero is a value


def test_without_thinning_every_update_is_sent():
    every = LogEvery(log_every_updates=1, per_group=True, thinned=False)
    assert len(points(np.ones(5000), earlier=0, log_every=every)) == 5000


def test_a_commit_inside_an_epoch_is_thinned_as_the_epoch_is():
    values = np.random.default_rng(3).normal(size=700)
    part = EpochPart("k", {"train/loss": values}, updates_before=9000, times=[[0, 5]])
    found = [(row.step, row.value) for row in part_points(part, ALL).steps]
    assert found == [
        (step, value) for _, step, _, value in points(values, earlier=9000, whole=False)
    ]
    assert len(found) < 100


def test_a_run_that_was_sent_whole_is_not_read_again_when_it_is_thinned(database, monkeypatch):
    finished = Finished(epochs=1, updates=4)
    finished.run(database.uri, thinned=False)
    read = []
    monkeypatch.setattr(PointReader, "stage_points", lambda self, record: read.append(record))
    assert finished.run(database.uri).problem is None
    assert read == []


def test_long_runs_have_the_same_points_after_a_kill_as_without_one(database):
    whole = Finished(epochs=3, updates=1500, keys=("train/loss",))
    expected = keys_and_steps(database, whole.run(database.uri).run_id)
    assert len(expected) < 4500
    killed = Finished(epochs=1, updates=1500, keys=("train/loss",))
    tracker = killed.tracker(database.uri)
    tracker.start()
    for record in killed.records:
        tracker.deliver(record)
    # Of the second epoch 1,000 updates are committed when it is killed.
    killed.add_epoch(1)
    values = np.array([1500 + update + 1.0 for update in range(1000)])
    tracker.deliver_part(
        EpochPart(
            killed.key("train", 1), {"train/loss": values}, updates_before=1500, times=[[0, 5]]
        )
    )
    run_id = tracker.finish("KILLED", best=None, tags={}).run_id
    killed.add_epoch(2)
    assert killed.run(database.uri).run_id == run_id
    assert keys_and_steps(database, run_id) == expected


def test_the_best_epoch_so_far_stands_beside_each_validation(database):
    finished = Finished(epochs=0)
    for epoch, accuracy in enumerate((0.5, 0.9, 0.7)):
        finished.metrics = {"accuracy": accuracy, "loss": None}
        finished.add_epoch(epoch)
    run_id = finished.run(database.uri).run_id
    held = [(key, step, value) for key, step, _, value in database.points(run_id)]
    assert [(step, value) for key, step, value in held if key == "best/accuracy"] == [
        (20, 0.5), (40, 0.9), (60, 0.9),
    ]  # fmt: skip
    assert [value for key, _, value in held if key == "best/epoch"] == [0, 1, 1]
    assert [(step, value) for key, step, value in held if key == "epoch"] == [
        (20, 0), (40, 1), (60, 2),
    ]  # fmt: skip
