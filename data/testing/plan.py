"""Which operation of a storage fails, and how."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "kill",
    "kill_after",
    "torn",
    "power",
    "lying",
    "zero_length",
    "enospc",
    "eio",
    "timeout",
    "lost_answer",
    "stale_list",
    "flip",
]


Level = Literal["store", "disk"]


KINDS: dict[Level, tuple[Kind, ...]] = {
    "store": (
        "kill",
        "kill_after",
        "torn",
        "enospc",
        "eio",
        "timeout",
        "lost_answer",
        "stale_list",
        "flip",
    ),
    "disk": ("kill", "kill_after", "torn", "power", "lying", "zero_length", "enospc", "eio"),
}
"""Level → the faults that can be planned there."""


READS = frozenset({"read", "fetch"})
KILLED = 137


def end_process() -> None:
    """As SIGKILL does: nothing is flushed, nothing is closed."""
    os._exit(KILLED)


@dataclass
class FaultPlan:
    """What fails, and when.

    kind: `kill` ends the process before the operation, `kill_after` after it; `torn` writes half of
    what was to be written under a temporary name, then ends the process; `power` ends it too, and
    of what this process did only synced bytes and synced names are left; `lying` says that a file
    is synced, and half of it is gone; `zero_length` ends the process as a loss of power does that
    comes when names are on the disk and bytes are not: every name is there, and each file that was
    not synced is empty; `enospc` (writes only), `eio` and `timeout` raise instead of
    doing it; `lost_answer` does it, then raises a timeout; `stale_list` lists what was there at
    the first listing; `flip` reads, and one bit of what is given out is another one, while the
    object stays as it is: of this kind only reads are counted.
    at: the first operation that fails, from 1; 0: none. count: how many fail from there on.
    every: after so many operations as many fail again, and so on; 0: never again.
    level: `store` counts what a store asks of any storage; `disk` counts the system calls below a
    store in a local folder. Raises ValueError for a kind that its level does not have.
    """

    kind: Kind = "kill"
    at: int = 0
    count: int = 1
    every: int = 0
    level: Level = "store"
    die: Callable[[], None] = end_process
    operations: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS[self.level]:
            message = f"{self.kind}: a {self.level} has {', '.join(KINDS[self.level])}"
            raise ValueError(message)

    def next(self, name: str) -> bool:
        """Counts an operation; whether it is one that fails."""
        if self.kind == "flip" and name not in READS:
            return False
        with self._lock:
            self.operations.append(name)
            since = len(self.operations) - self.at
            return self.hit and (since % self.every if self.every else since) < self.count

    @property
    def hit(self) -> bool:
        """Whether the operation `at` was reached."""
        return 0 < self.at <= len(self.operations)


def next_fault(plans: Iterable[FaultPlan], name: str) -> FaultPlan | None:
    """Has each of the plans count an operation: the first by which it fails, or None."""
    failing = [plan for plan in plans if plan.next(name)]
    return failing[0] if failing else None
