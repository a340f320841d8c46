"""Signs of life of a flow run, so that a run that was killed can be told from one that works.

Prefect's own heartbeat ends every flow with a wait of up to a second (it sleeps in steps of one).
This one sends the same event, ends at once, and keeps the background server from counting as idle.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from epochal.flows.servers.prefect import touch_servers

EVERY_S = 30.0


@contextmanager
def own_heartbeat() -> Iterator[None]:
    """Around the call of a flow: Prefect sends no heartbeat of its own."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


@contextmanager
def beating(*, every_s: float = EVERY_S) -> Iterator[None]:
    """Inside a flow: sends `prefect.flow-run.heartbeat` at once and then every `every_s` seconds.

    Does nothing where Prefect beats itself, as in a run that a worker started.
    """
    from prefect.settings import get_current_settings

    if get_current_settings().flows.heartbeat_frequency is not None:
        yield
        return
    from prefect.context import FlowRunContext
    from prefect.events import emit_event

    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        raise RuntimeError("beating() is for the inside of a flow")
    run = context.flow_run
    resource = {"prefect.resource.id": f"prefect.flow-run.{run.id}"}
    resource["prefect.resource.name"] = run.name
    over = threading.Event()

    def beat() -> None:
        while True:
            emit_event(event="prefect.flow-run.heartbeat", resource=resource)
            touch_servers()
            if over.wait(every_s):
                return

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
