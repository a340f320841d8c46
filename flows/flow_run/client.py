"""Prefect in this process: which server it talks to, what it prints, what its errors mean.

Imports Prefect when a function is called, not before. Knows no flow.
"""

from __future__ import annotations

import importlib
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar

from epochal.data.errors import Interrupted, ServerUnavailable
from epochal.data.store.retry import RetryPolicy
from epochal.flows.environment import importing

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

# Loggers that tell of Prefect's own work; the last two are named after its background services.
_OWN = ("prefect", "httpx", "httpcore", "websockets", "APILogWorker", "EventsWorker")
# Prefect raises a plain RuntimeError with these texts when a client opens; an address or a version
# follows.
_REFUSALS = ("Failed to reach API at ", "Found incompatible versions: ")
_BUSY_STATUS = (
    *(HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.INTERNAL_SERVER_ERROR),
    *(HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT),
)
PAUSE_S = 1.0
"""Between two tries: an error that comes at once would else be tried without end."""
T = TypeVar("T")
_API_URL = "PREFECT_API_URL"
_DRAIN_S = 10.0
# With waits of 2, 4 and 8 s. Prefect's default is 5, and it asks twice when a flow ends: two
# minutes of silence after the training.
_RETRIES = 3


@contextmanager
def talking_to(api_url: str) -> Iterator[None]:
    """Inside the block Prefect talks to `api_url`; the errors of its client become ours.

    A server that goes away is waited for 14 s per request.
    Raises ServerUnavailable if the server failed, Interrupted if it ended or paused the run.
    """
    before = os.environ.get(_API_URL)
    os.environ[_API_URL] = api_url
    imported = "prefect.context" in sys.modules
    with importing():
        from prefect.context import refresh_global_settings_context
        from prefect.exceptions import Abort, CancelledRun, Pause
        from prefect.settings import (
            PREFECT_API_URL,
            PREFECT_CLIENT_MAX_RETRIES,
            temporary_settings,
        )
    if imported:  # it has read the environment already, and its threads keep that
        refresh_global_settings_context()
    settings = {PREFECT_API_URL: api_url, PREFECT_CLIENT_MAX_RETRIES: _RETRIES}
    try:
        with temporary_settings(settings):
            yield
    except (Abort, CancelledRun, Pause) as error:
        raise Interrupted(
            f"Prefect's server at {api_url} ended the run: {_text(error)}; what was committed is "
            "intact, run the same command to go on"
        ) from error
    except Exception as error:
        if not _is_servers(error):
            raise
        raise ServerUnavailable(
            f"Prefect's server at {api_url} failed: {_text(error)}; what was committed is intact, "
            "run the same command to go on"
        ) from error
    finally:
        if before is None:
            del os.environ[_API_URL]
        else:
            os.environ[_API_URL] = before


def begun_patiently(
    call: Callable[[], T], *, begun: Callable[[], bool], notice: Callable[[str], None]
) -> T:
    """What `call` gives; called again while the server is too busy, as long as nothing has begun.

    A store that does not answer is waited for as long (`EPOCHAL_STORE_PATIENCE_SECONDS`). Each call
    takes 14 s where the server answers 503, which Prefect's client itself tries again.
    begun: whether work has begun; then no error is tried again. Raises what `call` raises.
    """
    policy = RetryPolicy.of_environment(hurried=lambda: False, notice=notice)
    started = time.monotonic()
    told = False
    while True:
        try:
            return call()
        except Exception as error:
            left_s = policy.seconds - (time.monotonic() - started)
            if begun() or left_s <= 0 or not _is_busy(error):
                raise
            if not told:
                policy.notice(
                    f"Prefect's server does not take the run ({_text(error)}); it is tried again "
                    f"for {left_s:.0f} s"
                )
                told = True
        threading.Event().wait(min(PAUSE_S, left_s))


def _is_busy(error: BaseException) -> bool:
    """Whether the same request may succeed in a moment."""
    import httpx

    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in _BUSY_STATUS
    return _is_servers(error) and isinstance(error, httpx.TransportError | RuntimeError)


@contextmanager
def quiet_console() -> Iterator[None]:
    """Inside the block Prefect prints nothing; its log lines and tracebacks still reach its API.

    What the user's code logs is shown as before. At the end the log lines and task states that
    are still on their way are sent, so that the UI is complete and nothing is printed later.
    """
    with importing():
        importlib.import_module("prefect.main")  # sets logging up
        from prefect.events.worker import EventsWorker
        from prefect.logging.handlers import APILogWorker
    handlers = _console_handlers()
    for handler in handlers:
        handler.addFilter(_is_not_prefects)
    # A server that is away makes the sender of logs write to stderr itself, unless this is off.
    shown, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        yield
    except BaseException as error:
        if _is_servers(error):
            _drop_events()
        raise
    finally:
        # In a thread: beside a running event loop, as in a notebook, it only gives a coroutine.
        with ThreadPoolExecutor(1) as outside:
            for sender in (APILogWorker, EventsWorker):
                outside.submit(sender.drain_all, timeout=_DRAIN_S).result()
        logging.raiseExceptions = shown
        for handler in handlers:
            handler.removeFilter(_is_not_prefects)


def current_flow_run() -> FlowRun | None:
    """The flow run in which this is called; None outside of one."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    return None if context is None else context.flow_run


def server_errors() -> tuple[type[BaseException], ...]:
    """What Prefect's client raises if its server fails, is unreachable, or has lost the run.

    What a client raises while it opens is a plain RuntimeError: `talking_to` knows it by its words.
    """
    import httpx
    from prefect.exceptions import ObjectNotFound
    from websockets.exceptions import WebSocketException

    return (httpx.HTTPError, httpx.InvalidURL, ObjectNotFound, WebSocketException)


def _is_servers(error: BaseException) -> bool:
    if isinstance(error, RuntimeError):
        return str(error).startswith(_REFUSALS)
    return isinstance(error, server_errors())


def _drop_events() -> None:
    """Forgets the events that a dead server will not take: each would cost 7 s at the exit."""
    from prefect.events.worker import EventsWorker

    senders = EventsWorker._instances  # type: ignore[misc] # noqa: SLF001 - no public way
    for sender in list(senders.values()):
        with suppress(queue.Empty):
            while True:
                sender._queue.get_nowait()  # noqa: SLF001


def _text(error: BaseException) -> str:
    """One line: an error's class, message and, where it says more, its cause."""
    cause = error.__cause__
    parts = [f"{type(error).__name__}: {error}"]
    if cause is not None and str(cause) not in str(error):
        parts.append(f"{type(cause).__name__}: {cause}")
    return " ".join(" · ".join(parts).split())


def _console_handlers() -> list[logging.Handler]:
    """The handlers of Prefect's logging that write to the terminal."""
    from prefect.logging.handlers import PrefectConsoleHandler, _SafeStreamHandler

    named = [logging.getLogger(name) for name in list(logging.root.manager.loggerDict)]
    handlers = [handler for logger in [logging.root, *named] for handler in logger.handlers]
    kinds = (PrefectConsoleHandler, _SafeStreamHandler)
    return [handler for handler in dict.fromkeys(handlers) if isinstance(handler, kinds)]


def _is_not_prefects(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] not in _OWN
