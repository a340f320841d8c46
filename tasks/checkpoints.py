"""Training state to artifacts and back: tensors of model, optimizer and average, and the rest."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from epochal.data.documents import dump_document, load_document
from epochal.data.stages import Artifact, StageRecord, StageStore

if TYPE_CHECKING:
    from epochal.engine.ema import WeightAverage
    from epochal.engine.state import TrainingState
    from epochal.tasks.components import Components
    from epochal.tasks.keys import Stage
    from epochal.tasks.session import Session

MAX_STATE_DOCUMENT_BYTES = 1 << 28


def put_model(stage_store: StageStore, key: str, state: TrainingState, scratch: Path) -> Artifact:
    """Writes the weights and buffers; the file holds no metadata, plain torch loads it."""
    from epochal.engine.serialize import save_tensors, split_state

    path = scratch / "model.safetensors"
    save_tensors(split_state(state).model, path)
    return stage_store.put_artifact(key, "safetensors", path)


def put_checkpoint(
    stage_store: StageStore, key: str, state: TrainingState, scratch: Path
) -> dict[str, Artifact]:
    """Writes model, optimizer, average and the rest of the state."""
    from epochal.engine.serialize import save_tensors, split_state

    parts = split_state(state)
    model, optimizer = scratch / "model.safetensors", scratch / "optimizer.safetensors"
    save_tensors(parts.model, model)
    save_tensors(parts.optimizer, optimizer)
    artifacts = {
        "model": stage_store.put_artifact(key, "safetensors", model),
        "optimizer": stage_store.put_artifact(key, "safetensors", optimizer),
        "state": stage_store.put_artifact(key, "json", dump_document(parts.document)),
    }
    if parts.ema:
        ema = scratch / "ema.safetensors"
        save_tensors(parts.ema, ema)
        artifacts["ema"] = stage_store.put_artifact(key, "safetensors", ema)
    return artifacts


def load_model(stage_store: StageStore, record: StageRecord, components: Components) -> None:
    """Reads the weights alone into the model. Raises Damaged or StateMismatch."""
    from epochal.engine.serialize import load_model_tensors, load_tensors

    with stage_store.fetch_artifact(record, "model") as path:
        load_model_tensors(components.state.model, load_tensors(path, device="cpu"))


def load_ema(stage_store: StageStore, record: StageRecord, average: WeightAverage) -> None:
    """Reads the average of the weights alone. Raises Damaged or StateMismatch."""
    from epochal.engine.serialize import load_average, load_tensors

    with stage_store.fetch_artifact(record, "ema") as path:
        load_average(average, load_tensors(path, device="cpu"))


def load_checkpoint(stage_store: StageStore, record: StageRecord, components: Components) -> None:
    """Reads a whole checkpoint into the live state. Raises Damaged or StateMismatch."""
    from epochal.engine.serialize import StateParts, load_state, load_tensors

    with ExitStack() as stack:
        local = {
            name: stack.enter_context(stage_store.fetch_artifact(record, name))
            for name in ("model", "optimizer", "ema")
            if name in record.artifacts
        }
        data = stage_store.read_artifact(record, "state", max_bytes=MAX_STATE_DOCUMENT_BYTES)
        parts = StateParts(
            model=load_tensors(local["model"], device="cpu"),
            optimizer=load_tensors(local["optimizer"], device="cpu"),
            ema=load_tensors(local["ema"], device="cpu") if "ema" in local else {},
            document=load_document(
                data, name=record.artifacts["state"].file, max_bytes=MAX_STATE_DOCUMENT_BYTES
            ),
        )
    load_state(components.state, parts)


def bring_state(session: Session, stage: Stage) -> Components:
    """The components with the checkpoint of `stage` in them; nothing is read if they hold it."""
    from epochal.engine.state import fresh_optimizer

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
