"""A data set whose items go through a transform, each with random numbers of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from epochal.data.augment.pictures import IMAGE_NAMES
from epochal.data.errors import DataError

_NOT_PASSED_ON = ("__getitems__", "thread_safe")
"""Whole batches are read from what is wrapped, by who seeds each item; and transforms draw from
generators that threads would share."""


def transformed(data: Any, transform: Callable[[Any], Any]) -> Transformed:
    """`data` with `transform` on each item's image, or on the whole item.

    data: a map-style data set. transform: from an image to an image; one with an attribute
    `takes_items` that is true, as the adapters of `epochal.data.augment` have it, gets the item,
    with masks and boxes. Where the loader reads an item, torch's, NumPy's and Python's global
    generators are seeded by (seed, epoch, sample id, how often it came before).

    Raises DataError for a transform that cannot be called, and for data without a length.
    """
    if not callable(transform):
        raise DataError(
            f"transformed: `transform` is a {type(transform).__name__}, expected what can be "
            "called with an image; give {target: …, args: …}"
        )
    if not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
        raise DataError(
            f"transformed: `data` is a {type(data).__name__}, expected a map-style data set; give "
            "{target: …, args: …}"
        )
    return Transformed(data, transform)


class Transformed:
    """Passes on what the data set tells of itself; its items are transformed.

    untransformed: the data set. The loader reads whole batches of it where it can, and then calls
    `transform_item` for each item under seeds of its own.
    """

    def __init__(self, data: Any, transform: Callable[[Any], Any]) -> None:
        self.untransformed = data
        self._transform = transform
        self._takes_items = bool(getattr(transform, "takes_items", False))

    def __len__(self) -> int:
        return len(self.untransformed)

    def __getitem__(self, position: int) -> Any:
        return self.transform_item(self.untransformed[position])

    def transform_item(self, item: Any) -> Any:
        """The item as it is trained on. Raises DataError where it has no image."""
        if self._takes_items:
            return self._transform(item)
        if isinstance(item, Mapping):
            name = next((name for name in IMAGE_NAMES if name in item), None)
            if name is not None:
                return {**item, name: self._transform(item[name])}
        elif isinstance(item, tuple | list) and item:
            return type(item)([self._transform(item[0]), *item[1:]])
        raise DataError(
            "transformed: items are to be (image, …) or dicts with `image` or `input`, found "
            + (f"a dict of {', '.join(map(str, item))}" if isinstance(item, Mapping) else
               f"a {type(item).__name__}")
        )  # fmt: skip

    def __getattr__(self, name: str) -> Any:
        if name in _NOT_PASSED_ON or name.startswith("_") or name == "untransformed":
            raise AttributeError(name)
        value = getattr(self.untransformed, name)
        if name == "item_at_size":
            return lambda position, **size: self.transform_item(value(position, **size))
        return value
