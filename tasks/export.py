"""A checkpoint's weights as a file that plain torch loads."""

from __future__ import annotations

import shutil
from pathlib import Path

from epochal.data.errors import NotFound
from epochal.data.stage_store.stages import StageRecord
from epochal.tasks.out_file import check_folder, whole_file
from epochal.tasks.runs.find_run import FoundRun


def export_weights(found: FoundRun, *, epoch: int, out: Path, artifact: str = "model") -> str:
    """Copies the weights of `epoch` to `out`, whole or not at all; gives their sha256.

    artifact: `model`, or `ema` for the average. Raises NotFound if that epoch has none,
    CorruptObject if its bytes are not what they were, InputError if `out` cannot be written.
    """
    record = found.record("train", epoch)
    if record is None:
        raise NotFound(
            f"{found.plan.reference} has no checkpoint of epoch {epoch}; it has "
            f"{found.config.epochs} epochs planned: see `epochal show {found.plan.run}`"
        )
    if artifact not in record.artifacts:
        raise NotFound(
            f"{found.plan.reference}, epoch {epoch}: no average of the weights was kept; give "
            "`ema` in the config, and train"
        )
    _copy(found, record, artifact, out=out)
    return record.artifacts[artifact].sha256


def export_average(found: FoundRun, *, out: Path) -> StageRecord:
    """Copies the average of the checkpoints to `out`, as `export_weights`; gives its record."""
    if found.config.averaging is None:
        raise NotFound(
            f"{found.plan.reference} has no average of its checkpoints; give `averaging` in the "
            "config, and train: no epoch is computed again for it"
        )
    record = found.record("average", None)
    if record is None:
        raise NotFound(
            f"{found.plan.reference} has no average yet; it comes after the last epoch: run "
            "`epochal train` to its end"
        )
    _copy(found, record, "model", out=out)
    return record


def _copy(found: FoundRun, record: StageRecord, artifact: str, *, out: Path) -> None:
    check_folder(out, option="--out")
    try:
        with (
            found.stage_store.fetch_artifact(record, artifact) as path,
            whole_file(out, option="--out") as temporary,
        ):
            shutil.copyfile(path, temporary)
    except FileNotFoundError as error:
        raise NotFound(f"{found.plan.reference}, {record.title}: {error}") from error
