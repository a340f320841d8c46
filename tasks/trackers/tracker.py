"""What a tracker beside MLflow is: opened for a run, given points, closed.

An own one is any class with these three methods, named in the config by its target:

    tracking: {also: [tensorboard, {target: "my_tracker:ToFile", args: {path: ./points.jsonl}}]}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from epochal.tasks.tracking.points import Row


@dataclass(frozen=True)
class RunInfo:
    """The run that a tracker is opened for.

    name: of the config. reference: `name@generation`, which no other run of the store has.
    folder: of the config. params: what is set in it, flat, by the names in the YAML.
    """

    name: str
    reference: str
    folder: str
    params: Mapping[str, str]


class Tracker(Protocol):
    """Takes the points of a run's curves.

    It lives in a process of its own, apart from the training and from Epochal: it may start
    threads or servers, print, hang or raise. Each point comes at least once: after a kill some come
    again, with the same key, step, time and value.
    """

    def open(self, run: RunInfo) -> None:
        """Called once, before any point. The run may have been opened by a process before."""

    def log(self, points: Sequence[Row]) -> None:
        """Takes points; when it returns they are kept. key, step (updates, from 1), time, value."""

    def close(self, status: str) -> None:
        """The command ends; status: `FINISHED`, `FAILED` or `KILLED`. Not called after a kill."""
