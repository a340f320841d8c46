"""The tracker of a run, made from its config and plan: all that MLflow shows of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from epochal.data.errors import InputError, TargetError
from epochal.data.hashing import bytes_sha256
from epochal.data.secrets import masked
from epochal.data.stage_store.stages import StageStore
from epochal.data.types import in_json
from epochal.tasks.config.parts import TrackingConfig
from epochal.tasks.config.run import RunConfig, flatten
from epochal.tasks.planning.run_view import RunView
from epochal.tasks.planning.stage import RunInputs
from epochal.tasks.running.pictures_process import RunPictures
from epochal.tasks.running.run_pictures import NO_DATA
from epochal.tasks.runs.find_run import FoundRun
from epochal.tasks.runs.run_plans import RunPlan
from epochal.tasks.tracking.background import (
    STOPPED_TAG,
    DataEntry,
    ModelSource,
    RunIdentity,
    Tracker,
    TrackerResult,
)
from epochal.tasks.tracking.connection import tracking_uri
from epochal.tasks.user_code.loaded_modules import code_files
from epochal.tasks.user_code.source_digests import read_source, source_sha256

if TYPE_CHECKING:
    from epochal.data.config.loader import DataConfig
    from epochal.tasks.report.page import Images

_NOT_PARAMETERS = (
    "name", "epochs", "max_updates", "early_stopping", "averaging", "store", "checkpoint",
    "tracking", "launch", "device", "threads", "reproducibility",
    "folder", "targets_allowed", "loader.workers", "gradients.per_group", "metrics.best",
    "sampling.final_full",
)  # fmt: skip
"""Fields that may change within a generation: MLflow refuses a parameter that changes."""


def make_tracker(
    config: RunConfig,
    plan: RunPlan,
    run_inputs: RunInputs,
    stages: StageStore,
    *,
    notice: Callable[[str], None],
    local_mlflow: str | None,
    tags: Mapping[str, str] | None = None,
    images: Images | None = None,
    beside: bool = False,
    with_model: bool = True,
) -> Tracker:
    """The tracker of the plan's generation. tags: further tags for the run in MLflow.

    images: reads images of samples for the report; without it the report has none. beside: whether
    the pictures are drawn in a process of their own, which outlives this one. with_model:
    whether the best model goes along, with the user's files in `config.folder` that it runs.
    """
    uri = tracking_uri(config.tracking, local_server=local_mlflow)
    return Tracker(
        uri=uri,
        experiment=config.tracking.experiment,
        run=RunIdentity(
            name=plan.run,
            generation=plan.generation,
            branched_from=plan.branched_from,
            shared_epochs=plan.shared_epochs,
            identity=plan.identity,
        ),
        params=parameters(config),
        tags={"epochs": str(config.epochs), "epochal.store": stages.store.url, **(tags or {})},
        stages=stages,
        log_every_updates=config.tracking.log_every_updates,
        per_group=config.gradients.per_group,
        notice=notice,
        data=[
            _data_entry(config.train_data, "train", run_inputs.train_data.fingerprint),
            _data_entry(
                config.validation_data, "validation", run_inputs.validation_data.fingerprint
            ),
        ],
        model=_model_source(config, run_inputs, notice=notice) if with_model else None,
        pictures=RunPictures(
            stages, plan, config, uri=uri, images=images or NO_DATA, beside=beside
        ),
    )


def _model_source(
    config: RunConfig, run_inputs: RunInputs, *, notice: Callable[[str], None]
) -> ModelSource | None:
    """What MLflow builds the model of; None, and a notice, where its code is no longer there."""
    folder, wanted = Path(config.folder), run_inputs.sources.get("model", {})
    files: dict[str, bytes] = {}
    try:
        source = read_source(config.model.target.partition(":")[0], folder=folder)
        for name, path in code_files(source, wanted, folder=folder).items():
            data = path.read_bytes()
            # Versions before this one took the digest of the text.
            if wanted[name] in {bytes_sha256(data), source_sha256(name, data)}:
                files[name] = data
    except (TargetError, OSError, SyntaxError, ValueError):
        pass  # what is missing for it is told below
    missing = [name for name in wanted if name not in files]
    if missing:
        notice(
            f"model: {missing[0]} is not there any more as the run has it, so the best model is "
            "not delivered to MLflow; its weights are linked there, in checkpoints.json"
        )
        return None
    return ModelSource(target=config.model, folder=folder, files=files)


def _data_entry(data: DataConfig, context: str, fingerprint: str | None) -> DataEntry:
    return DataEntry(
        context=context,
        name=data.target,
        fingerprint=fingerprint or "unknown",
        source={"target": data.target, "args": in_json(data.args)},
    )


def parameters(config: RunConfig) -> dict[str, str]:
    """The config's fields that act on numbers, flat, as MLflow's parameters."""
    return {
        path: value if isinstance(value, str) else str(value)
        for path, value in flatten(config.model_dump(mode="json"))
        if not any(path == name or path.startswith(f"{name}.") for name in _NOT_PARAMETERS)
    }


def final_tags(run: RunView) -> dict[str, str]:
    """What is known of a run when a command ends."""
    tags = {"epochal.bitwise": str(run.is_bitwise).lower()}
    if (weights := run.weights_sha256) is not None:
        tags["epochal.weights_sha256"] = weights
    if (stopped := run.stopped_after) is not None:
        tags[STOPPED_TAG] = str(stopped)
    return tags


def sync_run(
    run: FoundRun, *, notice: Callable[[str], None], local_mlflow: str | None
) -> TrackerResult:
    """Delivers what MLflow does not have of a run in a store; computes and starts nothing.

    A run whose stages are not all done is shown as `KILLED`. Where MLflow is, and which files of
    yours go there, is never taken from the store: others may have written that. Raises InputError
    if the store names another MLflow than the config or the environment.
    """
    own = run.own
    tracking = own.tracking if own is not None else _without_address(run, local_mlflow)
    folder = own.folder if own is not None else run.config.folder
    with_model = own is not None and own.model == run.config.model
    if not with_model and run.is_whole:
        notice(
            f"the best model of {run.plan.reference} is not delivered by this command, which takes "
            "no source files from a store; if MLflow does not have it: `epochal sync CONFIG`"
        )
    tracker = make_tracker(
        run.config.model_copy(update={"tracking": tracking, "folder": folder}),
        run.plan,
        run.plan.run_inputs(),
        run.stage_store,
        notice=notice,
        local_mlflow=local_mlflow,
        with_model=with_model,
    )
    tracker.start()
    for stage in run.stages:
        if run.is_done(stage):
            tracker.deliver(run.record_of(stage))
    return tracker.finish(
        "FINISHED" if run.is_whole else "KILLED",
        best=run.best,
        tags=final_tags(run),
        hurried=False,
    )


def _without_address(run: FoundRun, local_mlflow: str | None) -> TrackingConfig:
    """What a store says of tracking, but for the address. Raises InputError if it names another."""
    stored = run.config.tracking
    tracking = stored.model_copy(update={"uri": None})
    if stored.uri not in (None, tracking_uri(tracking, local_server=local_mlflow)):
        raise InputError(
            f"{run.plan.reference}: the plan in the store names MLflow at "
            f"{masked(stored.uri)!r:.200}, and a store does not say where your deliveries and your "
            "credentials go: give the run's config (`epochal sync CONFIG`), or set "
            "MLFLOW_TRACKING_URI"
        )
    return tracking
