"""The stages as Prefect tasks. They exchange references only, and ask the store first.

Prefect persists no result: a task whose stage the store has ends in a state named `Cached`.
Tasks are called directly, in the main thread, where signals and cancellation arrive.
"""

from __future__ import annotations

from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.states import Completed
from prefect.tasks import task

from epochal.tasks.running.runner import run_stage
from epochal.tasks.session.session import current_session

StageRef = dict[str, Any]
"""A stage by name: `{"stage", "epoch", "key"}`. All that tasks tell each other."""


def _run(kind: str, epoch: int | None) -> Any:
    """The stage's reference; inside a state where the store had it, which Prefect unpacks."""
    outcome = run_stage(current_session(), kind, epoch)
    reference = {"stage": kind, "epoch": epoch, "key": outcome.stage.known_key}
    if not outcome.cached:
        return reference
    return Completed(name="Cached", message=f"stage {outcome.stage.known_key[:8]}", data=reference)


@task(name="initialise", task_run_name="initialise", cache_policy=NO_CACHE, persist_result=False)
def initialise() -> StageRef:
    """The model with its initial weights."""
    reference: StageRef = _run("initialise", None)
    return reference


@task(
    name="train", task_run_name="train · epoch {epoch}", cache_policy=NO_CACHE, persist_result=False
)
def train_epoch(epoch: int, checkpoint: StageRef, table: StageRef | None) -> StageRef:
    """One epoch of updates from `checkpoint`, on the samples that `table` keeps."""
    reference: StageRef = _run("train", epoch)
    return reference


@task(
    name="validate",
    task_run_name="validate · epoch {epoch}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def validate_epoch(epoch: int, checkpoint: StageRef) -> StageRef:
    """The metrics of `checkpoint` over the validation data."""
    reference: StageRef = _run("validate", epoch)
    return reference


@task(
    name="score",
    task_run_name="score · epoch {epoch}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def score_epoch(epoch: int, checkpoint: StageRef) -> StageRef:
    """What `checkpoint` says of each sample, in a pass of its own."""
    reference: StageRef = _run("score", epoch)
    return reference


@task(
    name="mine", task_run_name="mine · epoch {epoch}", cache_policy=NO_CACHE, persist_result=False
)
def mine_epoch(
    epoch: int, checkpoint: StageRef, table: StageRef | None, scores: StageRef | None
) -> StageRef:
    """The sample table after `epoch`: who is kept in the next one."""
    reference: StageRef = _run("mine", epoch)
    return reference


@task(name="average", task_run_name="average", cache_policy=NO_CACHE, persist_result=False)
def average(checkpoint: StageRef) -> StageRef:
    """The mean of some epochs' weights, once the last one is done."""
    reference: StageRef = _run("average", None)
    return reference


@task(
    name="validate_average",
    task_run_name="validate · average",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def validate_average(checkpoint: StageRef) -> StageRef:
    """The metrics of the mean over the validation data."""
    reference: StageRef = _run("validate_average", None)
    return reference
