"""The stages as Prefect tasks, one for each kind. They exchange references only.

Prefect persists no result: a task whose stage the store has ends in a state named `Cached`.
Tasks are called directly, in the main thread, where signals and cancellation arrive.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.states import Completed
from prefect.tasks import Task, task

from epochal.tasks.planning.stage import Stage
from epochal.tasks.running.run import current_run
from epochal.tasks.stages.kind import StageKind
from epochal.tasks.stages.registry import KINDS

StageRef = Any
"""A stage's key, or a state that holds it: all that tasks exchange. No mapping: Prefect would take
its names, which are one object wherever they stand, for results of the task before."""


def _task_of(kind: StageKind) -> Task[..., Any]:
    title = kind.title or kind.name

    def stage_task(epoch: int | None, parents: Mapping[str, StageRef]) -> StageRef:
        """The stage's key; inside a state named `Cached` where the store had it.

        parents: the edges that Prefect's UI draws; what they hold is read from the store.
        """
        run = current_run()
        outcome = run.run_stage(run.view.stage(kind.name, epoch))
        key = outcome.stage.known_key
        if not outcome.cached:
            return key
        return Completed(name="Cached", message=f"stage {key[:8]}", data=key)

    stage_task.__qualname__ = stage_task.__name__ = kind.name  # of which Prefect makes its task key
    as_task = task(
        name=kind.name,
        task_run_name=f"{title} · epoch {{epoch}}" if kind.when == "epoch" else title,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    return as_task(stage_task)


_TASKS = {kind.name: _task_of(kind) for kind in KINDS.values()}


def run_stage_task(stage: Stage, done: Mapping[str, StageRef]) -> StageRef:
    """Runs the task of a stage. done: key → what the task of each stage before it gave.

    An average has all planned epochs for parents; those after an early end have no task.
    """
    parents = {
        role: done[parent.known_key]
        for role, parent in stage.parents.items()
        if parent.known_key in done
    }
    return _TASKS[stage.kind](stage.epoch, parents)
