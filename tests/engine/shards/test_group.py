"""Processes that share an update's shards: the bits of one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.numbers.processes import in_group

from epochal.engine.shards.deal import shard_ends, shards_of
from epochal.engine.shards.group import Group, flattened, subtrees
from epochal.engine.shards.tree import SumTree


@given(depth=st.integers(0, 6), data=st.data())
def test_subtrees_are_nodes_of_the_tree_and_hold_each_shard_once(depth, data):
    shards = 2**depth
    first = data.draw(st.integers(0, shards - 1))
    taken = range(first, data.draw(st.integers(first + 1, shards)))
    found = subtrees(taken)
    assert [leaf for one in found for leaf in range(one.first, one.first + one.leaves)] == list(
        taken
    )
    for one in found:
        assert one.leaves & (one.leaves - 1) == 0
        assert one.first % one.leaves == 0


def leaf_of(shard, count):
    generator = torch.Generator().manual_seed(shard)
    return torch.randn(count, generator=generator) * 10.0 ** (shard % 5)


def summed(shards, count):
    tree = SumTree()
    for shard in range(shards):
        tree.add([leaf_of(shard, count)])
    return tree.take()[0]


@given(
    depth=st.integers(0, 5),
    processes=st.integers(1, 9),
    count=st.integers(0, 40),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
)
def test_whoever_sums_what_the_bits_are_those_of_one(depth, processes, count, dtype):
    """Each process sums its own micro-batches to subtrees; these are added as they come."""
    shards = 2**depth
    processes = min(processes, shards)
    generator = torch.Generator().manual_seed(count)
    ends = [0, *shard_ends(count, shards)]
    gradients = [(torch.randn(3, generator=generator) * 100).to(dtype) for _ in range(count)]

    def leaf(shard):
        own = gradients[ends[shard] : ends[shard + 1]]
        total = None
        for one in own:
            total = one.clone() if total is None else total + one
        return [total]

    def tree_of(nodes):
        tree = SumTree()
        for leaves, one in nodes:
            tree.add(list(one), leaves=leaves)
        return tree.take()[0]

    alone = tree_of((1, leaf(shard)) for shard in range(shards))
    nodes, taken = [], []
    for rank in range(processes):
        own = shards_of(rank, processes=processes, shards=shards)
        taken += own
        for node in subtrees(own):
            inner = range(node.first, node.first + node.leaves)
            nodes.append((node.leaves, [tree_of((1, leaf(shard)) for shard in inner)]))
    together = tree_of(nodes)
    assert taken == list(range(shards))
    assert (together is None) == (alone is None) == (count == 0)
    assert count == 0 or torch.equal(together, alone)


def work(exchange, shards, count):
    group, own = Group(exchange, shards), []
    for node in group.own:
        tree = SumTree()
        for shard in range(node.first, node.first + node.leaves):
            tree.add([leaf_of(shard, count)])
        own.append(tree.take()[0])
    return group.sum(own)


@pytest.mark.parametrize(
    ("size", "shards", "count"),
    [
        (2, 8, 101),
        (3, 8, 1000),
        pytest.param(4, 8, 3, marks=pytest.mark.slow),
        pytest.param(4, 4, 1000, marks=pytest.mark.slow),
    ],
)
def test_every_process_gets_the_bits_of_one(size, shards, count, tmp_path):
    for found in in_group(work, size, tmp_path, shards, count):
        assert torch.equal(found, summed(shards, count))


def test_what_is_missing_adds_nothing():
    like = [torch.zeros(2), torch.zeros(1)]
    one = flattened([None, torch.tensor([-0.0])], like)
    assert (one + torch.tensor([-0.0, 3.0, -0.0])).tolist() == [-0.0, 3.0, -0.0]
    assert torch.signbit(one + torch.tensor([-0.0, 3.0, -0.0])).tolist() == [True, False, True]
