"""Seconds by cause: one stopwatch that is always at exactly one of them, so that they add up."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Literal, get_args

Cause = Literal[
    "data",
    "forward_backward",
    "optimizer",
    "communication",
    "commit",
    "validation",
    "mining",
    "orchestration",
    "waiting",
    "lost",
]
"""What time is spent for.

- data: waiting for the next batch of training.
- forward_backward: from a batch to its gradients.
- optimizer: from gradients to new weights.
- communication: between the processes of one update.
- commit: copying, writing and storing what a stage keeps, as far as training waits for it.
- validation: metrics, of a whole epoch or inside one.
- mining: from observations to the next sample table, and the pass that scores samples.
- orchestration: everything else: loading, restoring, planning, what lies between two stages.
- waiting: from a failed try to the next one in the same process.
- lost: work that a killed or failed process had done after its last commit.
"""

CAUSES: tuple[Cause, ...] = get_args(Cause)
PRODUCTIVE: frozenset[Cause] = frozenset({"forward_backward", "optimizer"})
"""The time that moves the weights; its share of all time is the goodput."""
LOOP: frozenset[Cause] = PRODUCTIVE | {"data", "communication"}
"""The time between the first batch of an epoch and the last update, without what interrupts it."""


class Stopwatch:
    """Always at one cause. Phases nest: an inner one pauses the outer one.

    Counts in integer nanoseconds of `clock`, so that the causes add up to the whole exactly. For
    one thread.
    """

    __slots__ = ("_clock", "_now", "_since", "_spent")

    def __init__(self, cause: Cause, *, clock: Callable[[], int] = time.perf_counter_ns) -> None:
        self._clock = clock
        self._spent: dict[Cause, int] = dict.fromkeys(CAUSES, 0)
        self._now: Cause = cause
        self._since = clock()

    @property
    def cause(self) -> Cause:
        """What the time is counted for now."""
        return self._now

    def switch(self, cause: Cause) -> None:
        """From here on time is counted for `cause`; inside a phase only until it ends."""
        now = self._clock()
        self._spent[self._now] += now - self._since
        self._now, self._since = cause, now

    def phase(self, cause: Cause) -> Phase:
        """A block whose time counts for `cause`; after it, however it ends, for what it did before.

        The object may be entered again, but not inside itself.
        """
        return Phase(self, cause)

    def spent_ns(self) -> dict[Cause, int]:
        """Cause → nanoseconds since the start, or since `restart`; all causes are there."""
        self.switch(self._now)
        return dict(self._spent)

    def restart(self) -> dict[Cause, int]:
        """Gives what `spent_ns` gives, and counts from zero, for the same cause."""
        spent = self.spent_ns()
        self._spent = dict.fromkeys(CAUSES, 0)
        return spent


class Phase:
    """A block of time; made by `Stopwatch.phase`."""

    __slots__ = ("_cause", "_outer", "_watch")

    def __init__(self, watch: Stopwatch, cause: Cause) -> None:
        self._watch = watch
        self._cause: Cause = cause
        self._outer: Cause = cause

    def __enter__(self) -> None:
        self._outer = self._watch.cause
        self._watch.switch(self._cause)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._watch.switch(self._outer)
