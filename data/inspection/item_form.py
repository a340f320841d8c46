"""The form of an item: what must be equal for items to be put into one batch. No torch needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NUMBER = "a number"


def form(item: Any) -> Any:
    """Shapes of an item's tensors and arrays, its keys and numbers of parts; types do not count."""
    if hasattr(item, "shape"):
        shape = tuple(item.shape)
        return shape or NUMBER
    if isinstance(item, Mapping):
        return {name: form(part) for name, part in item.items()}
    if isinstance(item, tuple | list):
        return [form(part) for part in item]
    return NUMBER if isinstance(item, bool | int | float) else type(item).__name__


def difference(first: Any, other: Any, *, place: str = "item") -> str:
    """Where two forms differ, as `item[0] is (3, 32, 32) and (3, 48, 32)`; empty where equal."""
    if isinstance(first, dict) and isinstance(other, dict):
        if first.keys() != other.keys():
            return f"{place} has the keys {sorted(first)} and {sorted(other)}"
        parts = ((f"{place}[{name!r}]", first[name], other[name]) for name in first)
    elif isinstance(first, list) and isinstance(other, list):
        if len(first) != len(other):
            return f"{place} has {len(first)} and {len(other)} parts"
        parts = (
            (f"{place}[{number}]", one, another)
            for number, (one, another) in enumerate(zip(first, other, strict=True))
        )
    else:
        return "" if first == other else f"{place} is {first} and {other}"
    found = (difference(one, another, place=where) for where, one, another in parts)
    return next(filter(None, found), "")
