"""What all stages do alike: load a state, read which samples are trained on, commit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from epochal.data.hashing import digest
from epochal.data.stage_store.records import Artifact, StageRecord
from epochal.tasks.checkpoints.end_of_epoch import load_checkpoint, load_model
from epochal.tasks.goodput.totals import GOODPUT
from epochal.tasks.planning.stage import Stage
from epochal.tasks.session.session import Session
from epochal.tasks.session.stage_times import TIMES, now_ms

if TYPE_CHECKING:
    from epochal.data.samples.table import SampleTable
    from epochal.engine.model.state import TrainingState


def sample_table(session: Session, stage: Stage) -> SampleTable | None:
    """The table that says which samples are trained on; None: all. Raises CorruptObject."""
    from epochal.data.samples.table import read_plan

    if "samples" not in stage.parents:
        return None
    record = session.run.record_of(stage.parents["samples"])
    with session.stage_store.fetch_artifact(record, "samples") as path:
        return read_plan(path, max_rows=len(session.data["train_data"].sample_ids_N))


def commit_stage(
    session: Session,
    stage: Stage,
    artifacts: dict[str, Artifact],
    values: dict[str, Any],
    *,
    consumed: Mapping[str, str],
) -> StageRecord:
    """Commits the stage; gives the record that the store holds then. Raises NotDeterministic.

    Beside it, and before it, what the stage has cost. consumed: `role/artifact` → sha256 of all
    that the stage read of its parents.
    """
    session.goodput.watch.switch("commit")
    inputs: dict[str, Any] = {
        **stage.inputs,
        "parents": {role: parent.known_key for role, parent in stage.parents.items()},
    }
    environment = session.environment_of(stage)
    session.stage_store.put_side_file(stage.known_key, GOODPUT, session.goodput.ended())
    return session.stage_store.commit(
        StageRecord(
            stage=stage.kind,
            epoch=stage.epoch,
            key=stage.known_key,
            inputs=inputs,
            environment=environment,
            environment_digest=digest("environment", environment),
            consumed=dict(consumed),
            artifacts=artifacts,
            values=values,
        )
    )


def put_moment(session: Session, stage: Stage) -> None:
    """Writes down the present time as that of the stage."""
    session.stage_store.put_side_file(stage.known_key, TIMES, {"anchors": [[0, now_ms()]]})


def bring_state(session: Session, stage: Stage) -> TrainingState:
    """The live state with the checkpoint of `stage`; reads nothing if it holds that already."""
    from epochal.engine.model.state import fresh_optimizer

    components = session.ready_components()
    if session.live_key == stage.known_key:
        return components.state
    session.live_key = None
    record = session.run.record_of(stage)
    if "optimizer" in record.artifacts:
        load_checkpoint(session.stage_store, record, components)
    else:  # the initial weights
        if components.state.companions:  # what they begin with is stored nowhere, but made again
            session.components = None
            components = session.ready_components()
        load_model(session.stage_store, record, components)
        fresh_optimizer(components.state)
    session.live_key = stage.known_key
    return components.state


def number(value: float) -> float | None:
    """`value` as a record holds it: None if it is not finite."""
    return float(value) if math.isfinite(value) else None
