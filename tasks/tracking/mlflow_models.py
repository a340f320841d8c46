"""What a finished run leaves in MLflow beside its curves: links to its checkpoints, its best model.

Each is written once: tags of the MLflow run say which one it has.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from epochal.data.stage_store.stages import StageRecord, StageStore
from epochal.tasks.tracking.mlflow_run import TrackedRun
from epochal.tasks.tracking.model_folder import (
    Example,
    ModelSource,
    model_uri,
    write_model_folder,
)

MAX_MODEL_BYTES = 100 << 20
"""A larger model is linked, not copied into MLflow."""

MAX_REASON = 500
LINKS_TAG = "epochal.checkpoints"
MODEL_TAG = "epochal.best_model"
MODEL_SHA256_TAG = "epochal.best_model_sha256"
GRAPH_TAG = "epochal.best_model_pytorch"
"""Whether `mlflow.pytorch.load_model` takes the best model: `yes`, `due`, or `no: ` and why."""
MODEL_NAME = "model"
"""So `runs:/RUN_ID/model` names the newest one of a run."""
DUE = "due"


class Graphs(Protocol):
    """Makes the graph of a delivered model for MLflow's pytorch flavour."""

    def deliver(self, run_id: str, model_id: str, example: Example) -> None:
        """Has it made, here or by a process that goes on; raises where none can be started."""

    @property
    def reason_against(self) -> str | None:
        """Why none is made, or None."""


_SHA256 = "epochal.weights_sha256"


def log_links(run: TrackedRun, trained: Sequence[StageRecord], *, stages: StageStore) -> None:
    """The artifact `checkpoints.json`: where the weights of each epoch are, and their digest."""
    links = [
        {
            "epoch": record.epoch,
            "url": stages.store.address(stages.artifact_path(record, "model")),
            "sha256": record.artifacts["model"].sha256,
            "bytes": record.artifacts["model"].size,
        }
        for record in sorted(trained, key=lambda record: record.epoch or 0)
    ]
    if links:
        run.log_document("checkpoints.json", {"checkpoints": links}, tag=LINKS_TAG)


def log_best_model(
    run: TrackedRun,
    record: StageRecord,
    *,
    artifact: str,
    stages: StageStore,
    source: ModelSource,
    may_write: Callable[[], None],
    graphs: Graphs | None = None,
) -> None:
    """The weights of the train stage `record` as a model that MLflow can load.

    artifact: which of them, `model` or `ema`. One of more than 100 MiB is only linked. graphs:
    makes its graph for `mlflow.pytorch`, behind the rest. Raises what MLflow and the store raise.
    """
    sha256 = record.artifacts[artifact].sha256
    delivered = run.tag(MODEL_SHA256_TAG) == sha256
    if delivered and run.tag(GRAPH_TAG) != DUE:
        return
    may_write()
    example = source.example()
    if delivered and example.call is None:
        return  # its graph is left to a command that has the data open
    model_id = _find_model(run, sha256)
    if model_id is None:
        model_id = _create_model(
            run,
            record,
            artifact=artifact,
            stages=stages,
            source=source,
            example=example,
            may_write=may_write,
        )
    state = _graph_state(record.artifacts[artifact].size, example, graphs)
    run.set_tags({MODEL_TAG: model_uri(model_id), MODEL_SHA256_TAG: sha256, GRAPH_TAG: state})
    if state == DUE and graphs is not None:
        may_write()
        graphs.deliver(run.run_id, model_id, example)


def _graph_state(size: int, example: Example, graphs: Graphs | None) -> str:
    if size > MAX_MODEL_BYTES:
        return "no: it is linked, not copied"
    if example.call is None:
        return f"no: {example.problem}"[:MAX_REASON]
    against = "nobody makes it" if graphs is None else graphs.reason_against
    return DUE if against is None else f"no: {against}"[:MAX_REASON]


def _find_model(run: TrackedRun, sha256: str) -> str | None:
    # What a command left that was killed before it set the tag; an unfinished one is deleted.
    ready = None
    for model in run.client.search_logged_models(
        [run.experiment_id], f"source_run_id = '{run.run_id}'", max_results=100
    ):
        if model.tags.get(_SHA256) != sha256:
            continue
        if str(model.status) == "READY":
            ready = str(model.model_id)
        else:
            run.client.delete_logged_model(model.model_id)
    return ready


def _create_model(
    run: TrackedRun,
    record: StageRecord,
    *,
    artifact: str,
    stages: StageStore,
    source: ModelSource,
    example: Example,
    may_write: Callable[[], None],
) -> str:
    from mlflow.entities import LoggedModelOutput

    weights = record.artifacts[artifact]
    copied = weights.size <= MAX_MODEL_BYTES
    tags = {
        _SHA256: weights.sha256,
        "epochal.epoch": str(record.epoch),
        "epochal.url": stages.store.address(stages.artifact_path(record, artifact)),
    }
    if not copied:
        tags["mlflow.model.isExternal"] = "true"
    model_id = str(
        run.client.create_logged_model(
            run.experiment_id, name=MODEL_NAME, source_run_id=run.run_id, tags=tags
        ).model_id
    )
    if copied:
        with (
            tempfile.TemporaryDirectory(prefix="epochal-model-") as scratch,
            stages.fetch_artifact(record, artifact) as path,
        ):
            folder = Path(scratch) / "model"
            write_model_folder(
                folder,
                weights=path,
                source=source,
                model_id=model_id,
                run_id=run.run_id,
                example=example,
            )
            may_write()
            run.client.log_model_artifacts(model_id, str(folder))
    may_write()
    run.client.finalize_logged_model(model_id, "READY")
    step = int(record.values["updates_done"])
    run.client.log_outputs(run.run_id, [LoggedModelOutput(model_id, step)])
    return model_id
