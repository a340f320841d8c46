"""Python's `random` in a trainer: what libraries draw while they wait never reaches your numbers.

`random` is one generator for a whole process. Clients of object stores draw from it wherever they
wait before they try again: one such call between an item's seeding and its draws changes the item.
So behind the functions of `random` the main thread alone, which runs items and steps, has the one
that is seeded. Each other thread has a generator of its own, as a data set that reads through s3fs
brings one along; and so have the clients that wait in the main thread itself, such as boto3. What a
module draws while it is imported does not count either: that would be in the first item that a
process reads, which is another one with more workers and after a restart.

This must come before any module that takes the functions by `from random import …`.
"""

from __future__ import annotations

import functools
import importlib
import os
import random
import sys
import threading
from collections.abc import Callable
from functools import lru_cache
from types import FunctionType
from typing import Any

CLIENTS = frozenset(
    (
        # object stores
        *("aiobotocore", "boto3", "botocore", "ibm_botocore", "s3transfer", "azure", "gcsfs"),
        *("google.api_core", "google.auth", "google.cloud", "google.resumable_media"),
        *("googleapiclient", "apitools", "b2sdk", "dropbox", "oci"),
        # databases and queues
        *("databricks", "elastic_transport", "kafka", "psycopg_pool", "pymongo", "redis"),
        "snowflake",
        # HTTP, whatever tries again, and whatever watches
        *("aiohttp", "aiohttp_retry", "httpx_retries", "urllib3", "websockets"),
        *("backoff", "retry", "retrying", "tenacity", "opentelemetry", "sentry_sdk"),
    )
)
"""Packages that draw as often as something fails, never for a sample's sake."""

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
    bootstrap: Any = importlib._bootstrap  # noqa: SLF001 - there is no public way to see imports
    bootstrap._find_and_load = _kept(bootstrap._find_and_load)  # noqa: SLF001 - as above


def _begin_in_child() -> None:
    _main[:] = [threading.get_ident()]
    vars(_own).clear()  # else all workers of a loader would wait equally long


def _divided(name: str, of_main: Callable[..., Any]) -> Callable[..., Any]:
    main, this_thread, frame = _main, threading.get_ident, sys._getframe  # noqa: SLF001 - for its caller

    @functools.wraps(of_main)
    def function(*args: Any, **kwargs: Any) -> Any:
        if this_thread() == main[0]:
            caller = frame().f_back  # there is none where C calls, as at exit
            if caller is None or not _is_clients(caller.f_globals.get("__name__")):
                return of_main(*args, **kwargs)
        return getattr(_generator(), name)(*args, **kwargs)

    function.__module__ = "random"  # by which it is pickled
    function.__qualname__ = name
    return function


def _kept(find_and_load: FunctionType) -> Callable[..., Any]:
    """The function that imports what was not imported before; the main generator stays as it is."""

    def function(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != _main[0]:
            return find_and_load(*args, **kwargs)
        state = random.getstate()
        try:
            return find_and_load(*args, **kwargs)
        finally:
            random.setstate(state)

    # Python leaves the frames of this file out of the tracebacks of an import that failed.
    function.__code__ = function.__code__.replace(co_filename=find_and_load.__code__.co_filename)
    return functools.wraps(find_and_load)(function)


@lru_cache(maxsize=1024)
def _is_clients(module: object) -> bool:
    """Whether a module, by its name, is one of `CLIENTS` or lies in one."""
    parts = str(module).split(".")
    return parts[0] in CLIENTS or ".".join(parts[:2]) in CLIENTS


def _generator() -> random.Random:
    """The own one of the thread that asks, seeded by the system."""
    generator: random.Random | None = getattr(_own, "generator", None)
    if generator is None:
        generator = _own.generator = random.Random()  # noqa: S311 - no secret
    return generator
