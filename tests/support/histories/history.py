"""What a history is: a config, and lives with the faults that meet them; and how one ended.

Plain data: what is drawn from a seed, shrunk, printed and run, by whatever runs it: the simulator,
forked processes, or the real command.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    where: what its place is counted by: `store` (operations of a store), `disk` (system calls below
    one), `channel` (messages between the flow's process and a trainer), `tracker`, `orchestrator`
    (requests to MLflow and to Prefect), `process` (micro-steps of a rank); of the real command also
    `server` (requests of a kind to the S3 server), `machine` (micro-steps: its clock, its disks, or
    that it is another one) and `instant` (seconds, for a process). kind: what goes wrong, one that
    `where` has. at: of the n operations that an unbroken life has there, the one at this share of
    the way, in [0, 1); of a later life, of what is left of the way. count: so many fail. rank:
    whose, where there are several.
    """

    where: str
    kind: str
    at: float
    count: int = 1
    rank: int = 0

    def operation(self, operations: int) -> int:
        """The number of the first operation that fails, from 1, of so many."""
        return 1 + int(self.at * operations)


@dataclass(frozen=True)
class Life:
    """One try at the run. processes: that share each update.

    beside: what runs at the same time: (`second` | `gc` | `verify`, the share of the way at which
    it begins). `second` is another command of the same config, on the same store.
    """

    processes: int = 1
    faults: tuple[Fault, ...] = ()
    beside: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class History:
    """seed: from which all of it is drawn. config: fields of the run's config, plain JSON.

    After its lives come others without any fault, as many as liveness allows.
    """

    seed: int
    config: Mapping[str, Any]
    lives: tuple[Life, ...]

    @property
    def faults(self) -> list[tuple[int, Fault]]:
        """(number of its life, fault) of all."""
        return [(number, one) for number, life in enumerate(self.lives) for one in life.faults]

    def lied(self, lives: int) -> bool:
        """Whether in the first of so many a disk may lose what it has confirmed.

        Only after that may anything be damaged, and a life that nothing meets end early.
        """
        return any(one.kind == "lying" for life in self.lives[:lives] for one in life.faults)

    def dump(self) -> str:
        """As JSON on one line."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def load(cls, text: str) -> History:
        """What `dump` gave."""
        body = json.loads(text)
        lives = tuple(
            Life(
                one["processes"],
                tuple(Fault(**fault) for fault in one["faults"]),
                tuple((what, at) for what, at in one["beside"]),
            )
            for one in body["lives"]
        )
        return cls(body["seed"], body["config"], lives)


LEAST_LEFT = 0.1
"""Of an unbroken life's operations each does at least this share: it looks at what is there."""


@dataclass
class WayLeft:
    """What is left of the way of a run: the faults of a later life are placed on that.

    usual: place → operations of an unbroken life there.
    """

    usual: Mapping[str, int]
    _shares: dict[str, float] = field(default_factory=dict)

    def share(self, where: str) -> float:
        """In (0, 1]."""
        return self._shares.get(where, 1.0)

    def operations(self, where: str) -> int:
        """So many of an unbroken life's are left there; 0 where it has none."""
        return int(self.share(where) * self.usual.get(where, 0))

    def take_off(self, counts: Mapping[str, int]) -> None:
        """What a life has done, place → operations."""
        for where, usual in self.usual.items():
            if usual:
                left = self.share(where) - counts.get(where, 0) / usual
                self._shares[where] = max(left, LEAST_LEFT)


MORE_LIVES = 2
"""After the last fault a run ends within so many lives: one may meet what the fault has left."""


@dataclass(frozen=True)
class Ending:
    """How a history ended.

    differs: what is not as an unbroken run has it, in words; none: all the same bytes, each point
    once, nothing needed deleted. whole: whether the run came to its end within `MORE_LIVES`.
    reached: of `History.faults`, whether each was. broken: the traceback of what no user may see.
    lives: how many there were. trace: the digest of all that happened, in order: equal at each
    replay.
    """

    differs: tuple[str, ...] = ()
    whole: bool = True
    reached: tuple[bool, ...] = ()
    broken: str | None = None
    lives: int = 1
    trace: str = ""
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def right(self) -> bool:
        """Whether it ended as it must."""
        return self.whole and not self.differs and self.broken is None
