"""`SweepConfig`: what varies between the runs of a sweep, and how they are worked on.

No torch, no Prefect, no MLflow, no Optuna.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from epochal.data.types import Args, Frozen, Target
from epochal.tasks.config.run import DEVICE

MAX_RUNS = 10_000
MAX_SWEEP_NAME = 60
SWEEP_NAME = rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_SWEEP_NAME - 1}}}"
"""As a run's, and shorter: its runs' names go on from there."""
NOT_VARIED = {
    "store": "all runs of a sweep share one store, in which they find each other's epochs",
    "folder": "all runs of a sweep have the same code",
    "tracking": "all runs of a sweep are children of one run in MLflow",
    "targets_allowed": "it is about the form of a deployment",
}
"""Fields that no run of a sweep may have for itself, and why."""


class Distribution(Frozen):
    """Where a value is drawn from: exactly one of its first five fields is given."""

    uniform: tuple[float, float] | None = Field(
        default=None, description="lowest and highest value; each between them is as likely"
    )
    log_uniform: tuple[float, float] | None = Field(
        default=None, description="lowest and highest value above 0; each magnitude is as likely"
    )
    integer: tuple[int, int] | None = Field(
        default=None, alias="int", description="lowest and highest whole number, both among them"
    )
    log_integer: tuple[int, int] | None = Field(
        default=None,
        alias="log_int",
        description="lowest and highest whole number from 1; each magnitude is as likely",
    )
    choice: tuple[Any, ...] | None = Field(
        default=None, min_length=1, description="the values themselves, each as likely"
    )

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        given = [name for name, _ in self.given]
        if len(given) != 1:
            found = ", ".join(given) or "none of them"
            raise ValueError(
                "expected one of uniform, log_uniform, int, log_int and choice, found " + found
            )
        if self.bounds is not None:
            low, high = self.bounds
            if not low < high:
                raise ValueError(f"{given[0]}: {low:g} is not below {high:g}")
            if self.log and low <= 0:
                raise ValueError(f"{given[0]}: {low:g} has no magnitude; expected more than 0")
        return self

    @property
    def given(self) -> list[tuple[str, Any]]:
        """The fields that are given, by the names that a file gives them."""
        fields = type(self).model_fields
        return [(fields[name].alias or name, value) for name, value in self if value is not None]

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Lowest and highest value; None for a choice."""
        return self.uniform or self.log_uniform or self.integer or self.log_integer

    @property
    def log(self) -> bool:
        """Whether each magnitude is as likely."""
        return self.log_uniform is not None or self.log_integer is not None

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return self.integer is not None or self.log_integer is not None

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that a config must take for every drawn one to be one that it takes."""
        return self.bounds or self.choice or ()


class RandomConfig(Frozen):
    """Values drawn at random. A run's values depend on the seed and its number alone."""

    runs: int = Field(ge=1, le=MAX_RUNS, description="number of runs")
    seed: int = Field(default=0, ge=0, lt=2**63, description="of the draws")


class OptunaConfig(Frozen):
    """Values proposed by Optuna from the results so far; needs `pip install 'epochal[optuna]'`."""

    trials: int = Field(ge=1, le=MAX_RUNS, description="number of runs")
    at_once: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="runs that are proposed together, before any of them has a result; the same "
        "number gives the same proposals, whatever `concurrency` is",
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="of the sampler")
    sampler: Target = Field(
        default=Target.as_usual(target="optuna.samplers:TPESampler"),
        description="a sampler of Optuna that takes `seed`",
    )


class HalvingConfig(Frozen):
    """Successive halving: after each rung the worst runs stop, and the others go on.

    Jamieson & Talwalkar 2016 (arXiv:1502.07943). What a stopped run has trained stays.
    """

    rungs: tuple[int, ...] = Field(
        min_length=1, description="numbers of epochs, rising, after which the runs are compared"
    )
    factor: float = Field(
        default=3.0, gt=1, description="of so many runs one goes on, rounded up: 9, 3, 1"
    )
    metric: str | None = Field(
        default=None, description="what they are compared by; none: the sweep's metric"
    )
    mode: Literal["max", "min"] | None = Field(
        default=None, description="whether its largest or smallest value is best; none: as known"
    )

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if list(self.rungs) != sorted(set(self.rungs)) or self.rungs[0] < 1:
            raise ValueError(f"rungs: {list(self.rungs)} are not rising numbers from 1")
        return self


class SweepConfig(Frozen):
    """One sweep: a run's config, and what its runs have of their own."""

    name: str | None = Field(
        default=None,
        pattern=f"^{SWEEP_NAME}$",
        description="the sweep's name, with which its runs' names begin; none: the run's",
    )
    run: str = Field(
        min_length=1,
        max_length=2000,
        description="path of the run's config, relative to this file",
        examples=["run.yaml"],
    )
    set: Args = Field(
        default_factory=dict,
        description="fields of the run's config, by dotted names, with the value they have in all "
        "runs of the sweep",
        examples=[{"epochs": 24}],
    )
    vary: Args | None = Field(
        default=None,
        description="field of the run's config → its values: a list for each gives a grid, in this "
        "order; with `random` or `optuna` also a distribution",
        examples=[{"optimizer.args.lr": [0.001, 0.01]}],
    )
    runs: tuple[Args, ...] | None = Field(
        default=None,
        description="instead of `vary`: for each run its fields and their values; `name` is its "
        "name",
    )
    random: RandomConfig | None = Field(
        default=None, description="draws values at random; none: every combination"
    )
    optuna: OptunaConfig | None = Field(
        default=None, description="lets Optuna propose values by what came before; none: it is not "
        "asked"
    )  # fmt: skip
    metric: str | None = Field(
        default=None,
        description="of validation, by which runs are sorted and proposed; none: the run's "
        "`metrics.best`",
    )
    mode: Literal["max", "min"] | None = Field(
        default=None,
        description="whether its largest or smallest value is best; none: as `metrics.best_mode` "
        "has it",
    )
    by: Literal["last", "best"] = Field(
        default="last",
        description="which epoch of a run its value is of: its last, or that with the best value",
    )
    halving: HalvingConfig | None = Field(
        default=None, description="stops poor runs early; none: all are trained to the end"
    )
    concurrency: int = Field(
        default=1, ge=1, le=1000, description="runs that are trained at the same time"
    )
    devices: tuple[str, ...] = Field(
        default=(),
        description="devices that runs at work take turns on, such as [cuda:0, cuda:1]; none: the "
        "run's own",
    )
    work_pool: str | None = Field(
        default=None,
        min_length=1,
        pattern=r"^[^/%&<>]+$",
        description="Prefect's work pool whose workers train the runs; none: processes of this "
        "command",
    )
    folder: str = Field(
        default_factory=lambda: str(Path.cwd()),
        description="absolute folder that `run` is relative to",
    )

    @model_validator(mode="after")
    def _one_search(self) -> Self:
        if (self.vary is None) == (self.runs is None):
            raise ValueError(
                "expected either `vary`, with values for each field, or `runs`, with fields for "
                "each run"
            )
        if self.random is not None and self.optuna is not None:
            raise ValueError("random, optuna: expected one of the two")
        if self.vary is None and (self.random is not None or self.optuna is not None):
            raise ValueError("random, optuna: they draw the values that `vary` names; give `vary`")
        if self.vary == {} or self.runs == ():
            raise ValueError("vary, runs: there is nothing to vary; name a field and its values")
        for name, values in self.axes:
            if isinstance(values, Distribution) and self.random is None and self.optuna is None:
                raise ValueError(
                    f"vary.{name}: a distribution has no end of values; give `random: {{runs: N}}` "
                    "or `optuna: {trials: N}`, or a list"
                )
        self._check_fields()
        if any(_is_no_device(device) for device in self.devices):
            raise ValueError(f"devices: {list(self.devices)}; expected cpu, cuda, cuda:N or mps")
        if self.devices and self.work_pool is not None:
            raise ValueError("devices: a work pool's machines have devices of their own; leave out")
        if self.halving is not None and self.optuna is not None:
            raise ValueError(
                "halving: with optuna a run's result must be known before the next is proposed; "
                "leave one of the two out"
            )
        return self

    def _check_fields(self) -> None:
        named = {"set": self.set, "vary": self.vary or {}} | {
            f"runs[{number}]": fields for number, fields in enumerate(self.runs or ())
        }
        for place, fields in named.items():
            for name in fields:
                first = name.partition(".")[0]
                if first in NOT_VARIED and place != "set":
                    raise ValueError(f"{place}.{name}: {NOT_VARIED[first]}; give it in `set`")
                if name == "name" and not place.startswith("runs["):
                    raise ValueError(
                        f"{place}.name: the runs are named after what they have of their own; "
                        "give the sweep's `name`"
                    )

    @property
    def axes(self) -> Iterator[tuple[str, tuple[Any, ...] | Distribution]]:
        """The fields that vary, with their values. Raises ValueError."""
        for name, values in (self.vary or {}).items():
            if isinstance(values, Mapping):
                yield name, _distribution(name, values)
            elif isinstance(values, list | tuple) and values:
                yield name, tuple(values)
            else:
                found = "an empty list" if values == [] else repr(values)
                raise ValueError(
                    f"vary.{name}: found {found:.80}; expected a list of values, or a distribution "
                    "such as {log_uniform: [0.0001, 0.1]}"
                )


def _distribution(name: str, given: Mapping[str, Any]) -> Distribution:
    try:
        return Distribution.model_validate(given)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in problem["loc"][:1])
        text = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            text = "there is no such distribution; there is uniform, log_uniform, int, log_int and "
            text += "choice. A group of fields as a value stands in a list: [{…}, {…}]"
        raise ValueError(f"vary.{name}{'.' * bool(place)}{place}: {text}") from None


def _is_no_device(device: str) -> bool:
    return re.fullmatch(DEVICE, device) is None
