"""What all stages do alike: have something computed, load a state, put what came of it, commit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochal.data.documents import dump_document
from epochal.data.hashing import digest
from epochal.data.stage_store.records import Artifact, StageRecord
from epochal.data.store.hashed_files import BLOCK_BYTES, write_hashed
from epochal.tasks.checkpoints.commit_writer import CommitWriter
from epochal.tasks.checkpoints.end_of_epoch import load_checkpoint, load_model
from epochal.tasks.computing.stage_times import TIMES, now_ms
from epochal.tasks.computing.work import Order, ParentArtifacts, Work
from epochal.tasks.goodput.totals import GOODPUT
from epochal.tasks.planning.stage import Stage
from epochal.tasks.session.session import Session
from epochal.tasks.trainer.answers import ArtifactAnswers
from epochal.tasks.trainer.trainer import Received

if TYPE_CHECKING:
    from epochal.data.samples.table import SampleTable
    from epochal.engine.model.state import TrainingState


def sample_table(work: Work, order: Order) -> SampleTable | None:
    """The table that says which samples are trained on; None: all. Raises CorruptObject."""
    from epochal.data.samples.table import read_plan

    if "samples" not in order.parents:
        return None
    artifacts = ParentArtifacts(work.link, order)
    with artifacts.fetch_artifact(order.parents["samples"], "samples") as path:
        return read_plan(path, max_rows=len(work.data["train_data"].sample_ids_N))


@contextmanager
def computed(
    session: Session,
    stage: Stage,
    *roles: str,
    given: Mapping[str, Any] | None = None,
    answers: Mapping[str, Callable[..., Any]] | None = None,
    writer: CommitWriter | None = None,
) -> Iterator[Received]:
    """What the trainer has made of a stage. roles: of the parents that it loads.

    given, answers: what else it is told, and what it may ask for. writer: of commits inside it.
    """
    parents = {role: session.run.record_of(stage.parents[role]) for role in roles}
    held = stage.parents.get("parent")
    live = held is not None and session.live_key == held.known_key
    session.live_key = None  # until it is known what the trainer holds afterwards
    starts = session.trainer.starts
    opened = ArtifactAnswers(session.stage_store, parents)
    session.goodput.hand_over()
    try:
        with session.trainer.compute(
            stage,
            parents,
            live=live,
            signs=session.signs,
            given=given,
            answers={**opened.answers, **(answers or {})},
            writer=writer,
        ) as received:
            session.goodput.take_back(received.goodput)
            opened.close()
            yield received
        # A stage that changes the state says what it is then.
        if live and held is not None and session.trainer.starts == starts:
            session.live_key = held.known_key
    finally:
        opened.close()


def put_images(
    session: Session, stage: Stage, received: Received, scratch: Path
) -> dict[str, Artifact]:
    """Puts the tensors and documents that the trainer has made: artifact → what it is."""
    store, key = session.stage_store, stage.known_key
    artifacts = {}
    for name, image in received.images.items():
        written = write_hashed(scratch / f"{name}.safetensors", _blocks(image))
        artifacts[name] = store.put_artifact(key, "safetensors", written)
    for name, body in received.documents.items():
        artifacts[name] = store.put_artifact(key, "json", dump_document(body))
    return artifacts


def _blocks(image: memoryview) -> Iterator[memoryview]:
    for start in range(0, len(image), BLOCK_BYTES):
        yield image[start : start + BLOCK_BYTES]


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


def bring_state(work: Work, order: Order) -> TrainingState:
    """The live state with the checkpoint of `parent`; reads nothing if it holds that already."""
    from epochal.engine.model.state import fresh_optimizer

    components = work.ready_components()
    if order.live:
        return components.state
    record, artifacts = order.parents["parent"], ParentArtifacts(work.link, order)
    if "optimizer" in record.artifacts:
        load_checkpoint(artifacts, record, components)
    else:  # the initial weights
        if components.state.companions:  # what they begin with is stored nowhere, but made again
            work.components = None
            components = work.ready_components()
        load_model(artifacts, record, components)
        fresh_optimizer(components.state)
    return components.state


def number(value: float) -> float | None:
    """`value` as a record holds it: None if it is not finite."""
    return float(value) if math.isfinite(value) else None
