"""The rows of the views `runs` and `epochs`: out of records alone, no table is read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from epochal.tasks.runs.find_run import FoundRun
from epochal.tasks.runs.summary import epoch_rows, flat_metrics

RUNS = (
    "run", "generation", "epochs", "epochs_done", "updates", "stopped_early", "branched_from",
    "shared_epochs", "best_epoch", "weights_sha256", "config",
)  # fmt: skip
"""Columns that `runs` has whatever is measured; behind them come the metrics."""
EPOCHS = (
    "run", "generation", "epoch", "train_loss", "train_accuracy", "gradient_norm", "clip_rate",
    "spikes", "samples", "updates", "updates_done", "updates_skipped", "kept_next", "key",
)  # fmt: skip
_OTHERS = re.compile(r"\W+")
_OF_TRAINING = {
    "train_loss": "loss",
    "train_accuracy": "accuracy",
    **dict.fromkeys(("gradient_norm", "clip_rate", "spikes", "samples", "updates", "updates_done")),
    "updates_skipped": None,
}
"""Column of `epochs` → value of a train record, where it is named otherwise."""

Rows = tuple[Sequence[str], list[dict[str, Any]]]


def run_rows(runs: Sequence[FoundRun]) -> Rows:
    """Columns, and a row for each generation of each run: `run`, how far it is, its last metrics.

    Metrics are named as in `--json`, with `_` for what is no letter: `validation_accuracy`.
    """
    rows = []
    for run in runs:
        metrics = {name_of(name): value for name, value in flat_metrics(run).items()}
        best = run.best
        trained = [record for _, record in run.of_kind("train")]
        rows.append(
            {
                **metrics,
                "run": run.plan.run,
                "generation": run.plan.generation,
                "epochs": run.config.epochs,
                "epochs_done": len(epoch_rows(run)),
                "updates": trained[-1].values["updates_done"] if trained else 0,
                "stopped_early": run.stopped_after,
                "branched_from": run.plan.branched_from,
                "shared_epochs": run.plan.shared_epochs,
                "best_epoch": None if best is None else best.epoch,
                "weights_sha256": run.weights_sha256,
                "config": json.dumps(run.plan.config, allow_nan=False),
            }
        )
    return _columns(RUNS, rows), rows


def epoch_rows_of(runs: Sequence[FoundRun]) -> Rows:
    """Columns, and a row for each trained epoch of each run: what its records have."""
    rows = []
    for run in runs:
        validated = {stage.number: record.values for stage, record in run.of_kind("validate")}
        mined = {stage.number: record.values for stage, record in run.of_kind("mine")}
        for stage, record in run.of_kind("train"):
            values: Mapping[str, Any] = record.values
            metrics = validated.get(stage.number, {}).get("metrics", {})
            rows.append(
                {
                    **{name_of(f"validation/{name}"): value for name, value in metrics.items()},
                    "run": run.plan.run,
                    "generation": run.plan.generation,
                    "epoch": stage.number,
                    **{name: values.get(of or name) for name, of in _OF_TRAINING.items()},
                    "kept_next": mined.get(stage.number, {}).get("kept"),
                    "key": record.key,
                }
            )
    return _columns(EPOCHS, rows), rows


def _columns(first: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys([*first, *(name for row in rows for name in row)]))


def name_of(metric: str) -> str:
    """A metric as the name of a column that needs no quotes: `validation/ema/loss` with `_`."""
    return _OTHERS.sub("_", metric).strip("_").lower()
