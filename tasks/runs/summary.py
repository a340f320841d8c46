"""What a run came to: one object for `--json`, one row per epoch for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epochal.data.stage_store.stages import StageRecord
from epochal.engine.config.numerics import EMA, MATRIX, MetricsConfig
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.averaging import END_KINDS, VALIDATE_AVERAGE
from epochal.tasks.planning.scoring import SCORE
from epochal.tasks.planning.stage import Stage
from epochal.tasks.reporting import Outcome


@dataclass(frozen=True)
class EpochRow:
    """One epoch as a table shows it; None where there is nothing (yet)."""

    epoch: int
    loss: float | None
    metrics: Mapping[str, float | None]
    gradient_norm: float | None
    trained: int | None
    kept_next: int | None
    total: int | None
    seconds: float | None
    cached: bool | None


@dataclass(frozen=True)
class BestEpoch:
    """The epoch whose metric is best, the earliest of equals."""

    epoch: int
    metric: str
    value: float


def best_epoch(
    config: MetricsConfig, stages: Sequence[Stage], records: Mapping[str, StageRecord]
) -> BestEpoch | None:
    """The best validated epoch, or None if none was validated with a finite value."""
    return next(iter(validated_epochs(config, stages, records)), None)


def validated_epochs(
    config: MetricsConfig, stages: Sequence[Stage], records: Mapping[str, StageRecord]
) -> list[BestEpoch]:
    """The epochs that were validated with a finite value, best first, the earlier of equals."""
    metric, sign = config.best_metric, 1 if config.best_direction == "min" else -1
    found = [
        BestEpoch(epoch=stage.number, metric=metric, value=value)
        for stage in stages
        if stage.kind == "validate"
        and (record := records.get(stage.key or "")) is not None
        and (value := record.values["metrics"].get(metric)) is not None
    ]
    return sorted(found, key=lambda one: (sign * one.value, one.epoch))


def flat_metrics(
    config: RunConfig, stages: Sequence[Stage], records: Mapping[str, StageRecord]
) -> dict[str, float | None]:
    """`validation/…`, `train/…` and `sampling/…`, each of the last epoch that has it, and more.

    `best/…` of the best epoch, `average/…` of the averaged checkpoints.
    """
    metrics: dict[str, float | None] = {}
    for stage in stages:
        record = records.get(stage.key or "")
        if record is None:
            continue
        metrics |= _of_stage(stage.kind, record.values)
    best = best_epoch(config.metrics, stages, records)
    if best is not None:
        metrics[f"best/{best.metric}"] = best.value
        metrics["best/epoch"] = best.epoch
    if config.ema is not None and (own := best_epoch(best_of_ema(config), stages, records)):
        metrics[f"best/{own.metric}"] = own.value
        metrics[f"best/{EMA}epoch"] = own.epoch
    return metrics


def _of_stage(kind: str, values: Mapping[str, Any]) -> dict[str, float | None]:
    """The metrics of one stage by their flat names."""
    match kind:
        case "train":
            known = values["accuracy"] is not None  # where there are classes
            accuracy = {"train/accuracy": values["accuracy"]} if known else {}
            return {"train/loss": values["loss"], **accuracy}
        case "validate":
            return {f"validation/{name}": value for name, value in values["metrics"].items()}
        case "score":
            return {"sampling/extra_forwards": values["extra_forwards"]}
        case "mine":
            return {"sampling/kept": values["kept_fraction"]}
        case "validate_average":
            return {f"average/{name}": value for name, value in values["metrics"].items()}
    return {}


def best_of_ema(config: RunConfig) -> MetricsConfig:
    """The same question of the average of the weights: which of its epochs is best."""
    metric = EMA + config.metrics.best_metric.removeprefix(EMA)
    return config.metrics.model_copy(
        update={"best": metric, "best_mode": config.metrics.best_direction}
    )


def artifact_of(metric: str) -> str:
    """The artifact of a train stage whose weights that metric measured."""
    return "ema" if metric.startswith(EMA) else "model"


def weights_sha256(stages: Sequence[Stage], records: Mapping[str, StageRecord]) -> str | None:
    """Digest of the last epoch's model artifact, or None while it is not trained."""
    last = [stage for stage in stages if stage.kind == "train"][-1]
    record = records.get(last.key or "")
    return None if record is None else record.artifacts["model"].sha256


def average_text(stages: Sequence[Stage], records: Mapping[str, StageRecord]) -> str | None:
    """The average of the checkpoints in one line, or None while there is none that is measured."""
    found = {stage.kind: stage for stage in stages if stage.kind in END_KINDS}
    if not all((stage.key or "") in records for stage in found.values()) or not found:
        return None
    made, measured = (records[found[kind].known_key] for kind in END_KINDS)
    values = metric_values(found[VALIDATE_AVERAGE], measured)
    numbers = ", ".join(
        f"{name} {'–' if value is None else f'{value:.4g}'}" for name, value in values.items()
    )
    return f"of epochs {', '.join(map(str, made.values['epochs']))}: {numbers}"


def stage_lines(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The stages of this command for `--json`, in order."""
    return [
        {
            "stage": outcome.stage.kind,
            "epoch": outcome.stage.epoch,
            "key": outcome.stage.key,
            "cached": outcome.cached,
            "resumed_at": outcome.resumed_at,
            "seconds": round(outcome.seconds, 3),
        }
        for outcome in outcomes
    ]


def stopping_line(config: RunConfig, stopped: int | None) -> dict[str, int | None]:
    """`stopped_early` for `--json`, where early stopping is asked for: its epoch, or None."""
    return {} if config.early_stopping is None else {"stopped_early": stopped}


def metric_values(stage: Stage, record: StageRecord) -> dict[str, float | None]:
    """The metrics of a validation in the config's order; a record's own order is the alphabet's.

    The recalls that stand for a confusion matrix are left out: they are many, and `show --json` and
    MLflow have them.
    """
    values: dict[str, float | None] = dict(record.values["metrics"])
    names = [one if isinstance(one, str) else one["name"] for one in stage.inputs["metrics"]]

    def place(name: str) -> tuple[bool, int]:
        # A metric that gives several numbers names them `metric_part`.
        plain = name.removeprefix(EMA)
        known = [
            index for index, one in enumerate(names) if plain == one or plain.startswith(f"{one}_")
        ]
        return name.startswith(EMA), known[0] if known else len(names)

    shown = [name for name in values if not name.removeprefix(EMA).startswith(f"{MATRIX}_")]
    return {name: values[name] for name in sorted(shown, key=place)}


def epoch_rows(
    stages: Sequence[Stage],
    records: Mapping[str, StageRecord],
    outcomes: Sequence[Outcome] = (),
) -> list[EpochRow]:
    """One row for each epoch that has at least its train stage."""
    told = {(outcome.stage.kind, outcome.stage.epoch): outcome for outcome in outcomes}
    validations = {stage.epoch: stage for stage in stages if stage.kind == "validate"}
    by_place = {
        (stage.kind, stage.epoch): record
        for stage in stages
        if (record := records.get(stage.key or "")) is not None
    }
    rows = []
    for stage in stages:
        trained = by_place.get(("train", stage.epoch))
        if stage.kind != "train" or trained is None or stage.epoch is None:
            continue
        validated = by_place.get(("validate", stage.epoch))
        mined = by_place.get(("mine", stage.epoch))
        mine_values = {} if mined is None else mined.values
        own = [
            outcome
            for kind in ("train", "validate", SCORE, "mine")
            if (outcome := told.get((kind, stage.epoch))) is not None
        ]
        rows.append(
            EpochRow(
                epoch=stage.epoch,
                loss=trained.values["loss"],
                metrics={}
                if validated is None
                else metric_values(validations[stage.epoch], validated),
                gradient_norm=trained.values["gradient_norm"],
                trained=trained.values["samples"],
                kept_next=mine_values.get("kept"),
                total=mine_values.get("samples"),
                seconds=sum(outcome.seconds for outcome in own) if own else None,
                cached=all(outcome.cached for outcome in own) if own else None,
            )
        )
    return rows
