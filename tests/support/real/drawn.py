"""A history of the real command, drawn from a seed."""

import random
from dataclasses import replace
from typing import Any

from support.histories.history import Fault, History, Life
from support.real.machine import may_mount, may_rename, may_set_clock
from support.real.nemesis import KINDS, MACHINE, OTHER

MAX_FAULTS = 5
CHECKPOINTS = (
    {"every_updates": 1}, {"every_updates": 1}, {"every_seconds": 1.0}, {"every_seconds": 30.0},
)  # fmt: skip
WHERE = {"server": 9, "process": 5, "instant": 2, "machine": 4}
"""How often each is drawn."""


ENDING = ("kill command", "kill trainer", "kill all", "term", "term and kill")
"""Kinds after which a run is not whole, most often."""
OF_PARTS = frozenset({"create", "part", "complete"})
"""Requests of an upload in parts."""
IN_PARTS_MB = 70
"""From this size on each epoch's end has uploads in parts; in a smaller run a commit may."""


def allowed(kind: str) -> bool:
    """Whether that fault of a machine can be had here."""
    if kind.startswith("clock"):
        return may_set_clock()
    return may_rename() if kind == OTHER else may_mount()


def _can_be(kind: str, config: dict[str, Any]) -> bool:
    """Whether a run of that config has what the fault meets."""
    if kind == "kill worker":
        return config["workers"] > 0
    return config["size_mb"] >= IN_PARTS_MB or kind.partition(" ")[0] not in OF_PARTS


def drawn(seed: int, *, size_mb: int) -> History:
    """1 to 5 faults over 1 to 3 lives, without those that this machine does not allow.

    One life in four has two processes, which share each update.
    """
    draw = random.Random(f"real/{size_mb}/{seed}")
    config = {
        "size_mb": size_mb,
        "workers": draw.choice([0, 2]),
        "checkpoint": draw.choice(CHECKPOINTS),
    }
    lives, left, many = [], MAX_FAULTS, draw.choice([1, 1, 2, 2, 3])
    for number in range(many):
        count = min(left, draw.choice([1, 1, 2, 2, 3]))
        left -= count
        asked = [_fault(draw, config, first=number == 0) for _ in range(count)]
        if number < many - 1 and asked:  # or the run would be whole before its later lives
            asked[0] = replace(asked[0], where="process", kind=draw.choice(ENDING), count=1)
        faults = tuple(fault for fault in asked if fault.where != "machine" or allowed(fault.kind))
        beside = (("second", draw.uniform(0, 0.5)),) if draw.random() < 0.12 else ()
        processes = draw.choice([1, 1, 1, 2])
        lives.append(Life(processes, faults, beside))
    return History(seed, config, tuple(lives))


def _fault(draw: random.Random, config: dict[str, Any], *, first: bool) -> Fault:
    machine = MACHINE if first else (*MACHINE, OTHER)
    where = draw.choices([*WHERE], [*WHERE.values()])[0]
    kinds = machine if where == "machine" else KINDS[where]
    kind = draw.choice([one for one in kinds if _can_be(one, config)])
    many = where == "server" and "kill" not in kind and "stop" not in kind
    count = draw.choice([1, 1, 1, 2, 4]) if many else 1
    return Fault(where, kind, draw.uniform(0, 0.9), count)
