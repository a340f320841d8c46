"""Micro-batches to shards, shards to processes."""

from hypothesis import given
from hypothesis import strategies as st

from epochal.engine.shards.deal import shard_ends, shards_of


@given(count=st.integers(1, 500), depth=st.integers(0, 7))
def test_each_micro_batch_is_in_one_shard_and_shards_are_as_equal_as_can_be(count, depth):
    ends = shard_ends(count, 2**depth)
    sizes = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    assert ends[-1] == count
    assert sum(sizes) == count
    assert max(sizes) - min(sizes) <= 1


@given(depth=st.integers(0, 7), data=st.data())
def test_each_shard_is_of_one_process_in_their_order(depth, data):
    shards = 2**depth
    processes = data.draw(st.integers(1, shards))
    taken = [shards_of(rank, processes=processes, shards=shards) for rank in range(processes)]
    assert [shard for one in taken for shard in one] == list(range(shards))
    assert max(map(len, taken)) - min(map(len, taken)) <= 1


def test_three_processes_take_three_three_and_two_of_eight():
    assert [len(shards_of(rank, processes=3, shards=8)) for rank in range(3)] == [3, 3, 2]
