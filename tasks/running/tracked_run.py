"""The MLflow ledger of a run, from its config and plan: what MLflow shows of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from epochal.data.stage_store.stages import StageRecord, StageStore
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.keys import Facts, Stage
from epochal.tasks.running.tracked_pictures import PicturesSource
from epochal.tasks.runs.explain import flatten
from epochal.tasks.runs.plan import is_bitwise
from epochal.tasks.runs.run_plans import RunPlan
from epochal.tasks.runs.summary import artifact_of, best_epoch, weights_sha256
from epochal.tasks.tracking.background import (
    STOPPED_TAG,
    DataEntry,
    Ledger,
    LedgerResult,
    ModelSource,
    RunIdentity,
)
from epochal.tasks.tracking.connection import tracking_uri

if TYPE_CHECKING:
    from epochal.data.config.loader import DataConfig
    from epochal.tasks.report.page import Images
    from epochal.tasks.runs.find_run import FoundRun

NO_DATA = "the data set was not opened for this page; `epochal report` opens it"
_NOT_PARAMETERS = (
    "name", "epochs", "max_updates", "early_stopping", "averaging", "store", "checkpoint",
    "tracking", "device", "threads", "reproducibility",
    "folder", "loader.workers", "gradients.per_group", "metrics.best", "sampling.final_full",
)  # fmt: skip
"""Fields that may change within a generation: MLflow refuses a parameter that changes."""


def make_ledger(
    config: RunConfig,
    plan: RunPlan,
    facts: Facts,
    stages: StageStore,
    *,
    notice: Callable[[str], None],
    local_mlflow: str | None,
    tags: Mapping[str, str] | None = None,
    images: Images | None = None,
) -> Ledger:
    """The ledger of the plan's generation. tags: more of them, for the run in MLflow.

    images: reads those of samples for the report; without it the report has none.
    """
    return Ledger(
        uri=tracking_uri(config.tracking, local_server=local_mlflow),
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
        store=stages.store,
        stages=stages,
        log_every_updates=config.tracking.log_every_updates,
        per_group=config.gradients.per_group,
        notice=notice,
        data=[
            _data_entry(config.train_data, "train", facts.train_data.fingerprint),
            _data_entry(config.validation_data, "validation", facts.validation_data.fingerprint),
        ],
        model=ModelSource(
            target=config.model,
            folder=Path(config.folder),
            files=tuple(facts.sources.get("model", {})),
        ),
        pictures=PicturesSource(plan, config, images or NO_DATA),
    )


def _data_entry(data: DataConfig, context: str, fingerprint: str | None) -> DataEntry:
    return DataEntry(
        context=context,
        name=data.target,
        fingerprint=fingerprint or "unknown",
        source={"target": data.target, "args": data.args},
    )


def parameters(config: RunConfig) -> dict[str, str]:
    """The config's fields that act on numbers, flat, as MLflow's parameters."""
    return {
        path: value if isinstance(value, str) else str(value)
        for path, value in flatten(config.model_dump(mode="json"))
        if not any(path == name or path.startswith(f"{name}.") for name in _NOT_PARAMETERS)
    }


def final_tags(
    stages: Sequence[Stage], records: Mapping[str, StageRecord], *, stopped: int | None = None
) -> dict[str, str]:
    """What is known of a run when a command ends. stopped: the epoch of early stopping, or None."""
    weights = weights_sha256(stages, records)
    tags = {"epochal.bitwise": str(is_bitwise(stages, records)).lower()}
    if weights is not None:
        tags["epochal.weights_sha256"] = weights
    if stopped is not None:
        tags[STOPPED_TAG] = str(stopped)
    return tags


def sync_run(
    found: FoundRun, *, notice: Callable[[str], None], local_mlflow: str | None
) -> LedgerResult:
    """Delivers what MLflow does not have of a run in a store; computes and starts nothing.

    A run that is not whole keeps the status of one that was cut off.
    """
    ledger = make_ledger(
        found.config,
        found.plan,
        found.plan.facts(),
        found.stage_store,
        notice=notice,
        local_mlflow=local_mlflow,
    )
    ledger.start()
    for stage in found.stages:
        record = found.records.get(stage.known_key)
        if record is not None:
            ledger.deliver(stage.kind, stage.epoch, record)
    best = best_epoch(found.config.metrics, found.stages, found.records)
    whole = all(stage.known_key in found.records for stage in found.stages)
    return ledger.finish(
        "FINISHED" if whole else "KILLED",
        best_epoch=None if best is None else best.epoch,
        best_artifact="model" if best is None else artifact_of(best.metric),
        tags=final_tags(found.stages, found.records, stopped=found.stopped_after),
        hurried=False,
    )
