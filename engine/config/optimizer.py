"""Config of the optimizer: what it is, which parameters it treats how, and from when. No torch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, JsonValue, model_validator

from epochal.data.types import Frozen, Target, Value

_NOT_OPTIONS = {"params", "param_names", "name"}

ONE_OPTIMIZER = (
    "a run has one, which steps once for each update. Give parts of the model rates and options of "
    "their own by `optimizer.groups`, and a GAN's two losses as one by a `step`: docs/config.md, "
    "Limits"
)
"""The end of an error about several."""


class ParameterGroup(Frozen):
    """Parameters with options of their own: any of the optimizer's, beside these fields."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Value]

    match: str = Field(
        min_length=1,
        description="which parameters, by their names in the model; * stands for anything, dots "
        "too. The first group that matches a parameter has it",
        examples=["head.*"],
    )
    lr_factor: float = Field(
        default=1.0,
        gt=0,
        description="what `args.lr` is multiplied by here, beside `layer_decay`; instead, the "
        "option `lr` may be given itself, which both leave alone",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name in sorted(_NOT_OPTIONS & set(self.options)):
            raise ValueError(f"{name}: is no option; expected one of the optimizer's args")
        if "lr" in self.options:
            check_rate(self.options["lr"], field="lr")
            if self.lr_factor != 1.0:
                raise ValueError("lr and lr_factor are both given; expected one of them")
        return self

    @property
    def options(self) -> dict[str, JsonValue]:
        """What is given of the optimizer's options."""
        return dict(self.__pydantic_extra__)


class FrozenParameters(Frozen):
    """Parameters that do not train, for some epochs or for all."""

    match: str = Field(
        min_length=1,
        description="which parameters, by their names in the model; * stands for anything, dots "
        "too. Modules whose parameters are all frozen are in evaluation mode: the statistics of "
        "BatchNorm stay, dropout is off",
        examples=["backbone.*"],
    )
    until: int | None = Field(
        default=None, ge=1, description="the epoch from which they train; none: they never do"
    )


class OptimizerConfig(Target):
    """A class of `torch.optim` or of the user's, called with the parameters and `args`."""

    no_decay: tuple[Literal["norms", "biases"], ...] = Field(
        default=(),
        description="parameters whose `weight_decay` is 0: those of normalisation layers, biases",
    )
    layer_decay: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="what the rate is multiplied by from each layer to the one before it; the last "
        "has the whole rate. Layers are the model's `layer_groups()`, else its `group_matcher()` "
        "(timm), else its modules in order. none: one rate",
    )
    groups: tuple[ParameterGroup, ...] = Field(
        default=(),
        description="parameters with options of their own; the first that matches counts",
    )
    frozen: tuple[FrozenParameters, ...] = Field(
        default=(), description="parameters that do not train until some epoch"
    )

    @model_validator(mode="before")
    @classmethod
    def _is_one(cls, given: Any) -> Any:
        several = isinstance(given, list | tuple) or (
            isinstance(given, Mapping)
            and "target" not in given
            and any(isinstance(part, Mapping) and "target" in part for part in given.values())
        )
        if several:
            raise ValueError(f"there are {len(given)} optimizers: {ONE_OPTIMIZER}")
        return given

    @model_validator(mode="after")
    def _has_rate(self) -> Self:
        check_rate(self.args.get("lr"), field="args.lr")
        return self

    @property
    def rate(self) -> float:
        """The base learning rate."""
        rate = self.args["lr"]
        assert isinstance(rate, int | float), rate  # `_has_rate` has refused anything else
        return float(rate)

    @property
    def is_grouped(self) -> bool:
        """Whether there may be more than one group of parameters."""
        return bool(self.no_decay or self.groups or self.layer_decay is not None)

    def frozen_in(self, epoch: int) -> tuple[str, ...]:
        """Patterns of the parameters that do not train in that epoch."""
        return tuple(
            sorted({rule.match for rule in self.frozen if rule.until is None or epoch < rule.until})
        )

    def key_slice(self) -> dict[str, Any]:
        """What acts in every epoch, beside target and args: what is not as usual."""
        given: dict[str, Any] = {}
        if self.groups or self.layer_decay is not None:
            given = self.model_dump(
                mode="json", include={"layer_decay", "groups"}, exclude_defaults=True
            )
        return given | ({"no_decay": sorted(set(self.no_decay))} if self.no_decay else {})


def check_rate(rate: Any, *, field: str) -> None:
    """Raises ValueError if `rate` is no base learning rate."""
    number = isinstance(rate, int | float) and not isinstance(rate, bool)
    if not number or not 0 < rate <= sys.float_info.max:
        given = "nothing" if rate is None else f"{rate!r:.60}"
        raise ValueError(
            f"{field}: found {given}; expected the base learning rate, a finite number above 0"
        )
