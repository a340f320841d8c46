"""A history of the real command, drawn from a seed."""

import random

from support.histories.history import Fault, History, Life
from support.real.machine import may_mount, may_rename, may_set_clock
from support.real.nemesis import KINDS, MACHINE, OTHER

MAX_FAULTS = 5
CHECKPOINTS = (
    {"every_updates": 1}, {"every_updates": 1}, {"every_seconds": 1.0}, {"every_seconds": 30.0},
)  # fmt: skip
WHERE = {"server": 9, "process": 5, "instant": 2, "machine": 4}
"""How often each is drawn."""


def allowed(kind: str) -> bool:
    """Whether that fault of a machine can be had here."""
    if kind.startswith("clock"):
        return may_set_clock()
    return may_rename() if kind == OTHER else may_mount()


def drawn(seed: int, *, size_mb: int) -> History:
    """1 to 5 faults over 1 to 3 lives, without those that this machine does not allow."""
    draw = random.Random(f"real/{size_mb}/{seed}")
    config = {
        "size_mb": size_mb,
        "workers": draw.choice([0, 2]),
        "checkpoint": draw.choice(CHECKPOINTS),
    }
    lives, left = [], MAX_FAULTS
    for number in range(draw.choice([1, 1, 2, 2, 3])):
        count = min(left, draw.choice([1, 1, 2, 2, 3]))
        left -= count
        asked = [_fault(draw, first=number == 0) for _ in range(count)]
        faults = tuple(fault for fault in asked if fault.where != "machine" or allowed(fault.kind))
        beside = (("second", draw.uniform(0, 0.5)),) if draw.random() < 0.12 else ()
        lives.append(Life(faults=faults, beside=beside))
    return History(seed, config, tuple(lives))


def _fault(draw: random.Random, *, first: bool) -> Fault:
    machine = MACHINE if first else (*MACHINE, OTHER)
    where = draw.choices([*WHERE], [*WHERE.values()])[0]
    kind = draw.choice(machine if where == "machine" else KINDS[where])
    many = where == "server" and "kill" not in kind and "stop" not in kind
    count = draw.choice([1, 1, 1, 2, 4]) if many else 1
    return Fault(where, kind, draw.uniform(0, 0.9), count)
