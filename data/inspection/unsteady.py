"""Data that is another at each reading: found, and refused with the cause where it can be told.

What a C function does is seen by the profiler's hook while one item is read: clocks, random bytes
of the system, `random.Random`. The methods of NumPy's and torch's generators do not show there, so
those are looked for in what the data set holds.
"""

from __future__ import annotations

import gc
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from epochal.data.errors import DataError
from epochal.data.inspection.item_reader import ItemReader
from epochal.data.inspection.seen import SeenItem

if TYPE_CHECKING:
    from types import FrameType

NUM_STEADY = 8  # items that are read a second time
MAX_REACHED = 20_000  # objects that a generator is looked for in
ALBUMENTATIONS = (
    "it has a transform of albumentations, which draws from a generator of its own; "
    "epochal.data.augment:albumentations seeds it for each sample"
)


def check_steady(dataset: Any, seen: Sequence[SeenItem], count: int, name: str) -> None:
    """Raises DataError if an item is another when it is read again, with the cause if it is seen.

    seen: as `look` has just read them. The first few are read again.
    """
    few = [one.position for one in seen[:NUM_STEADY]]
    reader = ItemReader(dataset, count, name)
    again = reader.look(few)
    for first, second in zip(seen, again, strict=False):
        if first != second:
            with _watched() as causes:
                reader.item(first.position)
            held = _held_generator(dataset)
            cause = held if held == ALBUMENTATIONS else next(iter(causes), held)
            raise DataError(unsteady(name, first.position, cause))


def unsteady(name: str, position: int, cause: str | None) -> str:
    """What a person is told of data that is another at each reading."""
    told = "" if cause is None else f": {cause}"
    return (
        f"{name}: item {position} is another at each reading{told}; then no run can be resumed or "
        "repeated. Items may draw from the global generators of torch, NumPy and `random`, which "
        f"are seeded for each sample; or state {name}.version to train on what comes"
    )


@contextmanager
def _watched() -> Iterator[Mapping[str, None]]:
    """Notes calls, in this thread, of what gives other values each time: clocks and generators."""
    causes: dict[str, None] = {}

    def look_at(_frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call" and (cause := _cause(function)) is not None:
            causes[cause] = None

    before = sys.getprofile()
    sys.setprofile(look_at)
    try:
        yield causes
    finally:
        sys.setprofile(before)


def _cause(function: Callable[..., Any]) -> str | None:
    name = getattr(function, "__name__", "")
    of = getattr(function, "__self__", None)
    kind = of if isinstance(of, type) else type(of)
    if getattr(function, "__module__", None) == "time" and name in _CLOCKS:
        return f"it looks at the clock (time.{name})"
    if kind.__module__ == "datetime" and name in {"now", "utcnow", "today"}:
        return f"it looks at the clock ({kind.__name__}.{name})"
    if name == "urandom":
        return "it asks the operating system for random bytes (os.urandom, secrets, uuid)"
    return f"it draws from a {_name(of)} of its own" if _is_own_generator(of) else None


def _is_own_generator(value: Any) -> bool:
    import random

    import numpy as np
    import torch

    own = (random.Random, np.random.Generator, np.random.RandomState, torch.Generator)
    shared = (random._inst, np.random.mtrand._rand, torch.default_generator)  # noqa: SLF001 - the global ones
    return isinstance(value, own) and not any(value is one for one in shared)


def _held_generator(dataset: Any) -> str | None:
    """A generator that the data set holds, or that is a global of a module of its functions."""
    seen, reached, found = {id(dataset)}, deque([dataset]), 0
    of_modules: list[Any] = []
    while reached and found < MAX_REACHED:
        one, found = reached.popleft(), found + 1
        if type(one).__module__.partition(".")[0] == "albumentations":
            return ALBUMENTATIONS
        if _is_own_generator(one):
            return f"perhaps by a {_name(one)} that it holds"
        if isinstance(one, ModuleType | type):
            continue
        globals_of = getattr(one, "__globals__", None)
        if globals_of is not None:
            of_modules += filter(_is_own_generator, globals_of.values())
        methods = filter(callable, vars(type(one)).values())
        for other in (*gc.get_referents(one), *methods):
            if other is not globals_of and id(other) not in seen and not isinstance(other, _PLAIN):
                seen.add(id(other))
                reached.append(other)
    return f"perhaps by the {_name(of_modules[0])} of its module" if of_modules else None


def _name(generator: Any) -> str:
    kind = type(generator)
    return f"{kind.__module__}.{kind.__name__}"


_PLAIN = (str, bytes, int, float, bool, type(None), CodeType)


_CLOCKS = frozenset(
    name + suffix
    for name in ("time", "monotonic", "perf_counter", "process_time")
    for suffix in ("", "_ns")
)
