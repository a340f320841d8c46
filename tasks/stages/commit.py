"""What every stage's body does alike: commits its record, notes the moment, reads a table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from epochal.data.stage_store.stages import Artifact, StageRecord
from epochal.tasks.planning.keys import Stage
from epochal.tasks.runs.survey import loaded
from epochal.tasks.session.session import Session
from epochal.tasks.session.watch import now_ms

if TYPE_CHECKING:
    from epochal.data.samples.table import SampleTable

TIMES = "times.json"


def sample_table(session: Session, stage: Stage) -> SampleTable | None:
    """The plan of who is trained on, or None where all are. Raises Damaged."""
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


def number(value: float) -> float | None:
    """`value` as a record holds it: None where it is not finite."""
    return float(value) if math.isfinite(value) else None
