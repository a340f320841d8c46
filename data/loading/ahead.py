"""Tells a data set which blocks of its storage are read next, so that it can fetch them meanwhile.

A hint: it changes no item, and a data set without `will_read` is told nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from epochal.data.loading.order import MicroBatchPlan

MOST_BLOCKS = 32  # that are told; how many of them it fetches is the data set's affair
MOST_STEPS = 512  # that are looked at for them

Telling = Callable[[int], None]
"""To be called with each micro-step, in their order, before it is read."""


def telling(dataset: Any, plan: MicroBatchPlan, micro_steps: Iterable[int]) -> Telling:
    """What tells `dataset` of the micro-steps that are read here, `micro_steps`, in this order."""
    blocks_G1 = getattr(dataset, "blocks", None)
    if blocks_G1 is None or not callable(getattr(dataset, "will_read", None)):
        return _tell_nothing
    return _Ahead(dataset, plan, micro_steps, np.asarray(blocks_G1))


def _tell_nothing(micro_step: int) -> None:
    pass


class _Ahead:
    def __init__(
        self,
        dataset: Any,
        plan: MicroBatchPlan,
        micro_steps: Iterable[int],
        blocks_G1: npt.NDArray[np.int64],
    ) -> None:
        self._dataset, self._plan, self._blocks_G1 = dataset, plan, blocks_G1
        self._later = iter(micro_steps)
        self._next: deque[tuple[int, list[int]]] = deque()
        self._count: dict[int, int] = {}  # block → micro-steps of `_next` that read it
        self._told: frozenset[int] = frozenset()

    def __call__(self, micro_step: int) -> None:
        while len(self._next) < MOST_STEPS and len(self._count) < MOST_BLOCKS:
            if (step := next(self._later, None)) is None:
                break
            blocks = self._blocks(step)
            self._next.append((step, blocks))
            for block in blocks:
                self._count[block] = self._count.get(block, 0) + 1
        if not self._told.issuperset(self._count):
            wanted = dict.fromkeys(block for _, blocks in self._next for block in blocks)
            self._told = frozenset(wanted)
            self._dataset.will_read(list(wanted))
        while self._next:
            step, blocks = self._next.popleft()
            for block in blocks:
                self._count[block] -= 1
                if not self._count[block]:
                    del self._count[block]
            if step == micro_step:
                return

    def _blocks(self, micro_step: int) -> list[int]:
        """In the order in which its rows come."""
        positions_B = self._plan.slice(micro_step)
        block_B = np.searchsorted(self._blocks_G1, positions_B, side="right") - 1
        return list(dict.fromkeys(block_B.tolist()))
