"""The stages after the last epoch: the mean of some checkpoints, and its metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from epochal.data.errors import CorruptObject, TrainingFailed
from epochal.data.stage_store.stages import StageRecord
from epochal.data.types import seed_64
from epochal.tasks.checkpoints.end_of_epoch import load_model, put_tensors
from epochal.tasks.planning.averaging import (
    averaged_artifact,
    chosen_epochs,
    is_decided,
    last_of_run,
)
from epochal.tasks.planning.stage import Stage
from epochal.tasks.session.session import Session
from epochal.tasks.stages.commit import commit_stage, put_moment
from epochal.tasks.stages.validate import commit_measured, measure

if TYPE_CHECKING:
    from torch import Tensor


def average(session: Session, stage: Stage) -> StageRecord:
    """The mean of the chosen epochs' weights, as a model that plain torch loads."""
    from epochal.engine.checkpoint.averaging import averaged

    assert session.config.averaging is not None
    assert is_decided(stage, session.records)
    epochs, asked = chosen_epochs(stage, session.records), session.config.averaging
    if not epochs:
        raise TrainingFailed(
            f"averaging: {asked.what}, but {session.config.metrics.best_metric} was not finite in "
            "any epoch; name another metric as `metrics.best`, or give `averaging: {last: …}`"
        )
    if len(epochs) < asked.count:
        session.reporter.notice(
            f"averaging: {asked.what}, and the run has {len(epochs)} such epochs: these are taken"
        )
    tensors = averaged(_checkpoints(session, stage, epochs))
    with session.store.scratch() as scratch:
        model = put_tensors(session.stage_store, stage.known_key, "model", tensors, scratch)
    put_moment(session, stage)
    ended_with = session.record_of(last_of_run(stage, session.records))
    return commit_stage(
        session,
        stage,
        {"model": model},
        {"epochs": list(epochs), "updates_done": ended_with.values["updates_done"]},
    )


def _checkpoints(
    session: Session, stage: Stage, epochs: tuple[int, ...]
) -> Iterator[dict[str, Tensor]]:
    from epochal.engine.checkpoint.serialize import load_tensors

    name = averaged_artifact(stage)
    for epoch in epochs:
        session.interruption.obey()
        record = session.record_of(stage.parents[f"train.{epoch}"])
        try:
            with session.stage_store.fetch_artifact(record, name) as path:
                tensors = load_tensors(path, device="cpu")
        except CorruptObject as error:
            raise CorruptObject(
                f"averaging: the weights of epoch {epoch} are needed, and they were removed or "
                f"damaged ({error}); the same command computes that epoch again, from the last "
                "checkpoint before it"
            ) from error
        yield tensors


def validate_average(session: Session, stage: Stage) -> StageRecord:
    """The metrics of the average over the validation data."""
    parent = session.record_of(stage.parents["parent"])
    session.live_key = None  # from here on the live weights are no epoch's
    load_model(session.stage_store, parent, session.ready_components())
    found = measure(
        session,
        seed=seed_64(session.config.seed, "validate_average"),
        on_batch=session.interruption.obey,
        with_ema=False,
    )
    return commit_measured(session, stage, found, measured=parent)
