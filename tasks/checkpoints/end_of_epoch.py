"""Training state to artifacts and back: tensors of model, optimizer and average, and the rest."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from epochal.data.documents import load_document
from epochal.data.errors import CorruptObject
from epochal.data.stage_store.records import StageRecord

if TYPE_CHECKING:
    from torch import Tensor

    from epochal.engine.model.ema import WeightAverage
    from epochal.engine.model.state import Slice, TrainingState
    from epochal.tasks.user_code.components import Components

COMPANIONS = ("companions", "companions_state")
"""Artifacts of the state of loss and step, where these have one: its tensors, and the rest."""
CHECKPOINT = ("model", "optimizer", "state", "ema", *COMPANIONS)
"""Artifacts that make a checkpoint, where a stage has them."""


class ArtifactSource(Protocol):
    """Where artifacts of records are read: a store of stages, or what stands for it."""

    def fetch_artifact(self, record: StageRecord, name: str) -> AbstractContextManager[Path]:
        """A local file with the artifact's bytes. Raises CorruptObject."""

    def read_artifact(self, record: StageRecord, name: str, *, max_bytes: int) -> bytes:
        """The artifact's bytes. Raises CorruptObject."""

    def reject(self, record: StageRecord, name: str, error: CorruptObject) -> CorruptObject:
        """Sets aside an artifact that has its digest and is wrong; gives the error to raise."""


def checkpoint_parts(
    state: TrainingState,
) -> tuple[dict[str, dict[str, Tensor]], dict[str, dict[str, Any]]]:
    """Artifact → tensors, and artifact → document, of the live state at an epoch's end."""
    from epochal.engine.checkpoint.serialize import split_state

    parts = split_state(state)
    tensors = {"model": parts.model, "optimizer": parts.optimizer}
    documents = {"state": parts.document}
    if parts.ema:
        tensors["ema"] = parts.ema
    if parts.companions_document:
        of_tensors, of_document = COMPANIONS
        tensors[of_tensors] = parts.companions
        documents[of_document] = parts.companions_document
    return tensors, documents


def load_model(
    artifacts: ArtifactSource,
    record: StageRecord,
    components: Components,
    *,
    artifact: str = "model",
) -> None:
    """Reads the weights alone into the model, and the state of loss and step where there is one.

    artifact: `ema` puts their average there. Raises CorruptObject or StateMismatch.
    """
    from epochal.engine.checkpoint.serialize import load_companions, load_model_tensors
    from epochal.engine.checkpoint.slices import load_slices

    with artifacts.fetch_artifact(record, artifact) as path:
        load_model_tensors(components.state.model, load_slices(path, components.state.slices))
    if COMPANIONS[0] in record.artifacts:
        tensors, document = read_companions(artifacts, record)
        try:
            load_companions(components.state.companions, tensors, document)
        except CorruptObject as error:
            raise artifacts.reject(record, COMPANIONS[1], error) from error


def read_companions(
    artifacts: ArtifactSource, record: StageRecord
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The stored state of loss and step, both empty where there is none. Raises CorruptObject."""
    from epochal.engine.checkpoint.folder import MAX_STATE_BYTES
    from epochal.engine.checkpoint.serialize import load_tensors

    tensors, document = COMPANIONS
    if tensors not in record.artifacts:
        return {}, {}
    data = artifacts.read_artifact(record, document, max_bytes=MAX_STATE_BYTES)
    name = record.artifacts[document].file
    try:
        body = load_document(data, name=name, max_bytes=MAX_STATE_BYTES)
    except CorruptObject as error:
        raise artifacts.reject(record, document, error) from error
    with artifacts.fetch_artifact(record, tensors) as path:
        return load_tensors(path, device="cpu"), body


def load_ema(
    artifacts: ArtifactSource,
    record: StageRecord,
    average: WeightAverage,
    slices: Mapping[str, Slice] | None = None,
) -> None:
    """Reads the average of the weights alone. slices: of the state; none: it is whole.

    Raises CorruptObject or StateMismatch.
    """
    from epochal.engine.checkpoint.serialize import load_average
    from epochal.engine.checkpoint.slices import load_slices

    with artifacts.fetch_artifact(record, "ema") as path:
        load_average(average, load_slices(path, slices or {}))


def load_checkpoint(artifacts: ArtifactSource, record: StageRecord, components: Components) -> None:
    """Reads a whole checkpoint into the live state. Raises CorruptObject or StateMismatch."""
    from epochal.engine.checkpoint.folder import MAX_STATE_BYTES
    from epochal.engine.checkpoint.serialize import StateParts, load_state
    from epochal.engine.checkpoint.slices import load_slices

    tensors: dict[str, dict[str, Tensor]] = {"ema": {}}
    for name in ("model", "optimizer", "ema"):
        if name in record.artifacts:
            with artifacts.fetch_artifact(record, name) as path:
                tensors[name] = load_slices(path, components.state.slices)
    companions, beside = read_companions(artifacts, record)
    data = artifacts.read_artifact(record, "state", max_bytes=MAX_STATE_BYTES)
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
        raise artifacts.reject(record, "state", error) from error
