"""What a finished run leaves in MLflow beside its curves: links to its checkpoints, its best model.

Each is written once: tags of the MLflow run say which one it has.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from epochal.data.stage_store.stages import StageRecord, StageStore
from epochal.tasks.tracking.mlflow_run import TrackedRun
from epochal.tasks.tracking.model_folder import ModelSource, model_uri, write_model_folder

MAX_MODEL_BYTES = 100 << 20
"""A larger model is linked, not copied into MLflow."""

LINKS_TAG = "epochal.checkpoints"
MODEL_TAG = "epochal.best_model"
MODEL_SHA256_TAG = "epochal.best_model_sha256"
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
    name: str,
    may_write: Callable[[], None],
) -> None:
    """The weights of the train stage `record` as a model that MLflow can load.

    artifact: which of them, `model` or `ema`. One of more than 100 MiB is only linked. Raises what
    MLflow and the store raise.
    """
    sha256 = record.artifacts[artifact].sha256
    if run.tag(MODEL_SHA256_TAG) == sha256:
        return
    may_write()
    model_id = _find_model(run, sha256)
    if model_id is None:
        model_id = _create_model(
            run,
            record,
            artifact=artifact,
            stages=stages,
            source=source,
            name=name,
            may_write=may_write,
        )
    run.set_tags({MODEL_TAG: model_uri(model_id), MODEL_SHA256_TAG: sha256})


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
    name: str,
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
            run.experiment_id, name=name, source_run_id=run.run_id, tags=tags
        ).model_id
    )
    if copied:
        with (
            tempfile.TemporaryDirectory(prefix="epochal-model-") as scratch,
            stages.fetch_artifact(record, artifact) as path,
        ):
            folder = Path(scratch) / "model"
            write_model_folder(
                folder, weights=path, source=source, model_id=model_id, run_id=run.run_id
            )
            may_write()
            run.client.log_model_artifacts(model_id, str(folder))
    may_write()
    run.client.finalize_logged_model(model_id, "READY")
    step = int(record.values["updates_done"])
    run.client.log_outputs(run.run_id, [LoggedModelOutput(model_id, step)])
    return model_id
