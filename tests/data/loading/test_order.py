"""The order of an epoch and its cut: pure, independent of who else is kept, resumed by an index."""

from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal.data.hashing import hash_u64
from epochal.data.loading import order
from epochal.data.loading.order import epoch_order, hash_order, micro_batches

SIZES = st.integers(0, 200)


def order_of(count, *, seed=7, epoch=3, **more):
    return epoch_order(seed=seed, epoch=epoch, sample_ids_N=np.arange(count), **more)


def plan_of(count, **more):
    return micro_batches(np.arange(count), **more)


def test_golden_order_is_pinned():
    assert order_of(10).tolist() == [3, 7, 9, 1, 2, 6, 8, 5, 0, 4]
    assert order_of(10).dtype == np.int64


def test_every_sample_comes_once():
    assert sorted(order_of(1000).tolist()) == list(range(1000))


def test_seeds_and_epochs_shuffle_anew():
    orders = [order_of(500, seed=seed, epoch=epoch) for seed in (1, 2) for epoch in (0, 1)]
    for number, one in enumerate(orders):
        for other in orders[number + 1 :]:
            assert abs(np.corrcoef(np.argsort(one), np.argsort(other))[0, 1]) < 0.2


@given(st.data(), st.integers(1, 80), st.integers(0, 5))
def test_relative_order_does_not_depend_on_who_else_is_kept(data, count, epoch):
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    everyone = order_of(count, epoch=epoch)
    kept = order_of(count, epoch=epoch, keep_N=keep)
    assert kept.tolist() == [position for position in everyone.tolist() if keep[position]]


@given(st.permutations(range(0, 90, 3)))
def test_order_goes_by_ids_and_not_by_positions(ids):
    ids = np.array(ids)
    found = ids[epoch_order(seed=7, epoch=3, sample_ids_N=ids)]
    expected = np.sort(ids)[epoch_order(seed=7, epoch=3, sample_ids_N=np.sort(ids))]
    assert found.tolist() == expected.tolist()


def test_equal_hashes_are_ordered_by_id(monkeypatch):
    monkeypatch.setattr(
        "epochal.data.loading.order.hash_u64", lambda ids, *_: hash_u64(ids % 2, "few values")
    )
    ids = np.array([5, 4, 3, 2, 1, 0])
    found = ids[epoch_order(seed=0, epoch=0, sample_ids_N=ids)].tolist()
    assert [one for one in found if one % 2] == [1, 3, 5]
    assert [one for one in found if not one % 2] == [0, 2, 4]


@given(SIZES, st.integers(1, 40), st.integers(1, 5), st.booleans())
def test_micro_batches_are_the_order_cut_into_updates(count, batch_size, accumulate, drop_last):
    plan = plan_of(count, batch_size=batch_size, accumulate=accumulate, drop_last=drop_last)
    slices = [plan.slice(step).tolist() for step in range(plan.num_micro_steps)]
    windows = [plan.window(step) for step in range(plan.num_micro_steps)]
    assert list(chain.from_iterable(slices)) == list(range(plan.num_samples))
    assert all(len(one) == batch_size for one in slices[:-1])
    assert sum(window.last for window in windows) == plan.num_updates
    sizes, seen = [], 0
    for part, window in zip(slices, windows, strict=True):
        seen += len(part)
        sizes.append(window.num_samples)
        if window.last:
            assert set(sizes) == {seen}
            assert len(sizes) <= accumulate
            sizes, seen = [], 0
    assert not sizes


def test_the_tail_of_an_accumulation_is_an_update_of_its_own():
    plan = plan_of(10, batch_size=2, accumulate=3)
    assert (plan.num_micro_steps, plan.num_updates) == (5, 2)
    assert [plan.window(step).num_samples for step in range(5)] == [6, 6, 6, 4, 4]
    assert [plan.window(step).last for step in range(5)] == [False, False, True, False, True]


@pytest.mark.parametrize(
    ("count", "drop_last", "expected"),
    [(10, False, [4, 4, 2]), (10, True, [4, 4]), (8, True, [4, 4]), (3, True, [3]), (0, True, [])],
)
def test_drop_last_drops_an_incomplete_micro_batch_unless_it_is_the_only_one(
    count, drop_last, expected
):
    plan = plan_of(count, batch_size=4, accumulate=2, drop_last=drop_last)
    assert [len(plan.slice(step)) for step in range(plan.num_micro_steps)] == expected


@pytest.mark.parametrize("step", [-1, 3])
def test_a_micro_step_outside_the_epoch_is_an_error(step):
    plan = plan_of(10, batch_size=4)
    with pytest.raises(IndexError):
        plan.slice(step)
    with pytest.raises(IndexError):
        plan.window(step)


IDS = {
    "as they come": np.arange,
    "shuffled": lambda count: np.random.default_rng(1).permutation(count),
    "beyond what floats hold": lambda count: 2**53 + 3 * np.arange(count),
    "beyond what half of an int64 holds": lambda count: 2**40 + 2**33 * np.arange(count),
}


def by_comparison(ids, *stream):
    return np.lexsort((ids, hash_u64(ids, *stream)))


@pytest.mark.parametrize("count", [0, 1, 2, 1000, 60_000])
@pytest.mark.parametrize("kind", IDS)
def test_the_order_is_that_of_a_comparison_sort(kind, count):
    ids = IDS[kind](count).astype(np.int64)
    assert np.array_equal(hash_order(ids, "order", 7, 3), by_comparison(ids, "order", 7, 3))


@pytest.mark.parametrize("rows", [1, 7, 1000, 4096])
def test_buckets_change_nothing(monkeypatch, rows):
    ids = IDS["shuffled"](20_011).astype(np.int64)
    expected = hash_order(ids, "order", 7, 3)
    monkeypatch.setattr(order, "BUCKET_ROWS", rows)
    monkeypatch.setattr(order, "ONE_BUCKET_ROWS", rows)
    assert np.array_equal(hash_order(ids, "order", 7, 3), expected)


@given(st.lists(st.integers(0, 3), max_size=60), st.lists(st.integers(0, 3), max_size=60))
def test_equal_upper_halves_and_equal_hashes_are_told_apart(upper, lower):
    count = min(len(upper), len(lower))
    halves = np.array([upper[:count], lower[:count]], dtype=np.uint64)
    hashes = (halves[0] << np.uint64(32)) + halves[1]
    ids = np.random.default_rng(count).permutation(count)
    found = order._sorted_rows(hashes, ids)
    assert np.array_equal(found, np.lexsort((ids, hashes)))


@pytest.mark.parametrize("rows", [100, 1 << 21])
def test_the_order_of_an_epoch_is_of_those_that_are_kept(monkeypatch, rows):
    monkeypatch.setattr(order, "BUCKET_ROWS", rows)
    monkeypatch.setattr(order, "ONE_BUCKET_ROWS", rows)
    ids = IDS["beyond what floats hold"](5000)
    keep = np.random.default_rng(0).random(5000) < 0.4
    whole = epoch_order(seed=7, epoch=3, sample_ids_N=ids)
    kept = epoch_order(seed=7, epoch=3, sample_ids_N=ids, keep_N=keep)
    assert np.array_equal(kept, whole[keep[whole]])
