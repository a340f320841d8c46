"""An evaluation that several processes share: one batch each, then all of them to the first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from epochal.data.errors import TargetError
from epochal.data.types import Batch
from epochal.engine.model.step import StepOutput
from epochal.engine.shards.group import Group

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


_PLAIN = (str, int, float, bool, type(None))


def taken_apart(value: Any, *, name: str) -> tuple[Any, list[Tensor]]:
    """A document that `put_together` reads, and the tensors in it.

    name: what it is, for an error. Raises TargetError for what no document holds.
    """
    tensors: list[Tensor] = []
    return _document(value, tensors, name), tensors


def _document(value: Any, tensors: list[Tensor], name: str) -> Any:
    if isinstance(value, Tensor):
        tensors.append(value)
        return {"tensor": len(tensors) - 1}
    if type(value) in _PLAIN:
        return {"plain": value}
    if type(value) in {list, tuple}:
        parts = [_document(part, tensors, name) for part in value]
        return {type(value).__name__: parts}
    if isinstance(value, Mapping) and all(type(key) is str for key in value):
        return {"dict": {key: _document(part, tensors, name) for key, part in value.items()}}
    raise TargetError(
        f"step: its {name} hold a {type(value).__name__}, which is not sent from one process to "
        "another; expected tensors, numbers and texts in lists, tuples and dicts, or use "
        "launch.processes: 1"
    )


def put_together(document: Any, tensors: Iterator[Tensor]) -> Any:
    """What was taken apart. tensors: those of it, in order."""
    ((kind, body),) = document.items()
    if kind == "tensor":
        return next(tensors)
    if kind == "plain":
        return body
    if kind == "dict":
        return {key: put_together(part, tensors) for key, part in body.items()}
    parts = [put_together(part, tensors) for part in body]
    return tuple(parts) if kind == "tuple" else parts
