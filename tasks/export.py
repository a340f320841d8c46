"""A checkpoint's weights as a file that plain torch loads."""

from __future__ import annotations

import shutil
from pathlib import Path

from epochal.data.errors import NotFound
from epochal.data.stage_store.stages import StageRecord
from epochal.tasks.out_file import check_folder, whole_file
from epochal.tasks.runs.find_run import FoundRun


def export_weights(run: FoundRun, *, epoch: int, out: Path, artifact: str = "model") -> str:
    """Copies the weights of `epoch` to `out`, whole or not at all; gives their sha256.

    artifact: `model`, or `ema` for the average. Raises NotFound if that epoch has none,
    CorruptObject if its bytes are not what they were, InputError if `out` cannot be written.
    """
    record = run.record("train", epoch)
    if record is None:
        raise NotFound(
            f"{run.plan.reference} has no checkpoint of epoch {epoch}; it has "
            f"{run.config.epochs} epochs planned: see `epochal show {run.plan.run}`"
        )
    if artifact not in record.artifacts:
        raise NotFound(
            f"{run.plan.reference}, epoch {epoch}: no average of the weights was kept; give "
            "`ema` in the config, and train"
        )
    _copy(run, record, artifact, out=out)
    return record.artifacts[artifact].sha256


def export_average(run: FoundRun, *, out: Path) -> StageRecord:
    """Copies the average of the checkpoints to `out`, as `export_weights`; gives its record."""
    if run.config.averaging is None:
        raise NotFound(
            f"{run.plan.reference} has no average of its checkpoints; give `averaging` in the "
            "config, and train: no epoch is computed again for it"
        )
    record = run.record("average", None)
    if record is None:
        raise NotFound(
            f"{run.plan.reference} has no average yet; it comes after the last epoch: run "
            "`epochal train` to its end"
        )
    _copy(run, record, "model", out=out)
    return record


def _copy(run: FoundRun, record: StageRecord, artifact: str, *, out: Path) -> None:
    check_folder(out, option="--out")
    try:
        with (
            run.stage_store.fetch_artifact(record, artifact) as path,
            whole_file(out, option="--out") as temporary,
        ):
            shutil.copyfile(path, temporary)
    except FileNotFoundError as error:
        raise NotFound(f"{run.plan.reference}, {record.title}: {error}") from error
