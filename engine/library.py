"""For loops of one's own: batches of any iterable, a step of a loss, metrics by their names.

    train_epoch(state, as_batches(loader), Recipe(supervised_step(nn.CrossEntropyLoss)), epoch=0)

No files, no network, no clock; knows nothing of configs in files, of stages or of a store.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from epochal.data.errors import TargetError
from epochal.data.types import Batch, Window
from epochal.engine.config.numerics import MetricsConfig, MetricTarget
from epochal.engine.loop.mixing import MixedStep
from epochal.engine.measure.metrics import ValidationMetrics
from epochal.engine.model.build import Loss, build_loss
from epochal.engine.model.denominators import class_weights
from epochal.engine.model.step import DefaultStep

# B samples of a batch

_PER_SAMPLE, _MEAN = "none", "mean"


class PlainBatches:
    """An iterable of batches as `train_epoch` and `validate_epoch` take them; see `as_batches`."""

    def __init__(
        self,
        source: Iterable[Any],
        *,
        accumulate: int,
        num_batches: int | None,
        sample_ids: Callable[[Any], Any] | None,
    ) -> None:
        if accumulate < 1:
            raise TargetError(f"as_batches: accumulate is {accumulate}, expected at least 1")
        self._source = source
        self._accumulate = accumulate
        self._num_batches = num_batches
        self._sample_ids = sample_ids

    @property
    def num_updates(self) -> int:
        """That one pass leads to. Raises TargetError where the source has no length."""
        return -(-self._length() // self._accumulate)

    def _length(self) -> int:
        if self._num_batches is not None:
            return self._num_batches
        try:
            return len(self._source)  # type: ignore[arg-type]  # what has no length is told below
        except TypeError as error:
            raise TargetError(
                f"as_batches: a {type(self._source).__name__} has no length ({error}), and an "
                "epoch must know how many updates it has; give num_batches, or a list"
            ) from error

    def __iter__(self) -> Iterator[Batch]:
        """One pass over the source; the batches of one update are read before its first."""
        read, index, row = iter(self._source), 0, 0
        while update := list(islice(read, self._accumulate)):
            sizes = [batch_size(data) for data in update]
            for place, (data, size) in enumerate(zip(update, sizes, strict=True)):
                yield Batch(
                    data=data,
                    sample_ids_B=self._ids(data, row=row, size=size),
                    window=Window(
                        num_samples=sum(sizes),
                        last=place + 1 == len(update),
                        position=place,
                        count=len(update),
                    ),
                    index=index,
                )
                index, row = index + 1, row + size

    def _ids(self, data: Any, *, row: int, size: int) -> npt.NDArray[np.int64]:
        if self._sample_ids is None:
            return np.arange(row, row + size, dtype=np.int64)
        ids_B = np.asarray(self._sample_ids(data))
        if ids_B.shape != (size,) or ids_B.dtype.kind not in "iu":
            raise TargetError(
                f"as_batches: sample_ids gave {ids_B.dtype} of shape {ids_B.shape} for a batch of "
                f"{size}, expected integers of shape ({size},)"
            )
        return ids_B.astype(np.int64)


def as_batches(
    source: Iterable[Any],
    *,
    accumulate: int = 1,
    num_batches: int | None = None,
    sample_ids: Callable[[Any], Any] | None = None,
) -> PlainBatches:
    """Batches of a DataLoader, a list or a generator: `(input, target)`, a dict, or nests of them.

    accumulate: batches of one update; its loss is the mean over all of them, and a shorter tail
    is an update too. num_batches: of a source that has no `len`. sample_ids: from a batch to its
    samples' ids, integers of shape (B,); none: their places in this pass, from 0, so that
    observations and errors tell the place and not the sample.

    Raises TargetError if an update's number cannot be told or a batch has no size.
    """
    return PlainBatches(
        source, accumulate=accumulate, num_batches=num_batches, sample_ids=sample_ids
    )


def batch_size(data: Any) -> int:
    """The first dimension of the first tensor in it. Raises TargetError if there is none."""
    size = next(_sizes(data), None)
    if size is None:
        raise TargetError(
            f"as_batches: a batch is a {type(data).__name__} without a tensor of shape (B, …), "
            "expected (input, target), a dict, or lists of them"
        )
    return size


def _sizes(data: Any) -> Iterator[int]:
    if isinstance(data, Tensor):
        if data.ndim:
            yield data.shape[0]
    elif isinstance(data, Mapping):
        for part in data.values():
            yield from _sizes(part)
    elif isinstance(data, tuple | list):
        for part in data:
            yield from _sizes(part)


def supervised_step(loss: Any, **args: Any) -> MixedStep:
    """`loss(model(input), target)`, per sample where the loss can give that; of mixed batches too.

    loss: a class such as `nn.CrossEntropyLoss`, with its args; a function of (output, target); or
    a module, which is copied, its `reduction` set to none: an update's loss is the mean that torch
    defines over all of its samples, also where classes are weighted or targets ignored.

    Raises TargetError for a loss that sums, or that is none.
    """
    if not isinstance(loss, nn.Module):
        return MixedStep(DefaultStep(build_loss(loss, args)))
    if args:
        raise TargetError(
            f"supervised_step: {type(loss).__name__} is made already, and {', '.join(args)} came "
            "with it; give its class, or leave them out"
        )
    reduction = getattr(loss, "reduction", None)
    if reduction not in {None, _PER_SAMPLE, _MEAN}:
        raise TargetError(
            f"supervised_step: reduction of {type(loss).__name__} is {reduction!r}; the loss of an "
            f"update is the mean over its samples; expected {_MEAN!r} or {_PER_SAMPLE!r}"
        )
    module = loss
    if reduction == _MEAN:
        module = copy.copy(loss)
        # torch's stubs take a module's attributes for tensors and modules.
        module.reduction = _PER_SAMPLE  # type: ignore[assignment]
    ignored = getattr(loss, "ignore_index", None)
    weights = class_weights(module, {})
    return MixedStep(
        DefaultStep(Loss(module, reduction is not None, ignored, module, class_weights=weights))
    )


def metrics_of(*names: str, **own: Callable[[], Any]) -> ValidationMetrics:
    """What `validate_epoch` measures beside the loss: built-in metrics by name, and one's own.

    own: name → what makes a metric, with `update(outputs, target)` and `compute()` as torchmetrics
    has them; called anew for each validation.

    Raises ValueError for a name that is no metric, TargetError for what is no metric.
    """
    here = f"{__name__}:metrics_of"  # targets must have an address; these are made without it
    config = MetricsConfig(
        validation=(*names, *(MetricTarget(name=name, target=here) for name in own))
    )
    return ValidationMetrics(config, lambda target: own[target.name]())
