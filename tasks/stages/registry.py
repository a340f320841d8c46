"""The kinds of stage, in the order in which they come, and the list of a run's stages.

The list follows from the config and what is known of its inputs alone: nothing runs for it, and
nothing heavy is imported.
"""

from __future__ import annotations

from collections.abc import Mapping

from epochal.data.stage_store.records import StageRecord
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.stage import RunInputs, Stage
from epochal.tasks.stages.average import AVERAGE, VALIDATE_AVERAGE
from epochal.tasks.stages.initialise import INITIALISE
from epochal.tasks.stages.kind import Listing, StageKind
from epochal.tasks.stages.mine import MINE
from epochal.tasks.stages.score import SCORE
from epochal.tasks.stages.train import TRAIN
from epochal.tasks.stages.validate import VALIDATE

KINDS: dict[str, StageKind] = {
    kind.name: kind
    for kind in (INITIALISE, TRAIN, VALIDATE, SCORE, MINE, AVERAGE, VALIDATE_AVERAGE)
}


def list_stages(config: RunConfig, run_inputs: RunInputs) -> list[Stage]:
    """All stages in the order in which they run."""
    listing = Listing(config, run_inputs)
    for kind in KINDS.values():
        if kind.when == "start":
            listing.add(kind, None)
    in_epoch = [kind for kind in KINDS.values() if kind.when == "epoch"]
    for epoch in range(config.epochs):
        for kind in in_epoch:
            listing.add(kind, epoch)
    for kind in KINDS.values():
        if kind.when == "end":
            listing.add(kind, None)
    return listing.stages


def loaded(stage: Stage, role: str, records: Mapping[str, StageRecord]) -> tuple[str, ...]:
    """The artifacts that `stage` loads of its parent in that role, where the parent has them."""
    return tuple(KINDS[stage.kind].loads(stage, role, records))
