"""Which stored checkpoint an epoch can begin with, where the one before it was removed."""

from __future__ import annotations

from epochal.data.errors import NotFound
from epochal.data.stage_store.stages import StageStore
from epochal.tasks.checkpoints.end_of_epoch import CHECKPOINT
from epochal.tasks.planning.run_view import RunView
from epochal.tasks.planning.stage import Stage


def nearest_checkpoint(
    run: RunView, stages: StageStore, epoch: int, *, reference: str
) -> tuple[Stage, int]:
    """The stage whose checkpoint it begins with, and the epoch that comes after it.

    reference: of the run, for the error. Raises NotFound where no checkpoint before it is left.
    """
    stage = run.stage("train", epoch)
    while (parent := stage.parents.get("parent")) is not None:
        record = run.records.get(parent.known_key)
        if record is not None:
            pruned = stages.lookup([record.key])[record.key].pruned
            if not {name for name in CHECKPOINT if name in record.artifacts} & {*pruned}:
                return parent, stage.number
        if parent.epoch is None:
            break
        stage = parent
    raise NotFound(
        f"{reference}: no checkpoint before epoch {epoch} is in the store any more, nor "
        "the initial weights; `epochal train` the run into another store, and ask there"
    )
