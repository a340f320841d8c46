"""When the updates of a stage were: kept in a file beside its record."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from epochal.data.errors import CorruptObject

_LARGEST = 1 << 53


MAX_TIMES = 200
"""Of one epoch; MLflow's times between two of them are interpolated."""


def checked_times(value: Any) -> list[list[int]]:
    """`value` as it was read, if it is pairs as `StageTimes` keeps them. Raises CorruptObject."""
    if (
        not isinstance(value, list)
        or not 0 < len(value) <= MAX_TIMES + MAX_TIMES
        or not all(isinstance(pair, list) and len(pair) == 2 for pair in value)  # noqa: PLR2004 - a pair
        or not all(
            type(number) is int and 0 <= number <= _LARGEST for pair in value for number in pair
        )
    ):
        raise CorruptObject(f"anchors: found {value!r:.80}, expected pairs (updates, milliseconds)")
    return value


class StageTimes:
    """Pairs (updates done in the epoch, milliseconds since 1970), at most `MAX_TIMES` + 1."""

    def __init__(self, earlier: Sequence[Sequence[int]] = ()) -> None:
        self._pairs = [[int(done), int(moment)] for done, moment in earlier] or [[0, now_ms()]]
        self._every_ms = 1000

    def add(self, updates: int) -> None:
        """Notes the time of this update, unless the last one noted is too near."""
        moment = now_ms()
        done, last = self._pairs[-1]
        if updates <= done or moment - last < self._every_ms:
            return
        self._pairs.append([updates, moment])
        if len(self._pairs) > MAX_TIMES:
            self._pairs = self._pairs[::2]
            self._every_ms *= 2

    def until(self, updates: int) -> list[list[int]]:
        """All pairs, this update with its time among them."""
        if self._pairs[-1][0] < updates:
            self._pairs.append([updates, now_ms()])
        return [list(pair) for pair in self._pairs]


def now_ms() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


TIMES = "times.json"
