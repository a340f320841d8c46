"""Histories from a seed: a config of all that may be combined, and what goes wrong in its lives.

Twenty seeds in a row share their config, and with it the unbroken end that they are compared with:
the config follows from `seed // 20`, the faults from `seed`. Each config is valid: what the product
would refuse is not drawn.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from support.histories.history import Fault, History, Life
from support.runs.proof_policies import POLICIES

from epochal.data.testing.plan import KINDS

SEEDS_OF_A_CONFIG = 20
MAX_FAULTS = 5
MAX_LIVES = 4

FAULTS: dict[str, tuple[str, ...]] = {
    "store": KINDS["store"],
    "disk": KINDS["disk"],
    "process": ("kill", "term"),
}
"""Place → the kinds of faults that are drawn there."""

LASTING = 1000
"""A count of failures that outlasts a life: the storage stays as it is until the next one."""

UNBEARABLE = frozenset({"enospc", "eio", "timeout", "hang", "flip", "short_read", "unavailable"})
"""Kinds that end a life where they last."""

OF_A_MACHINE = frozenset({"power", "zero_length"})
"""Kinds that end all that runs on it, so that no other process is at work beside such a life."""

BESIDE = ("second", "gc", "verify")

SAMPLING: dict[str, dict[str, Any]] = {"none": {"policy": "none"}, **POLICIES}
SCHEDULES: dict[str, dict[str, Any]] = {
    "constant": {"kind": "constant"},
    "multi_step": {"kind": "multi_step", "milestones": [1], "factor": 0.5},
    "step": {"kind": "step", "size": 0.5, "factor": 0.7},
    "cosine": {"kind": "cosine", "warmup": 0.5},
    "polynomial": {"kind": "polynomial", "power": 2},
    "warmup_stable_decay": {"kind": "warmup_stable_decay", "warmup": 0.5, "decay": 1},
    "cyclic": {"kind": "cyclic", "low": 0.1, "period": 0.75},
    "one_cycle": {"kind": "one_cycle"},
    "plateau": {"kind": "plateau", "patience": 0, "threshold": 0.5, "factor": 0.5},
}
BATCHES: dict[str, dict[str, Any]] = {
    "fixed": {},
    "class_balanced": {"class_balanced": True},
    "multi_scale": {"kind": "multi_scale", "sizes": [6, 8], "divisible_by": 2},
    "variable_batch": {
        "kind": "variable_batch",
        "size": 6,
        "sizes": [6, 8, 10],
        "divisible_by": 2,
    },
}
MIXING: dict[str, dict[str, Any] | None] = {
    "none": None,
    "mixup": {"mixup": 0.2, "probability": 0.7},
    "cutmix": {"cutmix": 1.0},
    "both, smoothed": {"mixup": 0.2, "cutmix": 0.5, "probability": 0.7, "label_smoothing": 0.1},
}
AVERAGING: dict[str, dict[str, Any] | None] = {
    "none": None,
    "best": {"best": 2},
    "last": {"last": 2},
}
EMAS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "average": {"decay": 0.9},
    "average, copied": {"decay": 0.9, "copy_at_epoch": 1},
}


def drawn(seed: int, *, faults: dict[str, tuple[str, ...]] = FAULTS) -> History:
    """The history of that seed. faults: place → kinds, of those that can be made happen."""
    config = drawn_config(seed // SEEDS_OF_A_CONFIG)
    return History(seed, config, _lives(random.Random(f"lives/{seed}"), config, faults))


def drawn_config(number: int) -> dict[str, Any]:
    """The config of that number: the fields that are not as in every history's project."""
    draw = random.Random(f"config/{number}")
    config: dict[str, Any] = {
        "seed": draw.randrange(1000),
        "epochs": draw.choice((2, 2, 3, 3, 4)),
        "loader": {"batch_size": 4, "workers": draw.choice((0, 0, 0, 2))},
        "gradients": {
            "accumulate": draw.choice((1, 2, 3, 4)),
            "shards": draw.choice((1, 1, 2, 4)),
            "clip_norm": draw.choice((None, 1.0)),
        },
        "precision": {"dtype": draw.choice(("float32", "float32", "bfloat16", "float16"))},
        "metrics": {"best": draw.choice(("loss", "accuracy"))},
        "checkpoint": draw.choice(({"keep_last": 2, "keep_best": 1}, {})),
    }
    chosen = {
        "sampling": {"final_full": 0, "noise_from": 1, **_one(draw, SAMPLING)},
        "schedule": _one(draw, SCHEDULES),
        "batches": _one(draw, BATCHES),
        "ema": _one(draw, EMAS),
        "mixing": _one(draw, MIXING),
        "averaging": _one(draw, AVERAGING),
        "validation": draw.choice((None, {"every_updates": 2})),
        "early_stopping": draw.choice((None, None, {"patience": 1, "start": 1})),
    }
    if chosen["sampling"]["policy"] == "none":
        chosen["sampling"] = {"policy": "none"}
    config |= {name: value for name, value in chosen.items() if value is not None}
    return config


def _one(draw: random.Random, choices: dict[str, Any]) -> Any:
    return draw.choice(list(choices.values()))


def _lives(
    draw: random.Random, config: dict[str, Any], faults: dict[str, tuple[str, ...]]
) -> tuple[Life, ...]:
    """One to four of them, with one to five faults in all: each but the first begins a recovery.

    So each but the last has one that ends it, or a run would be whole before its later lives.
    """
    total = draw.randint(1, MAX_FAULTS)
    count = draw.randint(1, min(MAX_LIVES, total + 1))
    by_life: list[list[Fault]] = [[] for _ in range(count)]
    for number in range(total):
        must_end = number < count - 1
        into = by_life[number if must_end else draw.randrange(count)]
        fault = _fault(draw, faults)
        while (not ends(fault)) if must_end else (ends(fault) and any(map(ends, into))):
            fault = _fault(draw, faults)
        into.append(fault)
    lives = []
    for given in by_life:
        beside = _beside(draw)
        processes = draw.choice(_processes(config))
        lives.append(
            Life(
                processes,
                tuple(_fits(one, processes, beside) for one in _before_end(given)),
                beside,
            )
        )
    return tuple(lives)


def ends(fault: Fault) -> bool:
    """Whether a life that reaches it is over then: by its kind, or by what does not heal."""
    if fault.count >= LASTING and fault.kind in UNBEARABLE:
        return True
    return fault.kind.startswith("kill") or fault.kind in {"torn", "term", *OF_A_MACHINE}


def _before_end(faults: list[Fault]) -> list[Fault]:
    """The faults of a life, those before its end that are to be reached."""
    end = next((fault.at for fault in faults if ends(fault)), 1.0)
    return [one if ends(one) else replace(one, at=round(one.at * end, 4)) for one in faults]


def _processes(config: dict[str, Any]) -> tuple[int, ...]:
    """How many may share an update: at most as many as there are shards."""
    return {1: (1,), 2: (1, 1, 1, 2), 4: (1, 1, 1, 2, 3)}[config["gradients"]["shards"]]


def _beside(draw: random.Random) -> tuple[tuple[str, float], ...]:
    count = draw.choice((0, 0, 0, 0, 0, 1, 1, 2))
    return tuple((draw.choice(BESIDE), round(draw.random(), 3)) for _ in range(count))


def _fault(draw: random.Random, faults: dict[str, tuple[str, ...]]) -> Fault:
    where = draw.choice(sorted(faults))
    fault = Fault(where, draw.choice(faults[where]), 0.0)
    # A recovery is shorter than an unbroken life: early places are reached more often.
    at = min(round(draw.random() ** draw.choice((1, 1, 2, 3)), 4), 0.9999)
    return replace(fault, at=at, count=1 if ends(fault) else draw.choice((1, 1, 2, 3, LASTING)))


def _fits(fault: Fault, processes: int, beside: tuple[tuple[str, float], ...]) -> Fault:
    """The fault as it can happen in that life.

    Power is lost by a whole machine, with all that runs on it; a signal to a life of several
    processes goes to that of the flow, at a moment that no count of micro-steps tells.
    """
    if fault.kind in OF_A_MACHINE and beside:
        return Fault("disk", "kill", fault.at)
    if fault.where == "process" and processes > 1:
        return Fault("process", "kill", fault.at, rank=int(fault.at * 1000) % processes)
    return fault
