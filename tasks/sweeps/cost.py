"""What a sweep will cost, from the seconds of like stages: nothing is guessed.

Two stages are like if they do the same work on the same numbers of the same size: the same model,
data, batches and passes, whatever the rate, the seed or the epoch. Their seconds are what stages of
the sweep itself and of other runs in its store have taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from statistics import median
from typing import Any

from epochal.data.errors import CorruptObject
from epochal.data.hashing import digest
from epochal.data.stage_store.stages import StageStore
from epochal.data.types import in_key
from epochal.tasks.config.run import RunConfig
from epochal.tasks.goodput.run import stage_goodput
from epochal.tasks.runs.run_plans import newest_plan, run_names
from epochal.tasks.sweeps.tree import Tree

MAX_RUNS = 50  # of the store, that are looked through
MAX_STAGES = 20  # of one kind and likeness, whose seconds are read
_SAME_WORK = (
    "model", "train_data", "validation_data", "loss", "step", "loader", "batches", "augment",
    "mixing", "ema", "precision", "metrics", "validation", "gradients", "device", "threads",
)  # fmt: skip
"""Fields that say how much work a stage is."""
Likeness = tuple[str, str]
"""Kind of a stage, and a digest of what says how much work it is."""


@dataclass(frozen=True)
class Cost:
    """What is left of a sweep.

    seconds: of the stages whose like has been timed, one after the other. epochs: of training that
    are left; unknown: those of them that nothing is known of. timed: how many stages the seconds
    were taken from.
    """

    seconds: float
    epochs: int
    unknown: int
    timed: int

    @property
    def known_seconds(self) -> float | None:
        """Of all that is left; None where it is not known of every epoch."""
        return None if self.unknown else self.seconds


def likeness(config: RunConfig) -> str:
    """Equal for runs whose stages of one kind are equally much work."""
    fields = config.model_dump(mode="json", include={*_SAME_WORK})
    optimizer = {"target": config.optimizer.target, "groups": len(config.optimizer.groups or ())}
    return digest(
        "same-work", in_key({**fields, "optimizer": optimizer, "policy": config.sampling.policy})
    )


def cost_of(tree: Tree) -> Cost:
    """What the stages of all runs that are not done will cost."""
    like = {name: likeness(run.view.config) for name, run in tree.runs.items()}
    left: dict[str, Likeness] = {}
    done: dict[Likeness, list[str]] = {}
    for name, run in tree.runs.items():
        for number, stage in enumerate(run.view.needed):
            key, kind = stage.key or f"{name} {number}", (stage.kind, like[name])
            if key in tree.records:
                done.setdefault(kind, []).append(key)
            else:
                left.setdefault(key, kind)
    wanted = {*left.values()}
    for kind, key in _of_other_runs(tree) if wanted else ():
        if kind in wanted:
            done.setdefault(kind, []).append(key)
    times = {kind: _seconds(tree.stage_store, done.get(kind, [])) for kind in wanted}
    trained = [kind for kind in left.values() if kind[0] == "train"]
    return Cost(
        seconds=sum(median(times[kind]) for kind in left.values() if times[kind]),
        epochs=len(trained),
        unknown=sum(not times[kind] for kind in trained),
        timed=sum(len(times[kind]) for kind in {*trained}),
    )


def _of_other_runs(tree: Tree) -> Iterator[tuple[Likeness, str]]:
    """Likeness and key of the stages that other runs of the store have planned."""
    store = tree.stage_store.store
    names: list[str] = []
    with suppress(CorruptObject):
        names = [name for name in run_names(store.listing("runs")) if name not in tree.runs]
    for name in islice(names, MAX_RUNS):
        plan = None
        with suppress(CorruptObject):  # another run's folder may be anything
            plan = newest_plan(store, name)
        config = None if plan is None else plan.run_config()
        if plan is None or config is None:
            continue
        like = likeness(config)
        for stage in plan.stages:
            yield (stage.kind, like), stage.key


def _seconds(stages: StageStore, keys: list[str]) -> list[float]:
    """What the last of these stages have taken, as far as it is known."""

    def read(key: str) -> float | None:
        try:
            totals = stage_goodput(stages, key)
        except CorruptObject:
            return None
        return None if totals is None else totals.wall_seconds

    found = stages.store.map(read, list(dict.fromkeys(keys))[-MAX_STAGES:])
    return [one for one in found if one is not None]


def plan_of_sweep(tree: Tree, cost: Cost, *, to_come: int) -> dict[str, Any]:
    """The plan of a sweep as `epochal plan --json` prints it.

    to_come: runs that are proposed once there are results.
    """
    runs: list[Mapping[str, Any]] = [
        {
            "run": name,
            "set": dict(run.member.set),
            "epochs": run.epochs,
            "done": run.epochs_done,
        }
        for name, run in tree.runs.items()
    ]
    unread = [name for run in tree.runs.values() for name in run.unread]
    return {
        "runs": runs,
        "epochs": {
            "distinct": tree.epochs_distinct,
            "sum": tree.epochs_sum,
            "done": tree.epochs_done,
        },
        "seconds": cost.known_seconds,
        "runs_to_come": to_come,
        "data_not_read": list(dict.fromkeys(unread)),
    }
