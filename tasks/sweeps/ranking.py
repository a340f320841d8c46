"""Which run is better, and which ones go on: pure functions of what validations have measured.

The decisions of successive halving hold no state and are in no key: the same records give the same
ones in any command, whatever was killed in between.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from epochal.data.errors import ConfigError
from epochal.engine.config.numerics import EMA, MetricsConfig
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.run_view import BestEpoch, RunView
from epochal.tasks.sweeps.config import HalvingConfig

Mode = Literal["max", "min"]


@dataclass(frozen=True)
class Measure:
    """A metric of validation, and which way it is better."""

    metric: str
    mode: Mode

    @property
    def sign(self) -> int:
        """What its values are multiplied by so that the smallest is best."""
        return 1 if self.mode == "min" else -1

    def best(self, view: RunView) -> BestEpoch | None:
        """The best epoch of a run by it; None where none was validated with a finite value."""
        return next(iter(self._validated(view)), None)

    def last(self, view: RunView) -> BestEpoch | None:
        """Its value in the last epoch that was validated with a finite one; None if none was."""
        found = self._validated(view)
        return max(found, key=lambda one: one.epoch, default=None)

    def _validated(self, view: RunView) -> list[BestEpoch]:
        metrics = view.config.metrics.model_copy(
            update={"best": self.metric, "best_mode": self.mode}
        )
        return view.validated(metrics)

    def at(self, view: RunView, epochs: int) -> float | None:
        """Its value after so many epochs, or after the last that the run has."""
        validations = [stage for stage in view.needed if stage.kind == "validate"]
        last = next((one for one in reversed(validations) if one.number < epochs), None)
        if last is None or not view.is_done(last):
            return None
        value = view.record_of(last).values["metrics"].get(self.metric)
        return None if value is None else float(value)


def measure_of(
    config: RunConfig, *, metric: str | None, mode: Mode | None, place: str = ""
) -> Measure:
    """The measure, as far as it is given; else that of the run. Raises ConfigError.

    place: of the fields in the sweep, before their names.
    """
    metrics: MetricsConfig = config.metrics
    name = (metric or metrics.best_metric).removeprefix("validation/")
    measured = metrics.numbers
    if config.ema is not None:
        measured = (*measured, *(EMA + one for one in measured))
    if name not in measured:
        raise ConfigError(
            f"{place}metric: {name!r} is not measured; there is {', '.join(measured)}"
        )
    own = metrics.best_mode if name == metrics.best_metric else None
    known = metrics.model_copy(update={"best": name, "best_mode": mode or own}).best_direction
    return Measure(name, known)


def sorted_by(measure: Measure, values: Mapping[str, float | None]) -> list[str]:
    """The runs, best first; of equals the earlier one; last those without a finite value."""

    def place(name: str) -> float:
        value = values[name]
        return math.inf if value is None or not math.isfinite(value) else measure.sign * value

    return sorted(values, key=place)


@dataclass(frozen=True)
class Halved:
    """What successive halving says now.

    goals: run → number of epochs that it is to have next; None: all. stopped: run → the rung that
    it is stopped at.
    """

    goals: Mapping[str, int | None]
    stopped: Mapping[str, int]


def halved(
    config: HalvingConfig,
    views: Mapping[str, RunView],
    measure: Measure,
    *,
    failed: frozenset[str] = frozenset(),
) -> Halved:
    """Which runs go on, and how far.

    views: in the order of the sweep. failed: runs that cannot go on; they count as the worst.
    Runs of a rung are compared once all of them have reached it.
    """
    alive, stopped = list(views), dict[str, int]()
    for rung in config.rungs:
        behind = [name for name in alive if name not in failed and not reached(views[name], rung)]
        if behind:
            return Halved(dict.fromkeys(behind, rung), stopped)
        values = {name: None if name in failed else measure.at(views[name], rung) for name in alive}
        kept = {*sorted_by(measure, values)[: kept_of(len(alive), config.factor)]}
        stopped |= {name: rung for name in alive if name not in kept and name not in failed}
        alive = [name for name in alive if name in kept]
    return Halved({name: None for name in alive if name not in failed}, stopped)


def kept_of(count: int, factor: float) -> int:
    """How many of so many runs go on; at least one."""
    return max(1, math.ceil(count / factor - 1e-9))  # 9 / 3.0000000001 is 3


def reached(view: RunView, epochs: int) -> bool:
    """Whether the run has been trained and validated so far, or to its end."""
    wanted: Sequence[str] = ("train", "validate")
    return all(
        view.is_done(stage)
        for stage in view.needed
        if stage.kind in wanted and stage.number < epochs
    )
