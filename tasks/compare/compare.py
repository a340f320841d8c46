"""Runs side by side: fields, code and data that differ, shared epochs, metrics, where they part.

Reads records, and of the tables only the updates of the epoch in which the runs part.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from epochal.data.errors import InputError
from epochal.data.secrets import masked
from epochal.tasks.config.run import flatten
from epochal.tasks.runs.explain import source_changes
from epochal.tasks.runs.find_run import FoundRun
from epochal.tasks.runs.run_plans import RunPlan, shared_epochs
from epochal.tasks.runs.summary import epoch_rows, flat_metrics
from epochal.tasks.why.updates import TrainedEpoch, read_updates

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# U updates of an epoch

MAX_RUNS = 32
NO_PART_OF_A_RUN = frozenset({"name", "folder", "store"})
"""Fields that say which run it is and where it lies, not how it trains."""
MAX_PARTING_EPOCHS = 3
"""Epochs from the first that is not shared on in which the first unequal update is looked for."""


@dataclass(frozen=True)
class Parting:
    """Where the numbers of runs part. epoch: the first that they do not share.

    update: of the run, from 1: the first at which some metric of it differs; metrics: each that
    differs within that epoch → its first such update.
    """

    epoch: int
    update: int
    metrics: Mapping[str, int]


@dataclass(frozen=True)
class Comparison:
    """Runs against each other; each list has a value for each run, in their order.

    differs: path of the config → values, None where a run has no such field. code: what of code and
    data is not as in the first run, for each of the others. shared: epochs that each shares with
    the first. curves: metric → its value in each epoch, for each run.
    """

    runs: Sequence[FoundRun]
    differs: Mapping[str, Sequence[Any]]
    code: Sequence[Sequence[str]]
    shared_epochs: int
    shared: Sequence[int]
    metrics: Mapping[str, Sequence[float | None]]
    curves: Mapping[str, Sequence[Sequence[float | None]]]
    parting: Parting | None

    @property
    def names(self) -> list[str]:
        """`name@generation` of each."""
        return [run.plan.reference for run in self.runs]

    def as_object(self) -> dict[str, Any]:
        """As `--json` prints it."""
        parting = self.parting
        return {
            "runs": self.names,
            "differs": {path: list(values) for path, values in self.differs.items()},
            "code": {
                name: list(changes)
                for name, changes in zip(self.names[1:], self.code, strict=True)
                if changes
            },
            "shared_epochs": self.shared_epochs,
            "shared_with_first": list(self.shared),
            "epochs_done": [len(epoch_rows(run)) for run in self.runs],
            "metrics": {name: list(values) for name, values in self.metrics.items()},
            "parting": None
            if parting is None
            else {
                "epoch": parting.epoch,
                "update": parting.update,
                "metrics": dict(parting.metrics),
            },
            "epochs": {name: [list(one) for one in curve] for name, curve in self.curves.items()},
        }


def compare_runs(runs: Sequence[FoundRun]) -> Comparison:
    """What differs between the runs. Raises InputError for fewer than two, CorruptObject."""
    if not 1 < len(runs) <= MAX_RUNS:
        raise InputError(f"compare: found {len(runs)} RUN; expected 2 to {MAX_RUNS}")
    places = [(run.store.url, run.plan.reference) for run in runs]
    twice = next((place for place in places if places.count(place) > 1), None)
    if twice is not None:
        raise InputError(f"compare: {twice[1]} is named twice; leave one of the two out")
    first = runs[0]
    shared = [shared_epochs(run.plan.stages, first.plan.stages) for run in runs]
    common = min(shared[1:])
    return Comparison(
        runs=runs,
        differs=_differing_fields(runs),
        code=[_code_changes(first.plan, run.plan) for run in runs[1:]],
        shared_epochs=common,
        shared=shared,
        metrics=_side_by_side([flat_metrics(run) for run in runs]),
        curves=_curves(runs),
        parting=_parting(runs, common),
    )


def _differing_fields(runs: Sequence[FoundRun]) -> dict[str, list[Any]]:
    configs = [
        {
            path: masked(value) if isinstance(value, str) else value
            for path, value in flatten(run.config.model_dump(mode="json"))
            if path.partition(".")[0] not in NO_PART_OF_A_RUN
        }
        for run in runs
    ]
    paths = dict.fromkeys(path for config in configs for path in config)
    found = {}
    for path in paths:
        values = [config.get(path) for config in configs]
        if any(value != values[0] for value in values):
            found[path] = values
    return found


def _code_changes(then: RunPlan, now: RunPlan) -> list[str]:
    """What of code, files and data the second was planned from that the first was not."""
    changes: list[str] = []
    for name in sorted(then.sources.keys() & now.sources.keys()):
        changes += source_changes(
            name, then.sources[name], now.sources[name], (then.definitions, now.definitions)
        )
    changes += [
        f"{name}: other files"
        for name in sorted({**then.files, **now.files})
        if then.files.get(name, {}) != now.files.get(name, {})
    ]
    changes += [
        f"{name}: other content"
        for name in ("train_data", "validation_data", "scoring_data")
        if None not in (old := getattr(then, name), new := getattr(now, name)) and old != new
    ]
    return changes


def _side_by_side(
    metrics: Sequence[Mapping[str, float | None]],
) -> dict[str, list[float | None]]:
    names = dict.fromkeys(name for one in metrics for name in one)
    return {name: [one.get(name) for one in metrics] for name in names}


def _curves(runs: Sequence[FoundRun]) -> dict[str, list[list[float | None]]]:
    rows = [epoch_rows(run) for run in runs]
    named = [
        [
            {"train/loss": row.loss}
            | {f"validation/{name}": value for name, value in row.metrics.items()}
            for row in of_run
        ]
        for of_run in rows
    ]
    names = dict.fromkeys(name for of_run in named for row in of_run for name in row)
    return {name: [[row.get(name) for row in of_run] for of_run in named] for name in names}


def _parting(runs: Sequence[FoundRun], shared: int) -> Parting | None:
    """None while not all of the runs have trained the epoch, and where their numbers are equal."""
    for epoch in range(shared, shared + MAX_PARTING_EPOCHS):
        read = []
        for run in runs:
            record = run.record("train", epoch)
            if record is None:
                return None
            last = record.values["updates_done"]
            one = TrainedEpoch(epoch, last - record.values["updates"] + 1, last, record)
            read.append((one.first, read_updates(run, one).columns))
        found = _unequal(read)
        if found:
            return Parting(epoch, min(found.values()), found)
    return None


def _unequal(
    read: Sequence[tuple[int, Mapping[str, npt.NDArray[np.float64]]]],
) -> dict[str, int]:
    """Metric → the first update at which it differs; earliest first. Of metrics that all have."""
    import numpy as np

    first, columns = read[0]
    found = {}
    for name, one_U in columns.items():
        others = [other[name] for _, other in read[1:] if name in other]
        if len(others) < len(read) - 1:
            continue
        count = min(map(len, (one_U, *others)))
        same_U = np.ones(count, dtype=bool)
        for other_U in others:
            same_U &= np.isclose(one_U[:count], other_U[:count], rtol=0, atol=0, equal_nan=True)
        if not same_U.all():
            found[name] = first + int(np.argmin(same_U))
    return dict(sorted(found.items(), key=lambda one: one[1]))


def alike(curve: Sequence[Sequence[float | None]]) -> bool:
    """Whether the values of all runs are the same, as far as each goes."""
    return all(
        len({*values} - {None}) <= 1 for values in itertools.zip_longest(*curve, fillvalue=None)
    )
