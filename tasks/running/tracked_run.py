"""The tracker of a run, made from its config and plan: all that MLflow shows of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from epochal.data.errors import InputError, TargetError
from epochal.data.secrets import masked
from epochal.data.stage_store.stages import StageStore
from epochal.tasks.config.parts import TrackingConfig
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.run_view import RunView, of_ema
from epochal.tasks.planning.stage import RunInputs
from epochal.tasks.report.samples import NO_DATA
from epochal.tasks.running.model_graph import ModelGraphs
from epochal.tasks.running.pictures_process import RunPictures
from epochal.tasks.running.run_description import (
    about_run,
    data_entry,
    parameters,
    read_as_it_was,
)
from epochal.tasks.runs.find_run import FoundRun
from epochal.tasks.runs.run_plans import RunPlan
from epochal.tasks.trackers.delivery import OtherTracker, RunTrackers
from epochal.tasks.trackers.tracker import RunInfo
from epochal.tasks.tracking.background import (
    STOPPED_TAG,
    ModelSource,
    RunIdentity,
    Tracker,
    TrackerResult,
)
from epochal.tasks.tracking.connection import tracking_uri
from epochal.tasks.tracking.model_folder import Example, no_example
from epochal.tasks.tracking.points import Direction, LogEvery
from epochal.tasks.user_code.loaded_modules import code_files
from epochal.tasks.user_code.source_digests import read_source

if TYPE_CHECKING:
    from epochal.data.inspection.dataset import OpenDataset
    from epochal.tasks.report.page.shown_run import Images


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
    prefect_page: str | None = None,
    opened: Mapping[str, OpenDataset] = MappingProxyType({}),
    forms: Mapping[str, Any] = MappingProxyType({}),
    example: Callable[[], Example] = no_example,
) -> Tracker:
    """The tracker of the plan's generation. tags: further tags for the run in MLflow.

    prefect_page: address of the flow run that works on it. opened, forms: of the data sets, as far
    as they are known. example: asks for a call of the model.

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
            lineage=plan.lineage,
        ),
        params=parameters(config),
        tags={"epochs": str(config.epochs), "epochal.store": stages.store.url, **(tags or {})},
        stages=stages,
        log_every_updates=config.tracking.log_every_updates,
        per_group=config.gradients.per_group,
        notice=notice,
        data=[
            data_entry(one, context, facts, opened=opened.get(field), form=forms.get(field))
            for field, context, one, facts in (
                ("train_data", "train", config.train_data, run_inputs.train_data),
                (
                    "validation_data",
                    "validation",
                    config.validation_data,
                    run_inputs.validation_data,
                ),
            )
        ],
        model=_model_source(config, run_inputs, notice=notice, example=example)
        if with_model
        else None,
        graphs=ModelGraphs(uri, beside, config.tracking.export),
        pictures=RunPictures(
            stages, plan, config, uri=uri, images=images or NO_DATA, beside=beside
        ),
        thinned=config.tracking.thinned,
        measures=_measures(config),
        about=partial(about_run, config, plan, run_inputs, stages.store, own_folder=with_model),
        prefect_page=prefect_page,
        system_metrics=config.tracking.system_metrics,
    )


def with_others(
    mlflow: Tracker,
    config: RunConfig,
    plan: RunPlan,
    stages: StageStore,
    *,
    notice: Callable[[str], None],
) -> RunTrackers:
    """MLflow's tracker, and those that `tracking.also` names."""
    tracking = config.tracking
    run = RunInfo(plan.run, plan.reference, config.folder, parameters(config))
    return RunTrackers(
        mlflow,
        [
            OtherTracker(
                target,
                run,
                place=f"tracking.also[{place}]",
                stages=stages,
                log_every=LogEvery(
                    tracking.log_every_updates, config.gradients.per_group, tracking.thinned
                ),
                measures=_measures(config),
                notice=notice,
            )
            for place, target in enumerate(tracking.also)
        ],
    )


def _measures(config: RunConfig) -> list[tuple[str, Direction]]:
    """What the best epoch is picked by, and that of the average of the weights."""
    picked = [config.metrics] if config.ema is None else [config.metrics, of_ema(config.metrics)]
    return [(one.best_metric, one.best_direction) for one in picked]


def _model_source(
    config: RunConfig,
    run_inputs: RunInputs,
    *,
    notice: Callable[[str], None],
    example: Callable[[], Example],
) -> ModelSource | None:
    """What MLflow builds the model of; None, and a notice, where its code is no longer there."""
    folder, wanted = Path(config.folder), run_inputs.sources.get("model", {})
    files: dict[str, bytes] = {}
    try:
        source = read_source(config.model.target.partition(":")[0], folder=folder)
        for name, path in code_files(source, wanted, folder=folder).items():
            data = read_as_it_was(path, name, wanted[name])
            if data is not None:
                files[name] = data
    except TargetError:
        pass  # what is missing for it is told below
    missing = [name for name in wanted if name not in files]
    if missing:
        notice(
            f"model: {missing[0]} is not there any more as the run has it, so the best model is "
            "not delivered to MLflow; its weights are linked there, in checkpoints.json"
        )
        return None
    packages = run_inputs.packages.get("model", {})
    return ModelSource(config.model, folder, files=files, packages=packages, example=example)


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
    config = run.config.model_copy(update={"tracking": tracking, "folder": folder})
    mlflow = make_tracker(
        config,
        run.plan,
        run.plan.run_inputs(),
        run.stage_store,
        notice=notice,
        local_mlflow=local_mlflow,
        with_model=with_model,
    )
    tracker = with_others(mlflow, config, run.plan, run.stage_store, notice=notice)
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
    tracking = stored.model_copy(update={"uri": None, "also": ()})  # no code that it names
    if stored.uri not in (None, tracking_uri(tracking, local_server=local_mlflow)):
        raise InputError(
            f"{run.plan.reference}: the plan in the store names MLflow at "
            f"{masked(stored.uri)!r:.200}, and a store does not say where your deliveries and your "
            "credentials go: give the run's config (`epochal sync CONFIG`), or set "
            "MLFLOW_TRACKING_URI"
        )
    return tracking
