"""Training state to artifacts and back: tensors of model, optimizer and average, and the rest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochal.data.documents import dump_document, load_document
from epochal.data.errors import CorruptObject
from epochal.data.stage_store.stages import Artifact, StageRecord, StageStore
from epochal.data.store.hashed_files import write_hashed

if TYPE_CHECKING:
    from torch import Tensor

    from epochal.engine.model.ema import WeightAverage
    from epochal.engine.model.state import TrainingState
    from epochal.tasks.user_code.components import Components

COMPANIONS = ("companions", "companions_state")
"""Artifacts of the state of loss and step, where these have one: its tensors, and the rest."""


def put_model(stage_store: StageStore, key: str, state: TrainingState, scratch: Path) -> Artifact:
    """Writes the weights and buffers; the file holds no metadata, plain torch loads it."""
    from epochal.engine.checkpoint.serialize import split_state

    return put_tensors(stage_store, key, "model", split_state(state).model, scratch)


def put_checkpoint(
    stage_store: StageStore, key: str, state: TrainingState, scratch: Path
) -> dict[str, Artifact]:
    """Writes model, optimizer, average and the rest of the state."""
    from epochal.engine.checkpoint.serialize import split_state

    parts = split_state(state)
    artifacts = {
        "model": put_tensors(stage_store, key, "model", parts.model, scratch),
        "optimizer": put_tensors(stage_store, key, "optimizer", parts.optimizer, scratch),
        "state": stage_store.put_artifact(key, "json", dump_document(parts.document)),
    }
    if parts.ema:
        artifacts["ema"] = put_tensors(stage_store, key, "ema", parts.ema, scratch)
    beside = put_companions(stage_store, key, parts.companions, parts.companions_document, scratch)
    return artifacts | beside


def put_companions(
    stage_store: StageStore,
    key: str,
    tensors: Mapping[str, Tensor],
    document: Mapping[str, Any],
    scratch: Path,
) -> dict[str, Artifact]:
    """Writes the state of loss and step; nothing where these have none."""
    if not document:
        return {}
    of_tensors, of_document = COMPANIONS
    return {
        of_tensors: put_tensors(stage_store, key, of_tensors, tensors, scratch),
        of_document: stage_store.put_artifact(key, "json", dump_document(document)),
    }


def put_tensors(
    stage_store: StageStore, key: str, name: str, tensors: Mapping[str, Tensor], scratch: Path
) -> Artifact:
    """Writes tensors under their names, without metadata. name: of the file in `scratch`."""
    from epochal.engine.checkpoint.safetensors_file import safetensors_pieces

    written = write_hashed(scratch / f"{name}.safetensors", safetensors_pieces(tensors))
    return stage_store.put_artifact(key, "safetensors", written)


def load_model(
    stage_store: StageStore, record: StageRecord, components: Components, *, artifact: str = "model"
) -> None:
    """Reads the weights alone into the model, and the state of loss and step where there is one.

    artifact: `ema` puts their average there. Raises CorruptObject or StateMismatch.
    """
    from epochal.engine.checkpoint.serialize import (
        load_companions,
        load_model_tensors,
        load_tensors,
    )

    with stage_store.fetch_artifact(record, artifact) as path:
        load_model_tensors(components.state.model, load_tensors(path, device="cpu"))
    if COMPANIONS[0] in record.artifacts:
        tensors, document = read_companions(stage_store, record)
        try:
            load_companions(components.state.companions, tensors, document)
        except CorruptObject as error:
            raise stage_store.reject(record, COMPANIONS[1], error) from error


def read_companions(
    stage_store: StageStore, record: StageRecord
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The stored state of loss and step, both empty where there is none. Raises CorruptObject."""
    from epochal.engine.checkpoint.folder import MAX_STATE_BYTES
    from epochal.engine.checkpoint.serialize import load_tensors

    tensors, document = COMPANIONS
    if tensors not in record.artifacts:
        return {}, {}
    data = stage_store.read_artifact(record, document, max_bytes=MAX_STATE_BYTES)
    name = record.artifacts[document].file
    try:
        body = load_document(data, name=name, max_bytes=MAX_STATE_BYTES)
    except CorruptObject as error:
        raise stage_store.reject(record, document, error) from error
    with stage_store.fetch_artifact(record, tensors) as path:
        return load_tensors(path, device="cpu"), body


def load_ema(stage_store: StageStore, record: StageRecord, average: WeightAverage) -> None:
    """Reads the average of the weights alone. Raises CorruptObject or StateMismatch."""
    from epochal.engine.checkpoint.serialize import load_average, load_tensors

    with stage_store.fetch_artifact(record, "ema") as path:
        load_average(average, load_tensors(path, device="cpu"))


def load_checkpoint(stage_store: StageStore, record: StageRecord, components: Components) -> None:
    """Reads a whole checkpoint into the live state. Raises CorruptObject or StateMismatch."""
    from epochal.engine.checkpoint.folder import MAX_STATE_BYTES
    from epochal.engine.checkpoint.serialize import StateParts, load_state, load_tensors

    tensors: dict[str, dict[str, Tensor]] = {"ema": {}}
    for name in ("model", "optimizer", "ema"):
        if name in record.artifacts:
            with stage_store.fetch_artifact(record, name) as path:
                tensors[name] = load_tensors(path, device="cpu")
    companions, beside = read_companions(stage_store, record)
    data = stage_store.read_artifact(record, "state", max_bytes=MAX_STATE_BYTES)
    try:
        document = load_document(
            data, name=record.artifacts["state"].file, max_bytes=MAX_STATE_BYTES
        )
        load_state(
            components.state,
            StateParts(
                document=document, companions=companions, companions_document=beside, **tensors
            ),
        )
    except CorruptObject as error:
        raise stage_store.reject(record, "state", error) from error
