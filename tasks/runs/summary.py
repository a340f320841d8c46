"""What a run came to: one object for `--json`, one row per epoch for people."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from epochal.data.documents import load_document
from epochal.data.errors import CorruptObject
from epochal.data.store.store import Store
from epochal.engine.config.numerics import EMA
from epochal.tasks.planning.run_view import RunView
from epochal.tasks.reporting import Outcome
from epochal.tasks.stages.registry import KINDS
from epochal.tasks.stages.validate import metric_values

MAX_ATTEMPTS = 50
MAX_ATTEMPT_BYTES = 1 << 20
_ATTEMPT = re.compile(r"[0-9]{1,16}-[0-9a-f]{8}\.json")


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


def flat_metrics(run: RunView) -> dict[str, float | None]:
    """`validation/…`, `train/…` and `sampling/…`, each of the last epoch that has it, and more.

    `best/…` of the best epoch, `average/…` of the averaged checkpoints.
    """
    metrics: dict[str, float | None] = {}
    for stage in run.needed:
        if run.is_done(stage):
            metrics |= KINDS[stage.kind].metrics(run.record_of(stage).values)
    if (best := run.best) is not None:
        metrics[f"best/{best.metric}"] = best.value
        metrics["best/epoch"] = best.epoch
    if (best := run.best_of_ema) is not None:
        metrics[f"best/{best.metric}"] = best.value
        metrics[f"best/{EMA}epoch"] = best.epoch
    return metrics


def stage_lines(run: RunView, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The stages of this command for `--json`, in the plan's order.

    A stage that was found damaged is computed after some that come behind it.
    """
    place = {stage.key: number for number, stage in enumerate(run.stages)}
    return [
        {
            "stage": outcome.stage.kind,
            "epoch": outcome.stage.epoch,
            "key": outcome.stage.key,
            "cached": outcome.cached,
            "resumed_at": outcome.resumed_at,
            "seconds": round(outcome.seconds, 3),
        }
        for outcome in sorted(outcomes, key=lambda outcome: place[outcome.stage.key])
    ]


def last_attempts(store: Store, run: str) -> dict[str, int]:
    """`name@generation` → when the newest command that computed for it began, in ms since 1970.

    As far as the newest `MAX_ATTEMPTS` commands tell.
    """
    folder = f"runs/{run}/attempts"
    paths = [path for path in store.listing(folder) if _ATTEMPT.fullmatch(path.rpartition("/")[2])]
    newest = sorted(paths, key=lambda path: int(path.rpartition("/")[2].partition("-")[0]))
    found: dict[str, int] = {}
    for body in store.map(partial(_attempt, store), newest[-MAX_ATTEMPTS:]):
        if isinstance(plan := body.get("plan"), str):
            found[plan] = body["started_ms"]
    return found


def _attempt(store: Store, path: str) -> dict[str, Any]:
    """What a command has noted of itself; nothing where that cannot be read."""
    try:
        body = load_document(store.read(path, max_bytes=MAX_ATTEMPT_BYTES), name=path)
    except (FileNotFoundError, CorruptObject):
        return {}
    return body if isinstance(body.get("started_ms"), int) else {}


def stopping_line(run: RunView) -> dict[str, int | None]:
    """`stopped_early` for `--json`, where early stopping is asked for: its epoch, or None."""
    return {} if run.config.early_stopping is None else {"stopped_early": run.stopped_after}


def epoch_rows(run: RunView, outcomes: Sequence[Outcome] = ()) -> list[EpochRow]:
    """One row for each epoch that has at least its train stage."""
    told: dict[int | None, list[Outcome]] = {}
    for outcome in outcomes:
        told.setdefault(outcome.stage.epoch, []).append(outcome)
    needed = {stage.key for stage in run.needed}
    validated = {
        stage.epoch: metric_values(stage, record) for stage, record in run.of_kind("validate")
    }
    mined = {stage.epoch: record.values for stage, record in run.of_kind("mine")}
    rows = []
    for stage, record in run.of_kind("train"):
        if stage.key not in needed:
            continue
        trained, plan = record.values, mined.get(stage.epoch, {})
        own = told.get(stage.epoch, [])
        rows.append(
            EpochRow(
                epoch=stage.number,
                loss=trained["loss"],
                metrics=validated.get(stage.epoch, {}),
                gradient_norm=trained["gradient_norm"],
                trained=trained["samples"],
                kept_next=plan.get("kept"),
                total=plan.get("samples"),
                seconds=sum(outcome.seconds for outcome in own) if own else None,
                cached=all(outcome.cached for outcome in own) if own else None,
            )
        )
    return rows
