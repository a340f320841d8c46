"""An evaluation that several processes share: one batch each, then all of them to the first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from epochal.data.errors import TargetError
from epochal.data.types import Batch
from epochal.engine.model.step import StepOutput
from epochal.engine.shards.group import Group
from epochal.engine.shards.nested import put_together, taken_apart

_FIELDS = ("loss_B", "denominator_B", "parts", "outputs", "target")


def in_rounds(
    batches: Iterable[Batch], output_of: Callable[[Batch], StepOutput], group: Group | None
) -> Iterator[list[tuple[StepOutput, int]]]:
    """Outputs and sizes of the batches, in order: one by one, or those of a round of a group.

    Only the first process of a group gets any. Raises TargetError for outputs that no document
    holds, and for a model that draws random numbers, which processes cannot share.
    """
    for batch in batches:
        if group is None:
            yield [(output_of(batch), batch.num_samples)]
            continue
        document: Any = None
        tensors: list[Tensor] = []
        if batch.num_samples:
            output = undrawn(output_of, batch)
            parts = {name: taken_apart(getattr(output, name), name=name) for name in _FIELDS}
            document = [batch.num_samples, {name: one for name, (one, _) in parts.items()}]
            device = output.loss_B.device
            tensors = [tensor.to(device) for _, found in parts.values() for tensor in found]
            group.end_turn()
        else:
            group.sit_out()
        given = group.exchange.gather_first(document, tensors) or []
        yield [_output(told, found) for told, found in given if told is not None]


def _output(told: Any, tensors: list[Tensor]) -> tuple[StepOutput, int]:
    count, parts = told
    rest = iter(tensors)
    return StepOutput(**{name: put_together(parts[name], rest) for name in _FIELDS}), count


def undrawn(output_of: Callable[[Batch], StepOutput], batch: Batch) -> StepOutput:
    """The batch's output. Raises TargetError where the model draws random numbers for it."""
    before = torch.get_rng_state()
    output = output_of(batch)
    if not torch.equal(before, torch.get_rng_state()):
        raise TargetError(
            "launch.processes: the model draws random numbers while it is measured, one after the "
            "other over all batches, which several processes cannot share; use launch.processes: 1"
        )
    return output
