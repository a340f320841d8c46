"""Sums of gradients in the shape of a binary tree: the order of additions is part of the result.

Floating-point addition is commutative, but not associative: a sum has the same bits whoever adds,
as long as the same pairs are added. Shards are the leaves; two neighbours are added, then two such
sums, up to the root. No kept library has it; EasyScale (Li et al., SC'23) fixes logical workers to
the same end.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Leaf = list[Tensor | None]
"""A tensor for each parameter, or None where it got no gradient."""


class SumTree:
    """The sum of leaves that are given one after the other, from left to right.

    Keeps log2 S + 1 sums at most. Takes the tensors of leaves as its own memory.
    """

    def __init__(self) -> None:
        self._sums: list[tuple[int, Leaf]] = []  # leaves below each sum, and the sum

    def add(self, leaf: Leaf, *, leaves: int = 1) -> None:
        """Takes the next leaf, or sum of so many, and adds the subtrees that are whole by it."""
        self._sums.append((leaves, leaf))
        while len(self._sums) > 1 and self._sums[-1][0] == self._sums[-2][0]:
            (leaves, left), (_, right) = self._sums[-2:]
            self._sums[-2:] = [(2 * leaves, added(left, right))]

    def take(self) -> Leaf:
        """The root's sum, once all leaves are there; the tree is empty then."""
        ((_, root),) = self._sums
        self._sums = []
        return root


def added(left: Sequence[Tensor | None], right: Sequence[Tensor | None]) -> Leaf:
    """Left + right, in the memory of `left`; what is missing on one side is the other side's."""
    sums: Leaf = []
    pairs: list[tuple[Tensor, Tensor]] = []
    for one, other in zip(left, right, strict=True):
        if one is None or other is None:
            sums.append(other if one is None else one)
        elif one.is_sparse:
            # An index has at most two values then, so that these too are added in pairs.
            sums.append((one.coalesce() + other.coalesce()).coalesce())
        else:
            sums.append(one)
            pairs.append((one, other))
    if pairs:
        torch._foreach_add_([one for one, _ in pairs], [other for _, other in pairs])
    return sums
