"""From a history that fails to the smallest that still does: fewest lives, faults, and settings.

Delta debugging by single steps: each takes something away, and stays where the rest still fails;
until no step stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from support.histories.history import Fault, History, Life

PLAIN: dict[str, Any] = {
    "epochs": 2,
    "loader": {"batch_size": 4, "workers": 0},
    "gradients": {"accumulate": 1, "shards": 1, "clip_norm": None},
    "precision": {"dtype": "float32"},
    "metrics": {"best": "loss"},
    "checkpoint": {},
    "sampling": {"policy": "none"},
    "schedule": {"kind": "constant"},
    "batches": {},
}
"""The simplest value of each field that every config has; the others are left out."""


def shrunk(
    history: History, fails: Callable[[History], bool], *, tries: int = 200
) -> tuple[History, int]:
    """The smallest that was found, and how many were tried. tries: the most of them.

    `history` itself is known to fail. It keeps its seed: how lives interleave follows from it.
    """
    used = 0
    while True:
        for smaller in _smaller(history):
            if used == tries:
                return history, used
            used += 1
            if fails(smaller):
                history = smaller
                break
        else:
            return history, used


def _smaller(history: History) -> Iterator[History]:
    """Histories with less in them, the largest steps first."""
    lives = history.lives
    for number in range(len(lives)):
        yield replace(history, lives=lives[:number] + lives[number + 1 :])
    for number, life in enumerate(lives):
        for other in _smaller_lives(life):
            yield replace(history, lives=(*lives[:number], other, *lives[number + 1 :]))
    for config in _plainer(history):
        yield replace(history, config=config)


def _smaller_lives(life: Life) -> Iterator[Life]:
    for number in range(len(life.faults)):
        yield replace(life, faults=life.faults[:number] + life.faults[number + 1 :])
    for number in range(len(life.beside)):
        yield replace(life, beside=life.beside[:number] + life.beside[number + 1 :])
    if life.processes > 1:
        yield replace(life, processes=1, faults=tuple(replace(one, rank=0) for one in life.faults))
    for number, fault in enumerate(life.faults):
        if fault.count > 1:
            once: Fault = replace(fault, count=1)
            yield replace(life, faults=(*life.faults[:number], once, *life.faults[number + 1 :]))


def _plainer(history: History) -> Iterator[dict[str, Any]]:
    config = dict(history.config)
    shared = any(life.processes > 1 for life in history.lives)
    for field in sorted(config):
        if field == "seed":
            continue
        rest = {name: value for name, value in config.items() if name != field}
        if field not in PLAIN:
            yield rest
        elif field == "epochs" and config[field] > PLAIN[field]:
            yield {**rest, field: PLAIN[field]}
        elif field == "gradients":
            for name, value in PLAIN[field].items():
                if config[field][name] != value and not (shared and name == "shards"):
                    yield {**rest, field: {**config[field], name: value}}
        elif config[field] != PLAIN[field] and field != "epochs":
            yield {**rest, field: PLAIN[field]}
