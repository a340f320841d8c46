"""What every stage's body does alike: commits its record, notes the moment, reads a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from epochal.data.stage_store.stages import Artifact, StageRecord
from epochal.tasks.planning.stage import Stage
from epochal.tasks.runs.stage_times import TIMES, now_ms
from epochal.tasks.runs.survey import loaded
from epochal.tasks.session.session import Session

if TYPE_CHECKING:
    from epochal.data.samples.table import SampleTable
    from epochal.tasks.user_code.components import Components
from epochal.tasks.checkpoints.end_of_epoch import load_checkpoint, load_model


def sample_table(session: Session, stage: Stage) -> SampleTable | None:
    """The plan of who is trained on, or None where all are. Raises CorruptObject."""
    from epochal.data.samples.table import read_plan

    if "samples" not in stage.parents:
        return None
    record = session.record_of(stage.parents["samples"])
    with session.stage_store.fetch_artifact(record, "samples") as path:
        return read_plan(path, max_rows=len(session.data["train_data"].sample_ids_N))


def consumed(session: Session, stage: Stage) -> dict[str, str]:
    """`role/artifact` → sha256 of all that the stage reads of its parents."""
    return {
        f"{role}/{name}": artifact.sha256
        for role, parent in stage.parents.items()
        if (names := loaded(stage, role, session.records))
        for name, artifact in session.record_of(parent).artifacts.items()
        if name in names
    }


def commit_stage(
    session: Session, stage: Stage, artifacts: dict[str, Artifact], values: dict[str, Any]
) -> StageRecord:
    """Commits the stage; gives the record that then stands. Raises NotDeterministic."""
    inputs: dict[str, Any] = {
        **stage.inputs,
        "parents": {role: parent.known_key for role, parent in stage.parents.items()},
    }
    return session.stage_store.commit(
        StageRecord(
            stage=stage.kind,
            epoch=stage.epoch,
            key=stage.known_key,
            inputs=inputs,
            environment=session.environment,
            environment_digest=session.environment_digest,
            consumed=consumed(session, stage),
            artifacts=artifacts,
            values=values,
        )
    )


def put_moment(session: Session, stage: Stage) -> None:
    """Notes that the stage was done now."""
    session.stage_store.put_side_file(stage.known_key, TIMES, {"anchors": [[0, now_ms()]]})


def bring_state(session: Session, stage: Stage) -> Components:
    """The components with the checkpoint of `stage` in them; nothing is read if they hold it."""
    from epochal.engine.model.state import fresh_optimizer

    components = session.ready_components()
    if session.live_key == stage.known_key:
        return components
    session.live_key = None
    record = session.record_of(stage)
    if stage.kind == "initialise":
        load_model(session.stage_store, record, components)
        fresh_optimizer(components.state)
    else:
        load_checkpoint(session.stage_store, record, components)
    session.live_key = stage.known_key
    return components
