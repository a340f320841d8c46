"""Orders found in parts: the same as the whole, from any place on, and sequential by blocks."""

import pickle
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal.data.config.batches import BatchesConfig
from epochal.data.loading import lazy_order
from epochal.data.loading.batch_sampler import sampler_order, sampler_plan
from epochal.data.loading.lazy_order import BlockOrder, GlobalOrder, Repeated, head
from epochal.data.loading.order import Positions, epoch_order

KEEP = st.none() | st.integers(0, 2**32)


def keep_of(count, seed):
    """Which of so many are kept, drawn with that seed; None: all."""
    return None if seed is None else np.random.default_rng(seed).random(count) < 0.6


def ids_of(count, *, own):
    return np.random.default_rng(1).permutation(count) * 7 if own else Positions(count)


@st.composite
def blocks(draw):
    sizes = draw(st.lists(st.integers(0, 12), min_size=1, max_size=20))
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def by_blocks(blocks_G1, *, keep=None, own=False, seed=7, epoch=3, window=3):
    count = int(blocks_G1[-1])
    return BlockOrder(
        seed=seed, epoch=epoch, sample_ids_N=ids_of(count, own=own), keep_N=keep,
        blocks_G1=blocks_G1, window_blocks=window,
    )  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def small_parts():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lazy_order, "ONE_BUCKET_ROWS", 16)
        patch.setattr(lazy_order, "_PART_ROWS", 10)
        patch.setattr(lazy_order, "_WALK_ROWS", 8)
        yield


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 300), KEEP, st.booleans(), st.data())
def test_the_global_order_in_parts_is_that_of_the_whole(count, kept, own, data):
    ids, keep = ids_of(count, own=own), keep_of(count, kept)
    whole = epoch_order(seed=7, epoch=3, sample_ids_N=ids[:], keep_N=keep).tolist()
    start = data.draw(st.integers(0, max(0, len(whole))))
    stop = data.draw(st.integers(start, len(whole) + 5))
    found = GlobalOrder(seed=7, epoch=3, sample_ids_N=ids, keep_N=keep)
    assert len(found) == len(whole)
    assert found[start:stop].tolist() == whole[start:stop]
    assert found[:].tolist() == whole
    assert head(found, start)[:].tolist() == whole[:start]


@settings(max_examples=50, deadline=None)
@given(blocks(), KEEP, st.booleans(), st.integers(1, 9), st.data())
def test_each_row_comes_once_by_blocks_and_any_part_is_that_of_the_whole(
    blocks_G1, kept, own, window, data
):
    count = int(blocks_G1[-1])
    keep = keep_of(count, kept)
    order = by_blocks(blocks_G1, keep=keep, own=own, window=window)
    whole = order[:].tolist()
    expected = np.arange(count) if keep is None else np.flatnonzero(keep)
    assert sorted(whole) == expected.tolist()
    assert len(order) == len(whole)
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    again = by_blocks(blocks_G1, keep=keep, own=own, window=window)
    assert again[start:stop].tolist() == whole[start:stop]
    assert pickle.loads(pickle.dumps(again))[start:stop].tolist() == whole[start:stop]
    assert head(again, stop)[start:].tolist() == whole[start:stop]


@settings(max_examples=50, deadline=None)
@given(blocks(), st.integers(0, 2**32), st.integers(1, 9))
def test_who_else_is_kept_changes_no_relative_order_by_blocks(blocks_G1, kept, window):
    keep = keep_of(int(blocks_G1[-1]), kept)
    everyone = by_blocks(blocks_G1, window=window)[:].tolist()
    some = by_blocks(blocks_G1, keep=keep, window=window)[:].tolist()
    assert some == [row for row in everyone if keep[row]]


@settings(max_examples=50, deadline=None)
@given(blocks(), st.integers(1, 9))
def test_storage_is_read_a_window_of_blocks_at_a_time(blocks_G1, window):
    order = by_blocks(blocks_G1, window=window)
    block_of = np.searchsorted(blocks_G1, order[:], side="right") - 1
    seen = [set(block_of[begin:end]) for begin, end in zip(
        order.starts_W1[:-1], order.starts_W1[1:], strict=True
    )]  # fmt: skip
    assert all(len(one) <= window for one in seen)
    assert sum(map(len, seen)) == len(set(block_of))


def test_golden_orders_by_blocks_are_pinned():
    order = by_blocks(np.array([0, 3, 5, 9, 10, 14]), window=2)
    assert order[:].tolist() == [3, 7, 6, 8, 5, 4, 11, 1, 2, 10, 12, 13, 0, 9]
    assert order.starts_W1.tolist() == [0, 6, 13, 14]
    assert order[:].dtype == np.int64


def test_blocks_and_rows_of_blocks_are_shuffled_anew_in_each_epoch():
    blocks_G1 = np.arange(0, 4001, 20)
    orders = [
        by_blocks(blocks_G1, seed=seed, epoch=epoch)[:] for seed in (1, 2) for epoch in (0, 1)
    ]
    for number, one in enumerate(orders):
        for other in orders[number + 1 :]:
            assert abs(np.corrcoef(np.argsort(one), np.argsort(other))[0, 1]) < 0.2


def test_one_block_or_a_window_of_all_is_the_global_order():
    whole = epoch_order(seed=7, epoch=3, sample_ids_N=np.arange(100)).tolist()
    assert by_blocks(np.array([0, 100]))[:].tolist() == whole
    assert by_blocks(np.arange(0, 101, 10), window=10)[:].tolist() == whole


@settings(max_examples=50, deadline=None)
@given(blocks(), st.integers(1, 4), st.integers(1, 6))
def test_repeats_of_a_lazy_order_are_those_of_an_array(blocks_G1, repeats, size):
    config = BatchesConfig(repeats=repeats)
    count = int(blocks_G1[-1])
    base = by_blocks(blocks_G1, window=config.window_blocks)
    order = sampler_order(
        config, seed=7, epoch=3, sample_ids_N=Positions(count), blocks_G1=blocks_G1
    )
    assert order[:].tolist() == np.repeat(base[:], repeats).tolist()
    assert isinstance(order, Repeated) == (repeats > 1)
    plan = cut(config, order, batch_size=size)
    turns = [turn for step in range(plan.num_micro_steps) if repeats > 1
             for turn in plan.repeats(step).tolist()]  # fmt: skip
    assert turns == (list(range(repeats)) * count if repeats > 1 else [])


def every_so_many(count, *, rank, processes):
    return range(rank, count, processes)


def cut(config, order, *, batch_size=4, accumulate=2, drop_last=False, **more):
    return sampler_plan(
        config, order, batch_size=batch_size, accumulate=accumulate, drop_last=drop_last,
        seed=7, epoch=3, **more,
    )  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(blocks(), st.integers(1, 5), st.booleans(), st.data())
def test_any_micro_step_alone_is_that_of_the_whole_and_processes_share_them(
    blocks_G1, size, drop_last, data
):
    def plan():
        config = BatchesConfig(shuffle_blocks=2)
        order = sampler_order(
            config, seed=7, epoch=3, sample_ids_N=Positions(int(blocks_G1[-1])), blocks_G1=blocks_G1
        )
        return cut(config, order, batch_size=size, accumulate=3, drop_last=drop_last)

    whole = plan()
    slices = [whole.slice(step).tolist() for step in range(whole.num_micro_steps)]
    for processes in (1, 2, 3):
        found = {}
        for rank in range(processes):
            own = partial(every_so_many, rank=rank, processes=processes)
            steps = [step for step, _, empty in plan().of_process(0, own) if not empty]
            found |= {step: plan().slice(step).tolist() for step in steps}
        assert [found[step] for step in sorted(found)] == slices
    if slices:
        step = data.draw(st.integers(0, len(slices) - 1))
        assert plan().slice(step).tolist() == slices[step]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 100), st.none() | st.just(5))
def test_epochs_of_a_length_of_their_own_walk_through_one_pass_after_the_other(
    count, epoch_samples, block
):
    blocks_G1 = None if block is None else np.append(np.arange(0, count, block), count)

    def order(epoch, samples=None):
        return sampler_order(
            BatchesConfig(), seed=7, epoch=epoch, sample_ids_N=np.arange(count),
            blocks_G1=blocks_G1, epoch_samples=samples,
        )  # fmt: skip

    passes = [row for number in range(8) for row in order(number)[:].tolist()]
    epochs = range(min(4, len(passes) // epoch_samples))
    for epoch in epochs:
        found = order(epoch, epoch_samples)
        rows = passes[epoch * epoch_samples : (epoch + 1) * epoch_samples]
        assert len(found) == epoch_samples
        assert found[:].tolist() == rows
        assert found[epoch_samples // 2 :].tolist() == rows[epoch_samples // 2 :]
        plan, seen = cut(BatchesConfig(), found), {}
        for step in range(plan.num_micro_steps):
            turns = plan.repeats(step)
            for place, row in enumerate(plan.slice(step).tolist()):
                assert (0 if turns is None else turns[place]) == seen.get(row, 0)
                seen[row] = seen.get(row, 0) + 1
