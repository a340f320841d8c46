"""What a step gives, as a plain document and its tensors: nests of lists, tuples and dicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from epochal.data.errors import TargetError

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
