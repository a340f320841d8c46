"""Processes that share the shards of an update: each adds its part of every sum, in one order.

A process sums the shards that it has to whole subtrees. Of each of these the others get their part
of the numbers, so that every process adds one part of all subtrees in the shape of the tree; then
each gets the other parts. That is the traffic of an all-reduce, and the bits of one process.
(`all_reduce` adds in an order of its own; gloo's `all_to_all_single` was 4 to 11 times as slow.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from epochal.engine.shards.deal import shard_ends, shards_of
from epochal.engine.shards.exchange import Exchange
from epochal.engine.shards.tree import Leaf, SumTree

if TYPE_CHECKING:
    from epochal.engine.shards.model_shards import ModelShards

T = TypeVar("T")

# N numbers of one dtype, P parameters

BLOCK = 1 << 22
"""Numbers that are summed at once: what is on its way needs that much memory, not a model's."""
PIECE = 1 << 20
"""Of these, numbers that are on their way together between two processes; of more in proportion, so
that a message does not shrink with their number."""
MOST = 1 << 24


@dataclass(frozen=True)
class Subtree:
    """Neighbouring shards whose sum is a node of the tree: `leaves` of them, from `first` on."""

    first: int
    leaves: int


def subtrees(shards: range) -> list[Subtree]:
    """The fewest nodes of the tree below which these shards are, from left to right."""
    found, first = [], shards.start
    while first < shards.stop:
        leaves = first & -first if first else 1 << (shards.stop - 1).bit_length()
        while first + leaves > shards.stop:
            leaves //= 2
        found.append(Subtree(first, leaves))
        first += leaves
    return found


class Group:
    """The processes that an update is dealt to, and which of its shards each has.

    in_turns: whether micro-batches are dealt one by one instead, as a model in slices needs it.
    model: these slices, once they are made.
    """

    def __init__(self, exchange: Exchange, shards: int, *, in_turns: bool = False) -> None:
        self.exchange = exchange
        self.in_turns = in_turns
        self.model: ModelShards | None = None
        self.rank, self.size = exchange.rank, exchange.size
        self.shards = shards
        self._of_rank = [
            shards_of(rank, processes=self.size, shards=shards) for rank in range(self.size)
        ]
        self._nodes = [subtrees(own) for own in self._of_rank]
        self._piece = min(PIECE * self.size // 2, MOST)

    @property
    def first(self) -> bool:
        """Whether this process is the one that tells what came of it."""
        return self.rank == 0

    @property
    def own(self) -> list[Subtree]:
        """Those of this process."""
        return self._nodes[self.rank]

    def micro_batches(self, count: int) -> range:
        """Which of an update's `count` micro-batches this process has."""
        if self.in_turns:
            return range(min(self.rank, count), count, self.size)
        ends, own = [0, *shard_ends(count, self.shards)], self._of_rank[self.rank]
        return range(ends[own.start], ends[own.stop])

    def in_order(self, given: Sequence[Sequence[T]]) -> list[T]:
        """What each process has of its micro-batches, in the order of these."""
        if not self.in_turns:
            return [one for of_rank in given for one in of_rank]
        total = sum(map(len, given))
        return [given[one % self.size][one // self.size] for one in range(total)]

    def end_turn(self) -> None:
        """After a batch, where a model lies in slices: others may have none."""
        if self.model is not None:
            self.model.end_turn()

    def sit_out(self, count: int | None = None) -> None:
        """Where a model lies in slices: gives the others this process's, as they have batches.

        count: of the micro-batches of the update that ends; none: of one evaluation's turn.
        """
        if self.model is None:
            return
        if count is None:
            self.model.idle()
            return
        for turn in range(len(self.micro_batches(count)), -(-count // self.size)):
            self.model.idle(turn, count)

    def sum_leaves(
        self, nodes: Sequence[Leaf], like: Sequence[Tensor], kinds: Sequence[str]
    ) -> Leaf:
        """The tree's sum of all processes' subtrees. nodes: the leaf of each of `own`.

        like: a tensor of the shape and dtype of each place of a leaf. kinds: of each process, what
        `kinds_of` gave of its nodes.
        """
        total: Leaf = [None] * len(like)
        highest = [max(of_place) for of_place in zip(*kinds, strict=True)]
        for place, kind in enumerate(highest):
            if kind == _SPARSE:
                total[place] = self._sum_sparse([node[place] for node in nodes], like[place])
        dense = [place for place, kind in enumerate(highest) if kind == _DENSE]
        for dtype in dict.fromkeys(like[place].dtype for place in dense):
            places = [place for place in dense if like[place].dtype == dtype]
            self._sum_dense(nodes, like, places, total)
        return total

    def _sum_dense(
        self, nodes: Sequence[Leaf], like: Sequence[Tensor], places: list[int], total: Leaf
    ) -> None:
        """Fills these places of `total`, some of them at once."""
        while places:
            taken, numbers = 0, 0
            while taken < len(places) and (not taken or numbers < max(BLOCK, self._piece)):
                numbers += like[places[taken]].numel()
                taken += 1
            some, places = places[:taken], places[taken:]
            shapes = [like[place] for place in some]
            flat = [flattened([node[place] for place in some], shapes) for node in nodes]
            parts = torch.split(self.sum(flat), [shape.numel() for shape in shapes])
            for place, part in zip(some, parts, strict=True):
                total[place] = part.view(like[place].shape)

    def _sum_sparse(self, own: Sequence[Tensor | None], like: Tensor) -> Tensor | None:
        given = [None if one is None else one.coalesce() for one in own]
        parts = [part for one in given if one is not None for part in (one.indices(), one.values())]
        document = [one is not None for one in given]
        tree = SumTree()
        for nodes, (there, tensors) in zip(
            self._nodes, self.exchange.gather(document, parts), strict=True
        ):
            rest = iter(tensors)
            for node, is_there in zip(nodes, there, strict=True):
                leaf = _sparse(next(rest), next(rest), like) if is_there else None
                tree.add([leaf], leaves=node.leaves)
        return tree.take()[0]

    def sum(self, flat: Sequence[Tensor]) -> Tensor:
        """The tree's sum of all processes' subtrees, in the memory of the first of `flat`.

        flat: of each of `own`, its numbers, all of one shape (N,) and dtype. Every process gets it.
        Piece by piece: while one is added up the next is on its way.
        """
        first, ends = flat[0], []
        coming = None
        piece = self._piece
        for start in range(0, len(first), piece):
            pieces = [one[start : start + piece] for one in flat]
            sent = self._scattered(pieces)
            if coming is not None:
                ends.append(self._gathered(*coming))
            coming = (pieces, *sent)
        if coming is not None:
            ends.append(self._gathered(*coming))
        for end in ends:
            end()
        return first

    def _scattered(self, pieces: Sequence[Tensor]) -> tuple[list[list[Tensor]], Callable[[], None]]:
        """Of each rank's subtrees this process's part, and what waits until they have come."""
        bounds = self._bounds(len(pieces[0]))
        part = slice(bounds[self.rank], bounds[self.rank + 1])
        received = [
            [torch.empty_like(pieces[0][part]) for _ in nodes]
            if rank != self.rank
            else [one[part] for one in pieces]
            for rank, nodes in enumerate(self._nodes)
        ]
        others = self._others()
        end = self.exchange.begin(
            [(rank, one[bounds[rank] : bounds[rank + 1]]) for rank in others for one in pieces],
            [(rank, one) for rank in others for one in received[rank]],
        )
        return received, end

    def _gathered(
        self, pieces: Sequence[Tensor], received: list[list[Tensor]], come: Callable[[], None]
    ) -> Callable[[], None]:
        """Adds this process's part, and begins to give it to all others."""
        come()
        whole = pieces[0]
        bounds = self._bounds(len(whole))
        total, own = self._in_order(received), whole[bounds[self.rank] : bounds[self.rank + 1]]
        if total.data_ptr() != own.data_ptr():
            own.copy_(total)
        others = self._others()
        return self.exchange.begin(
            [(rank, own) for rank in others],
            [(rank, whole[bounds[rank] : bounds[rank + 1]]) for rank in others],
        )

    def _bounds(self, length: int) -> list[int]:
        return [length * rank // self.size for rank in range(self.size + 1)]

    def _in_order(self, received: Sequence[Sequence[Tensor]]) -> Tensor:
        tree = SumTree()
        for nodes, sums in zip(self._nodes, received, strict=True):
            for node, numbers in zip(nodes, sums, strict=True):
                tree.add([numbers], leaves=node.leaves)
        (total,) = tree.take()
        assert total is not None
        return total

    def _others(self) -> list[int]:
        """The other ranks, each pair of processes in the same turn on both sides."""
        return [rank for rank in range(self.size) if rank != self.rank]


_NONE, _DENSE, _SPARSE = "0", "1", "2"


def kinds_of(nodes: Sequence[Leaf]) -> str:
    """What there is at each place of some leaves, a character each: the others must know."""
    return "".join(max(map(_kind, of_place)) for of_place in zip(*nodes, strict=True))


def _kind(one: Tensor | None) -> str:
    if one is None:
        return _NONE
    return _SPARSE if one.is_sparse else _DENSE


def _sparse(indices: Tensor, values: Tensor, like: Tensor) -> Tensor:
    return torch.sparse_coo_tensor(
        indices, values, like.shape, is_coalesced=True, check_invariants=False
    )


def flattened(leaf: Leaf, like: Sequence[Tensor]) -> Tensor:
    """A leaf's tensors as one of shape (N,); -0.0 where there is none, which adds nothing."""
    return torch.cat(
        [
            torch.full_like(parameter, -0.0).reshape(-1) if one is None else one.reshape(-1)
            for one, parameter in zip(leaf, like, strict=True)
        ]
    )
