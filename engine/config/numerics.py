"""Config of the numbers: precision, gradients, average, metrics. Pure pydantic; no torch."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from epochal.data.types import Frozen, Target

BUILT_IN_METRICS = (
    *("accuracy", "top5_accuracy", "loss"),
    *("auroc", "average_precision", "f1", "precision", "recall", "balanced_accuracy"),
    *("confusion_matrix", "calibration_error", "perplexity", "mse", "mae", "r2"),
)
MAX_SHARDS = 1024
MATRIX = "confusion_matrix"
"""The one built-in metric that is no number."""
EMA = "ema/"
"""Before the name of a metric: that of the average of the weights, not of the weights."""
_FALLING = ("loss", "error", "perplexity")
_FALLING_NAMES = ("mse", "mae")


_IN_NO_KEY = frozenset({"per_group", "accumulate_from"})
"""Of `gradients`."""


class PrecisionConfig(Frozen):
    """In which numbers, and in which memory order, the model computes."""

    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32",
        description="of forward passes, by autocast; weights stay as they are. float16 scales the "
        "loss, and skips updates that overflow",
    )
    channels_last: bool = Field(
        default=False,
        description="images as (batch, height, width, channel) in memory: faster convolutions on "
        "GPUs and some CPUs",
    )
    compile: bool = Field(
        default=False, description="run the model through torch.compile; needs a C++ compiler"
    )

    def key_slice(self) -> dict[str, Any]:
        """What acts on numbers: what is not as usual."""
        return self.not_as_usual()


class GradientsConfig(Frozen):
    """Accumulation, clipping and what is measured of gradients."""

    accumulate: int = Field(
        default=1,
        ge=1,
        description="micro-batches per update, whose loss is the mean over all of them at once; "
        "the tail of an epoch is stepped",
    )
    shards: int = Field(
        default=1,
        ge=1,
        le=MAX_SHARDS,
        description="parts of an update, a power of two, that are summed as a binary tree: so many "
        "processes may share its work, and any number gives the same bytes",
    )
    accumulate_from: int = Field(
        default=0,
        ge=0,
        description="epoch from which `accumulate` holds; before it, one per update",
    )
    zeroing: Literal["none", "zero"] = Field(
        default="none",
        description="what a gradient is before the backward pass: none, so that a weight that gets "
        "none is left alone, or zero, so that weight decay and momentum act on it",
    )
    clip_norm: float | None = Field(
        default=None,
        gt=0,
        description="largest norm of all gradients together; none: they are not scaled",
    )
    clip_value: float | None = Field(
        default=None,
        gt=0,
        description="largest absolute value of one gradient, clipped before `clip_norm`; none: any",
    )
    on_nonfinite: Literal["stop", "skip"] = Field(
        default="stop",
        description="what an update whose loss or norm is NaN or infinite does: end the run, "
        "naming its samples, or change nothing. `skip` looks at each update, which waits for a GPU",
    )
    depth: int = Field(
        default=1, ge=1, le=10, description="names of a module's path that make a group of norms"
    )
    update_ratio: bool = Field(
        default=False,
        description="record how far each update moves the weights, relative to their norm",
    )
    per_group: bool = Field(
        default=True, description="deliver a norm per group; all are recorded in any case"
    )

    @field_validator("shards")
    @classmethod
    def _power_of_two(cls, shards: int) -> int:
        if shards & (shards - 1):
            raise ValueError(
                f"{shards} is no power of two; the nearest are "
                f"{1 << shards.bit_length() - 1} and {1 << shards.bit_length()}"
            )
        return shards

    def accumulated(self, epoch: int) -> int:
        """Micro-batches per update in that epoch."""
        return self.accumulate if epoch >= self.accumulate_from else 1

    def key_slice(self, epoch: int) -> dict[str, Any]:
        """What acts on the numbers of that epoch."""
        acting = {name: value for name, value in self if name not in _IN_NO_KEY}
        if self.shards == 1:  # then sums are as they were before there were shards
            del acting["shards"]
        return acting | {"accumulate": self.accumulated(epoch)}


class EmaConfig(Frozen):
    """An exponential moving average of the weights, kept and validated beside the model."""

    decay: float = Field(
        default=0.999,
        gt=0,
        lt=1,
        description="share of the average that stays at each update; 0.999 averages over some "
        "1,000 updates",
    )
    warm_up: bool = Field(
        default=True,
        description="begin with (1 + n) / (10 + n) after n updates, until that exceeds `decay`",
    )
    copy_at_epoch: int | None = Field(
        default=None,
        ge=1,
        description="the epoch before which the model takes the average as its weights; none: it "
        "never does",
    )

    def key_slice(self, epoch: int) -> dict[str, Any]:
        """What acts on the numbers of that epoch."""
        acting: dict[str, Any] = {"decay": self.decay, "warm_up": self.warm_up}
        return acting | ({"copied": True} if self.copy_at_epoch == epoch else {})


class MetricTarget(Target):
    """A metric of the user's or of torchmetrics: has `update(outputs, target)`, `compute()`."""

    name: str = Field(
        pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$", description="what the metric is called in curves"
    )


class MetricsConfig(Frozen):
    """What validation measures; the mean loss is always measured too."""

    validation: tuple[str | MetricTarget, ...] = Field(
        default=("accuracy",),
        description=f"names ({', '.join(BUILT_IN_METRICS)}) or targets with a `name`",
    )
    best: str | None = Field(
        default=None, description="the metric that says which epoch is best; none: the first one"
    )
    best_mode: Literal["max", "min"] | None = Field(
        default=None,
        description="whether the largest or the smallest value is best; none: the smallest of a "
        "loss, error, perplexity, mse or mae, else the largest",
    )

    @field_validator("validation")
    @classmethod
    def _known(cls, metrics: tuple[str | MetricTarget, ...]) -> tuple[str | MetricTarget, ...]:
        names = [metric if isinstance(metric, str) else metric.name for metric in metrics]
        for metric in metrics:
            if isinstance(metric, str) and metric not in BUILT_IN_METRICS:
                raise ValueError(
                    f"{metric!r} is no metric; known are {', '.join(BUILT_IN_METRICS)}, or give "
                    "{name: …, target: module:attr}"
                )
        if "epoch" in names:
            raise ValueError("'epoch' is what the number of the best epoch is called")
        if len(set(names)) < len(names):
            raise ValueError(f"two metrics have one name: {', '.join(names)}")
        return metrics

    @model_validator(mode="after")
    def _best_is_measured(self) -> Self:
        if self.best is not None and self.best.removeprefix(EMA) not in self.numbers:
            what = "no single number" if self.best.removeprefix(EMA) == MATRIX else "not measured"
            raise ValueError(
                f"best: {self.best!r} is {what}; there is {', '.join(self.numbers)}, and each as "
                f"{EMA}… where `ema` is given"
            )
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """All that is measured, the loss last."""
        names = [metric if isinstance(metric, str) else metric.name for metric in self.validation]
        return (*names, *(() if "loss" in names else ("loss",)))

    @property
    def numbers(self) -> tuple[str, ...]:
        """Those that are one number, of which one can be the best."""
        return tuple(name for name in self.names if name != MATRIX)

    @property
    def best_metric(self) -> str:
        """The metric that says which epoch is best."""
        return self.best or self.numbers[0]

    @property
    def best_direction(self) -> Literal["max", "min"]:
        """Whether the largest or the smallest value is best."""
        metric = self.best_metric.removeprefix(EMA)
        falling = metric in _FALLING_NAMES or any(word in metric for word in _FALLING)
        return self.best_mode or ("min" if falling else "max")

    def key_slice(self) -> list[Any]:
        """What acts on numbers."""
        return [
            metric if isinstance(metric, str) else metric.model_dump(exclude={"files"})
            for metric in self.validation
        ]
