"""Python's `random` in a trainer: other threads draw from numbers of their own.

`random` is one generator for all threads of a process. Libraries draw from it wherever they wait
before they try again: one such call between an item's seeding and its draws changes the item. A
trainer has one Python thread, but a data set that reads object storage brings one along. So here
each thread but the main one has a generator of its own behind the functions of `random`.

This must come before any module that takes the functions by `from random import …`.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from typing import Any

_main: list[int] = []
_own = threading.local()


def separate_threads() -> None:
    """From now on the global functions of `random` belong to this thread, which is the main one.

    A process that is forked from here has them in its own main thread.
    """
    if _main:
        return
    _main.append(threading.get_ident())
    os.register_at_fork(after_in_child=_begin_in_child)
    shared: Any = random._inst  # noqa: SLF001 - the generator behind the functions
    for name in random.__all__:
        function = getattr(random, name)
        if getattr(function, "__self__", None) is shared:
            setattr(random, name, _divided(name, function))


def _begin_in_child() -> None:
    _main[0] = threading.get_ident()


def _divided(name: str, of_main: Callable[..., Any]) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() == _main[0]:
            return of_main(*args, **kwargs)
        return getattr(_generator(), name)(*args, **kwargs)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = of_main.__doc__
    return function


def _generator() -> random.Random:
    """The own one of the thread that asks, seeded by the system."""
    generator: random.Random | None = getattr(_own, "generator", None)
    if generator is None:
        generator = _own.generator = random.Random()  # noqa: S311 - no secret
    return generator
