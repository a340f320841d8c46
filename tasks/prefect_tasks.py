"""The four stages as Prefect tasks. They exchange references only, and ask the store first.

Prefect persists no result: a task whose stage the store has ends in a state named `Cached`.
Tasks are called directly, in the main thread, where signals and cancellation arrive.
"""

from __future__ import annotations

from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed
from prefect.tasks import task

from epochal.tasks.runner import run_stage
from epochal.tasks.session import current_session

StageRef = dict[str, Any]
"""A stage by name: `{"stage", "epoch", "key"}`. All that tasks tell each other."""


def _run(kind: str, epoch: int | None) -> State[StageRef] | StageRef:
    outcome = run_stage(current_session(), kind, epoch)
    reference = {"stage": kind, "epoch": epoch, "key": outcome.stage.known_key}
    if not outcome.cached:
        return reference
    return Completed(name="Cached", message=f"stage {outcome.stage.known_key[:8]}", data=reference)


@task(name="initialise", task_run_name="initialise", cache_policy=NO_CACHE, persist_result=False)
def initialise() -> Any:
    """The model with its initial weights."""
    return _run("initialise", None)


@task(
    name="train", task_run_name="train · epoch {epoch}", cache_policy=NO_CACHE, persist_result=False
)
def train_epoch(epoch: int, checkpoint: StageRef, table: StageRef | None) -> Any:
    """One epoch of updates from `checkpoint`, on the samples that `table` keeps."""
    return _run("train", epoch)


@task(
    name="validate",
    task_run_name="validate · epoch {epoch}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def validate_epoch(epoch: int, checkpoint: StageRef) -> Any:
    """The metrics of `checkpoint` over the validation data."""
    return _run("validate", epoch)


@task(
    name="mine", task_run_name="mine · epoch {epoch}", cache_policy=NO_CACHE, persist_result=False
)
def mine_epoch(epoch: int, checkpoint: StageRef, table: StageRef | None) -> Any:
    """The sample table after `epoch`: who is kept in the next one."""
    return _run("mine", epoch)
