"""Which epochs runs share: all generations of the given runs as one tree of train stages.

An epoch's key holds that of the epoch before, so that equal keys are one place in the tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from epochal.data.store.store import Store
from epochal.tasks.report.page.charts.own_axes import TreeNode
from epochal.tasks.report.page.facts import changes
from epochal.tasks.report.tables import spread
from epochal.tasks.runs.find_run import FoundRun
from epochal.tasks.runs.run_plans import RunPlan, read_plans

MAX_LANES = 40
MAX_NODES = 4000
"""Epochs that are drawn; of more every second, third … one, and those where runs part."""
SHORT_KEY = 12


@dataclass(frozen=True)
class Lineage:
    """The tree, a lane for each run, and what is said of each run in words. left_out: of runs."""

    nodes: Sequence[TreeNode]
    lanes: Sequence[str]
    rows: Sequence[Sequence[str]]
    left_out: int = 0


@dataclass
class _Lane:
    """A run of the tree. keys: of its train stages; done: of those that the store has."""

    plan: RunPlan
    colour: int | None
    keys: list[str]
    done: set[str]


def lineage(runs: Sequence[FoundRun]) -> Lineage | None:
    """The tree of the given runs and of all generations of the same names; None without an epoch.

    Colours are the places of the given runs; the others have none.
    """
    found = _lanes(runs)
    lanes = [lane for lane in found if lane.keys]
    if not lanes:
        return None
    shown = sorted(lanes, key=lambda lane: lane.colour is None)[:MAX_LANES]
    lanes = [lane for lane in lanes if lane in shown]
    names: dict[str, list[str]] = {}
    for lane in lanes:
        for key in lane.keys:
            names.setdefault(key, []).append(lane.plan.reference)
    places: dict[str, int] = {}
    nodes = []
    for number, lane in enumerate(lanes):
        own = [key for key in lane.keys if places.setdefault(key, number) == number]
        drawn = set(spread(range(len(lane.keys)), most=max(2, MAX_NODES // len(lanes))))
        if own:
            drawn |= {lane.keys.index(own[0])}
        before: tuple[int, int] | None = None
        for epoch, key in enumerate(lane.keys):
            place = places[key]
            if place == number and epoch in drawn:
                nodes.append(
                    TreeNode(
                        epoch=epoch,
                        lane=number,
                        parent=before,
                        colour=lane.colour,
                        done=key in lane.done,
                        key=key[:SHORT_KEY],
                        runs=", ".join(names[key]),
                        shared=len(names[key]) > 1,
                    )
                )
            if place != number or epoch in drawn:
                before = (epoch, place)
    return Lineage(
        nodes,
        [lane.plan.reference for lane in lanes],
        [_row(lane, lanes) for lane in lanes],
        left_out=len(found) - len(lanes),
    )


def _lanes(runs: Sequence[FoundRun]) -> list[_Lane]:
    lanes: dict[tuple[str, str], _Lane] = {}
    for run in runs:
        for plan in _generations(run.store, run.plan.run):
            lanes.setdefault((run.store.url, plan.reference), _lane(plan, run))
    for colour, run in enumerate(runs):
        keys = [stage.known_key for stage in run.stages if stage.kind == "train"]
        lanes[run.store.url, run.plan.reference] = _Lane(
            run.plan, colour, keys, {key for key in keys if key in run.records}
        )
    return list(lanes.values())


def _generations(store: Store, name: str) -> list[RunPlan]:
    newest: dict[int, RunPlan] = {}
    for entry in read_plans(store, name):
        newest.setdefault(entry.plan.generation, entry.plan)
    return [newest[generation] for generation in sorted(newest)]


def _lane(plan: RunPlan, run: FoundRun) -> _Lane:
    """A generation that nobody asked for: what the store has of it."""
    keys = [stage.key for stage in plan.stages if stage.kind == "train"]
    statuses = run.stage_store.lookup([key for key in keys if key not in run.records])
    done = {key for key, status in statuses.items() if status.record is not None}
    return _Lane(plan, None, keys, done | (set(keys) & run.records.keys()))


def _row(lane: _Lane, lanes: Sequence[_Lane]) -> list[str]:
    shared = {
        other.plan.reference: count
        for other in lanes
        if other is not lane and (count := _shared(lane.keys, other.keys))
    }
    parent = next(
        (other.plan for other in lanes if other.plan.reference == lane.plan.branched_from), None
    )
    return [
        lane.plan.reference,
        f"{len(lane.done)} of {len(lane.keys)}",
        ", ".join(f"{count} with {name}" for name, count in shared.items()) or "none",
        lane.plan.branched_from or "–",
        "; ".join(changes(parent, lane.plan)) if parent is not None else "–",
    ]


def _shared(keys: Sequence[str], others: Sequence[str]) -> int:
    count = 0
    for one, other in zip(keys, others, strict=False):
        if one != other:
            break
        count += 1
    return count
