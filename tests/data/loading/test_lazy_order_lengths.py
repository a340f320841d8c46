"""Micro-batches by length: alike ones together, as many as have room, each sample once."""

from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from epochal.data.config.batches import BatchesConfig
from epochal.data.errors import DataError
from epochal.data.loading.batch_sampler import sampler_order, sampler_plan
from epochal.data.loading.lazy_order import check_room
from epochal.data.loading.order import Positions

LENGTHS = st.lists(st.integers(0, 30), max_size=120).map(np.array).map(lambda one: one.astype(int))


def plan_of(lengths_N, *, batch_size=4, by_length=None, tokens=None, drop_last=False, **more):
    config = BatchesConfig(by_length=by_length, **more)
    order = sampler_order(config, seed=7, epoch=3, sample_ids_N=Positions(len(lengths_N)))
    return sampler_plan(
        config, order, batch_size=batch_size, accumulate=2, drop_last=drop_last, seed=7, epoch=3,
        lengths_N=lengths_N, batch_tokens=tokens,
    )  # fmt: skip


def slices(plan):
    return [plan.slice(step).tolist() for step in range(plan.num_micro_steps)]


@settings(max_examples=50, deadline=None)
@given(
    LENGTHS, st.integers(1, 9), st.none() | st.integers(1, 5), st.none() | st.integers(30, 90),
    st.data(),
)  # fmt: skip
def test_each_sample_comes_once_and_any_micro_step_alone_is_that_of_the_whole(
    lengths_N, size, by_length, tokens, data
):
    options = {"batch_size": size, "by_length": by_length, "tokens": tokens}
    plan = plan_of(lengths_N, **options)
    parts = slices(plan)
    assert sorted(chain.from_iterable(parts)) == list(range(len(lengths_N)))
    assert all(0 < len(part) <= size for part in parts)
    if parts:
        step = data.draw(st.integers(0, len(parts) - 1))
        assert plan_of(lengths_N, **options).slice(step).tolist() == parts[step]


@settings(max_examples=50, deadline=None)
@given(LENGTHS, st.integers(1, 9), st.integers(1, 4))
@example(np.arange(14), 4, 4)
def test_windows_are_sorted_by_length_and_cut_into_micro_batches_of_the_same_sizes(
    lengths_N, size, by_length
):
    for drop_last in (False, True):
        options = {"batch_size": size, "drop_last": drop_last}
        found = plan_of(lengths_N, by_length=by_length, **options)
        plain = plan_of(lengths_N, **options)
        assert found.offsets_M1.tolist() == plain.offsets_M1.tolist()
        rows = [row for part in slices(plain) for row in part]
        for start in range(0, found.num_micro_steps, by_length):
            window = rows[start * size : (start + by_length) * size]
            window.sort(key=lambda row: lengths_N[row])
            expected = {tuple(window[at : at + size]) for at in range(0, len(window), size)}
            assert set(map(tuple, slices(found)[start : start + by_length])) == expected


@settings(max_examples=50, deadline=None)
@given(LENGTHS, st.integers(1, 9), st.integers(30, 90), st.none() | st.integers(1, 5))
def test_micro_batches_hold_as_many_as_have_room(lengths_N, size, tokens, by_length):
    parts = slices(plan_of(lengths_N, batch_size=size, tokens=tokens, by_length=by_length))
    for part in parts:
        assert max(lengths_N[part]) * len(part) <= tokens
    if by_length is None:  # the next one had no room
        for part, following in pairwise(parts):
            more = [*part, following[0]]
            assert len(part) == size or max(lengths_N[more]) * len(more) > tokens


def test_samples_of_like_length_share_micro_batches_in_an_order_by_chance():
    lengths_N = np.random.default_rng(2).integers(1, 500, 4000)

    def padding(plan):
        used = sum(lengths_N[part].sum() for part in slices(plan))
        return 1 - used / sum(max(lengths_N[part]) * len(part) for part in slices(plan))

    plain, sorted_ = (
        plan_of(lengths_N, batch_size=16),
        plan_of(lengths_N, batch_size=16, by_length=50),
    )
    assert padding(plain) > 0.4
    assert padding(sorted_) < 0.02
    longest = [max(lengths_N[part]) for part in slices(sorted_)]
    assert abs(np.corrcoef(longest[:-1], longest[1:])[0, 1]) < 0.2
    full = plan_of(lengths_N, batch_size=64, by_length=50, tokens=4000)
    assert padding(full) < 0.1
    assert full.num_updates < plan_of(lengths_N, batch_size=64, tokens=4000).num_updates


def test_golden_orders_by_length_are_pinned():
    lengths_N = np.array([3, 9, 4, 1, 7, 7, 2, 8, 5, 6])
    assert slices(plan_of(lengths_N, batch_size=2, by_length=3)) == [
        [3, 6],
        [2, 9],
        [7, 1],
        [0, 8],
        [5, 4],
    ]
    assert slices(plan_of(lengths_N, batch_size=3, by_length=2, tokens=12)) == [
        [3, 6, 2],
        [9],
        [1],
        [7],
        [4],
        [0, 8],
        [5],
    ]
    assert slices(plan_of(lengths_N, batch_size=3, tokens=12)) == [
        [3],
        [7],
        [9],
        [1],
        [2, 6],
        [8],
        [5],
        [0],
        [4],
    ]


def test_repeats_are_counted_in_micro_batches_by_length():
    lengths_N = np.array([3, 9, 3, 1, 7])
    plan, seen = plan_of(lengths_N, batch_size=2, by_length=2, repeats=3), {}
    for step in range(plan.num_micro_steps):
        for row, turn in zip(plan.slice(step).tolist(), plan.repeats(step).tolist(), strict=True):
            assert turn == seen.get(row, 0)
            seen[row] = turn + 1
    assert set(seen.values()) == {3}


@pytest.mark.parametrize("by_length", [None, 2])
def test_a_sample_longer_than_a_micro_batch_is_named(by_length):
    lengths_N = np.array([3, 9, 40, 1])
    with pytest.raises(DataError, match=r"batch_tokens: found 39.* position 2 .* length of 40"):
        plan_of(lengths_N, tokens=39, by_length=by_length)
    with pytest.raises(DataError, match="position 2 of train_data"):
        check_room(lengths_N, tokens=39)
    check_room(lengths_N, tokens=40)
