"""What an item is made of: its form, which items of one batch share, its label, id and input.

No torch needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from epochal.data.hashing import QuickDigest

NUMBER = "a number"
SAMPLE_ID = "sample_id"
_TARGETS = ("target", "label", "labels")
_MAX_INTEGER = (1 << 63) - 1


class ArrayForm(NamedTuple):
    """Of a tensor or array: what must be equal for several to be stacked into one of that type."""

    shape: tuple[int, ...]
    dtype: str


def form(item: Any) -> Any:
    """Shapes and types of an item's tensors and arrays, its keys and numbers of parts."""
    if hasattr(item, "shape"):
        shape = tuple(item.shape)
        dtype = str(getattr(item, "dtype", "")).removeprefix("torch.")
        return ArrayForm(shape, dtype) if shape else NUMBER
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
        return "" if first == other else f"{place} is {_unlike(first, other)}"
    found = (difference(one, another, place=where) for where, one, another in parts)
    return next(filter(None, found), "")


def _unlike(first: Any, other: Any) -> str:
    if isinstance(first, ArrayForm) and isinstance(other, ArrayForm):
        if first.shape == other.shape:
            return f"of {first.dtype} and {other.dtype}"
        return f"{first.shape} and {other.shape}"
    return " and ".join(
        f"of shape {one.shape}" if isinstance(one, ArrayForm) else str(one)
        for one in (first, other)
    )


def has_id(item: Any) -> bool:
    """Whether an item brings its own `sample_id`."""
    return isinstance(item, Mapping) and SAMPLE_ID in item


def is_whole(values: Any) -> bool:
    """Whether a tensor or array is of integers."""
    return "int" in str(values.dtype)  # torch.int64, int32, uint8 …; not bool, float, complex


def label_of(item: Any) -> int | None:
    """The item's target, if it is one whole number."""
    return whole_number(_target(item))


def input_digest(item: Any) -> int:
    """A checksum of what an item is, but for its target and its id."""
    from epochal.data.inspection.content_digest import add_item

    if isinstance(item, Mapping):
        item = {name: one for name, one in item.items() if name not in {*_TARGETS, SAMPLE_ID}}
    elif isinstance(item, tuple | list) and len(item) > 1:
        item = item[0]
    content = QuickDigest()
    add_item(content, item)
    return content.value()


def _target(item: Any) -> Any:
    if isinstance(item, Mapping):
        return next((item[name] for name in _TARGETS if name in item), None)
    if isinstance(item, tuple | list) and len(item) > 1:
        return item[1]
    return None


def whole_number(value: Any) -> int | None:
    """`value` as an int that int64 holds, if it is one whole number: Python's, NumPy's, torch's."""
    if hasattr(value, "dtype"):
        if getattr(value, "ndim", 0) != 0 or not is_whole(value):
            return None
        value = value.item()
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or not -_MAX_INTEGER <= value <= _MAX_INTEGER
    ):
        return None
    return value
