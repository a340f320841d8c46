"""What the epochs of a run have cost, read from the side files of its stages.

A store of an older version has none; of some stages they may be missing or damaged. What is there
is counted, and how many stages have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from epochal.data.errors import CorruptObject
from epochal.data.stage_store.records import StageRecord
from epochal.data.stage_store.stages import StageStore
from epochal.tasks.goodput.stopwatch import CAUSES, PRODUCTIVE, Cause
from epochal.tasks.goodput.totals import GOODPUT, Totals, checked_totals, total
from epochal.tasks.planning.run_view import RunView


@dataclass(frozen=True)
class RunGoodput:
    """epochs: epoch → what its stages have cost together. whole: all stages of the run.

    A stage that the run shares with another one counts in both: it is what the epochs took, not
    what one command took. unknown: stages that are done, and of which nothing is known.
    """

    epochs: Mapping[int, Totals]
    whole: Totals
    unknown: int = 0

    def as_object(self) -> dict[str, Any]:
        """For `--json`: under `run` all of it, under `epochs` each one."""
        return {
            "run": shown(self.whole),
            "epochs": [{"epoch": epoch, **shown(one)} for epoch, one in self.epochs.items()],
            "unknown_stages": self.unknown,
        }


def stage_goodput(stages: StageStore, key: str) -> Totals | None:
    """What the stage has cost, or None where nothing is known of it. Raises CorruptObject."""
    body = stages.read_side_file(key, GOODPUT)
    return None if body is None else checked_totals(body)


def run_goodput(run: RunView, stages: StageStore) -> RunGoodput | None:
    """What the run's stages have cost, or None where nothing is known of any.

    A side file that is damaged counts as missing: `epochal verify` names it.
    """

    def read(key: str) -> Totals | None:
        try:
            return stage_goodput(stages, key)
        except CorruptObject:
            return None

    done = [stage for stage in run.needed if run.is_done(stage)]
    found = stages.store.map(read, [stage.known_key for stage in done])
    known = [(stage, one) for stage, one in zip(done, found, strict=True) if one is not None]
    if not known:
        return None
    epochs: dict[int, Totals] = {}
    for stage, one in known:
        if stage.epoch is not None:
            epochs[stage.epoch] = epochs.get(stage.epoch, Totals()) + one
    return RunGoodput(
        dict(sorted(epochs.items())), total(one for _, one in known), len(done) - len(known)
    )


def shown(totals: Totals) -> dict[str, Any]:
    """All that is known and what follows from it, as JSON; None for what is not known."""
    return {
        "seconds": {cause: round(totals.seconds.get(cause, 0.0), 6) for cause in CAUSES},
        "wall_seconds": round(totals.wall_seconds, 6),
        "goodput": totals.share,
        "samples": totals.samples,
        "samples_per_second": totals.samples_per_second,
        "resumed": totals.resumed,
        "unknown_losses": totals.unknown_losses,
        "peak_host_bytes": totals.peak_host_bytes,
        "peak_child_bytes": totals.peak_child_bytes,
        "peak_device_bytes": totals.peak_device_bytes,
        "flops": totals.flops,
        "flops_utilisation": totals.flops_utilisation,
    }


def other_causes(totals: Totals) -> list[tuple[Cause, float]]:
    """Causes that moved no weights, with their seconds, the longest first."""
    others = [(cause, spent) for cause, spent in totals.seconds.items() if cause not in PRODUCTIVE]
    return sorted(others, key=lambda one: -one[1])


def goodput_points(record: StageRecord, totals: Totals) -> dict[str, float | None]:
    """The numbers of a stage under their names in MLflow.

    Of an epoch's training each cause that took time; of any other stage the time of all of it.
    """
    if record.stage != "train":
        return {f"goodput/{record.stage}_stage_seconds": totals.wall_seconds}
    return {
        **{f"goodput/{cause}_seconds": spent for cause, spent in totals.seconds.items()},
        "goodput/share": totals.share,
        "goodput/samples_per_second": totals.samples_per_second,
        "goodput/flops_utilisation": totals.flops_utilisation,
        "goodput/peak_host_bytes": totals.peak_host_bytes,
        "goodput/peak_device_bytes": totals.peak_device_bytes,
    }
