"""A few items of a data set, always the same ones, and what they were: to notice a change quickly.

Read at each start where not all items are: 64 positions, or as many of them as a second allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from epochal.data.hashing import QuickDigest
from epochal.data.inspection.item_form import label_of
from epochal.data.inspection.told import path_of
from epochal.data.types import Frozen

NUM_SEEN, MIN_SEEN = 64, 4
MAX_S = 1.0
MAX_NAMED = 3


class SeenItem(Frozen):
    """An item as it was. digest: of its content, 16 hexadecimal digits."""

    position: int = Field(ge=0)
    label: int | None
    digest: str = Field(pattern=r"^[0-9a-f]{16}$")


def seen_item(item: Any, position: int) -> SeenItem:
    """What that item is. Raises UnsupportedItem."""
    from epochal.data.inspection.content_digest import add_item

    content = QuickDigest()
    add_item(content, item)
    return SeenItem(position=position, label=label_of(item), digest=f"{content.value():016x}")


def may_go_on(done: int, seconds: float) -> bool:
    """Whether another item may be read, after that many in so many seconds."""
    return done < MIN_SEEN or seconds <= MAX_S


def fixed_positions(count: int) -> list[int]:
    """The first, the last, and those between: up to 64 even steps, any beginning of them spread."""
    steps = min(count, NUM_SEEN)
    even = [0] if steps == 1 else [round(step * (count - 1) / (steps - 1)) for step in range(steps)]
    spread = sorted(range(steps), key=lambda step: f"{step:06b}"[::-1])
    return [even[step] for step in spread]


def differences(known: Sequence[SeenItem], now: Sequence[SeenItem], *, dataset: Any) -> list[str]:
    """What is another now than it was, in words, for positions that are in both."""
    current, found = {one.position: one for one in now}, []
    for before in known:
        after = current.get(before.position)
        if after is None or after == before:
            continue
        path = path_of(dataset, before.position)
        where = f"item {before.position}" + ("" if path is None else f" ({path})")
        found.append(
            f"{where} had the label {before.label} and has {after.label}"
            if before.label != after.label
            else f"{where} has another content"
        )
    more = len(found) - MAX_NAMED
    return found[:MAX_NAMED] + ([f"{more} more of {len(known)} items"] if more > 0 else [])
