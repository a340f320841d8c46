"""The sum of an update's shards: one shape of additions, whoever adds."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal.engine.shards.tree import SumTree, added

KINDS = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64]


def leaf(seed, kind, *, tensors=3, missing=()):
    generator = torch.Generator().manual_seed(seed)
    scale = 10.0 ** (seed % 7 - 3)
    return [
        None if index in missing else (torch.randn(5, generator=generator) * scale).to(kind)
        for index in range(tensors)
    ]


def recursive(leaves):
    """The tree by its definition: halves, and their sum."""
    if len(leaves) == 1:
        return [None if one is None else one.clone() for one in leaves[0]]
    middle = len(leaves) // 2
    left, right = recursive(leaves[:middle]), recursive(leaves[middle:])
    return [b if a is None else a if b is None else a + b for a, b in zip(left, right, strict=True)]


def equal(one, other):
    return all(
        (a is None and b is None) or torch.equal(a.view(torch.uint8), b.view(torch.uint8))
        for a, b in zip(one, other, strict=True)
    )


@settings(max_examples=60, deadline=None)
@given(
    depth=st.integers(0, 5),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 1000),
    missing=st.sets(st.tuples(st.integers(0, 31), st.integers(0, 2))),
)
def test_leaves_given_one_by_one_are_summed_as_the_halves_are(depth, kind, seed, missing):
    leaves = [
        leaf(seed + shard, kind, missing={tensor for at, tensor in missing if at == shard})
        for shard in range(2**depth)
    ]
    expected, tree = recursive(leaves), SumTree()
    for one in leaves:
        tree.add(one)
        assert len(tree._sums) <= depth + 1
    assert equal(tree.take(), expected)


@settings(max_examples=40, deadline=None)
@given(depth=st.integers(0, 4), below=st.integers(0, 4), seed=st.integers(0, 1000))
def test_whole_subtrees_summed_elsewhere_give_the_same_bits(depth, below, seed):
    below = min(below, depth)
    leaves = [leaf(seed + shard, torch.float32) for shard in range(2**depth)]
    expected = recursive(leaves)
    size, parts = 2**below, []
    for start in range(0, len(leaves), size):
        part = SumTree()
        for one in leaves[start : start + size]:
            part.add(one)
        parts.append(part.take())
    whole = SumTree()
    for part in parts:
        whole.add(part)
    assert equal(whole.take(), expected)


def test_a_chain_would_give_other_bits():
    leaves = [leaf(shard, torch.float32) for shard in range(8)]
    chain = leaves[0]
    for one in leaves[1:]:
        chain = [a + b for a, b in zip(chain, one, strict=True)]
    assert not equal(chain, recursive(leaves))


def test_values_of_sparse_gradients_are_added_in_pairs():
    def sparse(*values):
        at = torch.zeros(1, len(values), dtype=torch.int64)
        return torch.sparse_coo_tensor(at, torch.tensor(values), (2,), check_invariants=True)

    tree = SumTree()
    for value in (1e8, 1.0, -1e8, 1.0):
        tree.add([sparse(value)])
    (total,) = tree.take()
    assert total.is_coalesced()
    assert total.values().tolist() == [
        float((torch.tensor(1e8) + torch.tensor(1.0)) + (torch.tensor(-1e8) + torch.tensor(1.0)))
    ]


@pytest.mark.parametrize(("left", "right"), [(None, 1.0), (1.0, None), (None, None)])
def test_what_has_no_gradient_adds_nothing(left, right):
    pair = [None if one is None else torch.tensor([one]) for one in (left, right)]
    (total,) = added([pair[0]], [pair[1]])
    assert total is (pair[0] if pair[1] is None else pair[1])
