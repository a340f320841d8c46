"""What validation measures: built-in metrics, and objects with `update` and `compute`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from epochal.data.errors import TargetError
from epochal.engine.config.numerics import MetricsConfig, MetricTarget
from epochal.engine.measure import built_in as built_in_metrics
from epochal.engine.model.batches import described, without_ignored

# B samples of a batch, C classes; … further dimensions

MAX_WAITING = 1 << 20  # numbers in the logits that wait, 4 MiB in float32
TOP_K = {"accuracy": 1, "top5_accuracy": 5}


class Metric(Protocol):
    """As torchmetrics has it: gathers over batches, then computes over all."""

    def update(self, outputs: Any, target: Any) -> Any:
        """Takes one batch."""

    def compute(self) -> Any:
        """A number, or a dict of numbers, over all that was taken."""


class TopKAccuracy:
    """Share of elements whose class is among the k largest logits; targets below 0 do not count."""

    def __init__(self, name: str, k: int) -> None:
        self._name = name
        self._k = k
        self._right: list[Tensor] = []
        self._counted: list[Tensor] = []
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._form: tuple[Any, ...] = ()
        self._numbers = 0

    def update(self, outputs: Any, target: Any) -> None:
        """outputs: logits (B, C, …); target: classes, integers (B, …). Raises TargetError."""
        form = (*_form(outputs), *_form(target))
        if form != self._form:
            self._flush()
            self._check(outputs, target)
            self._form = form
        self._waiting.append((outputs.detach(), target))
        self._numbers += outputs.numel()
        if self._numbers >= MAX_WAITING:
            self._flush()

    def _check(self, outputs: Any, target: Any) -> None:
        if not _is_classification(outputs, target):
            raise TargetError(
                f"metrics.validation: {self._name!r} needs outputs of shape (B, C, …) and integer "
                f"targets of shape (B, …), found {described(outputs)} and {described(target)}; "
                "set metrics.validation to [loss], or to metrics that fit"
            )

    def _flush(self) -> None:
        """Counts what waits: many batches at once, since each takes many calls."""
        if not self._waiting:
            return
        logits, target = (torch.cat(tensors) for tensors in zip(*self._waiting, strict=True))
        counted = target >= 0
        if self._k == 1:
            right = logits.max(dim=1).indices == target  # two thirds of the time of argmax
        else:
            best = logits.topk(min(self._k, logits.shape[1]), dim=1).indices
            right = (best == target.unsqueeze(1)).any(dim=1)
        self._right.append((right & counted).sum())
        self._counted.append(counted.sum())
        self._waiting, self._numbers = [], 0

    def compute(self) -> float:
        """In [0, 1]; NaN if nothing counted."""
        self._flush()
        counted = _total(self._counted)
        return _total(self._right) / counted if counted else math.nan


def _form(value: Any) -> tuple[Any, ...]:
    """Type and size of a sample: batches of equal form can be put into one tensor."""
    return (value.dtype, value.shape[1:]) if isinstance(value, Tensor) else (type(value), None)


def _is_classification(outputs: Any, target: Any) -> bool:
    return (
        isinstance(outputs, Tensor)
        and isinstance(target, Tensor)
        and outputs.is_floating_point()
        and not target.is_floating_point()
        and outputs.ndim == target.ndim + 1
        and outputs.shape[:1] + outputs.shape[2:] == target.shape
    )


def _total(counts: list[Tensor]) -> int:
    return int(torch.stack(counts).sum()) if counts else 0


class ValidationMetrics:
    """The config's metrics; each validation starts with new ones.

    make: builds the metric of a target; called anew for each validation.
    """

    def __init__(self, config: MetricsConfig, make: Callable[[MetricTarget], Any]) -> None:
        self._config = config
        self._make = make
        self.fresh()  # what cannot be built is found now

    def fresh(self, *, ignore_index: int | None = None) -> dict[str, Metric]:
        """Name → a metric that has seen nothing; the loss is not among them.

        ignore_index: targets that count in none of the built-in ones.
        """
        metrics: dict[str, Metric] = {}
        for metric in self._config.validation:
            if not isinstance(metric, str):
                metrics[metric.name] = _checked(metric, self._make(metric))
            elif metric in TOP_K:
                metrics[metric] = _Ignoring(TopKAccuracy(metric, TOP_K[metric]), ignore_index)
            elif metric != "loss":
                metrics[metric] = _Ignoring(built_in_metrics.make(metric), ignore_index)
        return metrics

    def matrices(self, metrics: Mapping[str, Metric]) -> dict[str, list[list[int]]]:
        """Name → confusion matrix of the metrics that have one of a size to be kept."""
        made = {
            name: metric.built_in.matrix()
            for name, metric in metrics.items()
            if isinstance(metric, _Ignoring)
            and isinstance(metric.built_in, built_in_metrics.ConfusionMatrix)
        }
        return {name: matrix for name, matrix in made.items() if matrix is not None}

    def values(self, metrics: Mapping[str, Metric], *, loss: float) -> dict[str, float]:
        """Name → value, in the config's order, the loss with them. Raises TargetError."""
        values: dict[str, float] = {}
        for name in self._config.names:
            if name == "loss":
                _put(values, name, loss)
            else:
                for part, number in numbers_of(name, metrics[name].compute()).items():
                    _put(values, part, number)
        return values


class _Ignoring:
    """A built-in metric that does not see the targets that the loss ignores."""

    def __init__(self, built_in: Any, ignore_index: int | None) -> None:
        self.built_in = built_in
        self._ignore_index = ignore_index

    def update(self, outputs: Any, target: Any) -> None:
        self.built_in.update(outputs, without_ignored(target, self._ignore_index))

    def compute(self) -> Any:
        return self.built_in.compute()


def build_metrics(config: MetricsConfig, make: Callable[[MetricTarget], Any]) -> ValidationMetrics:
    """The metrics of a run. Raises TargetError if one cannot be built or is no metric."""
    return ValidationMetrics(config, make)


def _checked(target: MetricTarget, metric: Any) -> Metric:
    missing = [name for name in ("update", "compute") if not hasattr(metric, name)]
    if missing:
        raise TargetError(
            f"metrics.{target.name}: {target.target!r} returned a {type(metric).__name__} without "
            f"{' and '.join(missing)}; expected an object like those of torchmetrics"
        )
    if isinstance(metric, torch.nn.Module):
        metric.eval()
    return metric  # type: ignore[no-any-return]  # it has what the protocol asks for


def numbers_of(name: str, value: Any) -> dict[str, float]:
    """What a metric computed as numbers by name. Raises TargetError."""
    values: dict[str, float] = {}
    for part, number in _numbers(name, value):
        _put(values, part, number)
    return values


def _put(values: dict[str, float], name: str, number: float) -> None:
    if name in values:
        raise TargetError(
            f"metrics.validation: two numbers are called {name!r}; a dict that compute() gives "
            "adds its keys to the metric's name: give the metric or the key another name"
        )
    values[name] = number


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for part, item in value.items():
            yield from _numbers(f"{name}_{part}", item)
    elif (isinstance(value, Tensor) and value.numel() == 1) or isinstance(value, int | float):
        yield name, float(value)
    else:
        raise TargetError(
            f"metrics.{name}: compute() gave {described(value)}, expected a number or a dict of "
            "numbers"
        )
