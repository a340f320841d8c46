"""Which of several processes holds the others up: by the time that each has its own work for."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from epochal.tasks.computing.work import Work

if TYPE_CHECKING:
    from epochal.engine.loop.phases import Phase

FACTOR, LEAST_S = 1.5, 5.0
"""Times the others' median, and seconds of an epoch, from which on a process is named."""
_OWN = ("data", "forward_backward")  # phases in which nobody else is waited for


@dataclass(frozen=True)
class RankTime:
    """What a process of an epoch has spent on its own micro-batches, until others were waited for.

    data_s: of that for the next batch. samples: that it trained on.
    """

    host: str
    seconds: float
    data_s: float
    samples: int


@dataclass
class RankClock:
    """Takes the words of `train_epoch` for one process, and hands them on."""

    switch: Callable[[Phase], None]
    seconds: dict[str, float] = field(
        default_factory=lambda: {"data": 0.0, "forward_backward": 0.0}
    )
    _phase: str | None = None
    _since_s: float = 0.0

    def __call__(self, phase: Phase) -> None:
        """The loop turns to that."""
        now_s = time.perf_counter()
        if self._phase in self.seconds:
            self.seconds[self._phase] += now_s - self._since_s
        self._phase, self._since_s = phase, now_s
        self.switch(phase)

    def tell(self, work: Work, *, samples: int) -> None:
        """Says which process of the group holds the others up, if one does; all of it call this."""
        if work.group is None:
            return
        seconds, data_s = sum(self.seconds.values()), self.seconds["data"]
        document = [socket.gethostname(), seconds, data_s, samples]
        told = [RankTime(*one) for one, _ in work.group.exchange.gather(document)]
        text = straggler(told)
        if text is not None:
            work.link.notice(text)


def straggler(told: Sequence[RankTime]) -> str | None:
    """A sentence on the slowest of the processes, by rank; None where it is not much slower."""
    rates = [one.seconds / one.samples if one.samples else 0.0 for one in told]
    slowest = max(range(len(rates)), key=rates.__getitem__)
    others = [rate for rank, rate in enumerate(rates) if rank != slowest and rate]
    one = told[slowest]
    if not others or one.seconds < LEAST_S or rates[slowest] < FACTOR * median(others):
        return None
    return (
        f"rank {slowest} on {one.host} takes {rates[slowest] / median(others):.1f} times the "
        f"others' time for a sample, {one.data_s / one.seconds:.0%} of it waiting for data: it "
        "holds them up"
    )
