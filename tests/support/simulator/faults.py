"""Which operations of a life fail: what a history plans, met as the operations come."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from support.histories.history import Fault

READS = frozenset({"read", "fetch"})
WRITES = frozenset({"put_new", "scratch", "move", "write", "copy", "link", "make_folder"})
MEANT_FOR: Mapping[str, frozenset[str]] = {
    "flip": READS,
    "short_read": READS,
    "stale_list": frozenset({"listing"}),
    "torn": frozenset({"put_new", "write", "copy"}),
    "lying": frozenset({"sync"}),
    "enospc": WRITES,
    "late_answer": frozenset({"put_new", "delete"}),
    "doubled": frozenset({"put_new", "delete"}),
}
"""Kind → the operations that it means something for; a kind that is not here: all."""
KINDS: Mapping[str, tuple[str, ...]] = {
    "store": (
        "kill",
        "kill_after",
        "torn",
        "enospc",
        "eio",
        "timeout",
        "lost_answer",
        "late_answer",
        "doubled",
        "stale_list",
        "short_read",
        "flip",
        "hang",
    ),
    "disk": ("kill", "kill_after", "torn", "power", "zero_length", "lying", "enospc", "eio"),
    "channel": ("delay", "cut", "kill"),
    "tracker": ("unavailable", "locked", "duplicate", "lost_answer", "kill"),
    "orchestrator": ("unavailable", "lost_answer", "kill"),
    "process": ("kill", "stop", "term", "clock_back"),
}
"""Where → the kinds of faults that a simulated life can meet there."""


@dataclass
class _Planned:
    fault: Fault
    first: int
    left: int
    reached: bool = False


class Faults:
    """Those of one life. usual: where, or (`process`, rank) → operations of an unbroken life."""

    def __init__(self, faults: tuple[Fault, ...], usual: Mapping[str, int]) -> None:
        for one in faults:
            if one.kind not in KINDS.get(one.where, ()):
                message = f"{one.where} has no {one.kind}: expected one of {KINDS.get(one.where)}"
                raise ValueError(message)
        self._planned = [
            _Planned(one, one.operation(usual.get(one.where, 0)), one.count) for one in faults
        ]
        self.counted: Counter[str] = Counter()
        self._of_rank: Counter[int] = Counter()

    def strike(self, where: str, name: str, *, rank: int | None = None) -> str | None:
        """Counts an operation; the kind of the fault that meets it, or None.

        rank: of those that each rank counts for itself, whose it is.
        """
        if rank is None:
            self.counted[where] += 1
            number = self.counted[where]
        else:
            self._of_rank[rank] += 1
            number = self._of_rank[rank]
            self.counted[where] = max(self.counted[where], number)
        for one in self._planned:
            if (
                one.fault.where == where
                and one.left
                and number >= one.first
                and (rank is None or one.fault.rank == rank)
                and name in MEANT_FOR.get(one.fault.kind, {name})
            ):
                one.left -= 1
                one.reached = True
                return one.fault.kind
        return None

    @property
    def reached(self) -> tuple[bool, ...]:
        """Of each planned fault, whether an operation met it."""
        return tuple(one.reached for one in self._planned)

    def met(self, where: set[str]) -> bool:
        """Whether one of them, at one of these places, was reached."""
        return any(one.reached and one.fault.where in where for one in self._planned)
