"""Signs of life of a flow run, so that a run that was killed can be told from one that works.

Prefect's own heartbeat ends every flow with a wait of up to a second (it sleeps in steps of one).
This one sends the same event, ends at once, and keeps the background server from counting as idle.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, chdir, contextmanager, nullcontext
from pathlib import Path

from epochal.flows.servers import touch_servers
from epochal.tasks.config.run import RunConfig

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


LOOK_EVERY_S = 1.0
_OUTPUTS = (1, 2)
_DRAIN_S = 5.0


@contextmanager
def ending_with_runner(*, look_every_s: float = LOOK_EVERY_S) -> Iterator[None]:
    """Inside a flow: when the parent process is gone, this one gets SIGTERM, so that it commits.

    Does nothing in a run that a command started: that one may outlive its terminal.
    """
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    run = None if context is None else context.flow_run
    if run is None or run.deployment_id is None:
        yield
        return
    from prefect.logging import get_run_logger
    from prefect.logging.handlers import APILogWorker

    logger = get_run_logger()
    parent, over = os.getppid(), threading.Event()

    def watch() -> None:
        while not over.wait(look_every_s):
            if os.getppid() == parent:
                continue
            _drop_broken_outputs()
            logger.warning("The worker or runner that started this run is gone: the run ends too.")
            os.kill(os.getpid(), signal.SIGTERM)
            return

    thread = threading.Thread(target=watch, name="watches-runner", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        if os.getppid() != parent:
            APILogWorker.drain_all(timeout=_DRAIN_S)  # soon nothing can: SIGTERM comes again


def _drop_broken_outputs() -> None:
    """What would be written to a pipe that nobody reads ends the process before it could commit."""
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for output in _OUTPUTS:
            asked = select.poll()
            asked.register(output, 0)
            if any(event & select.POLLERR for _, event in asked.poll(0)):
                os.dup2(nowhere, output)
    finally:
        os.close(nowhere)


def working_place(config: RunConfig) -> AbstractContextManager[None]:
    """Inside a flow: relative paths in the user's own code mean what they mean to a command there.

    A command works where it was called. A worker's process begins in an empty folder: told to
    begin in the config's, Prefect would import what is there before the libraries, and a file of
    the user's named `queue.py` or `types.py` would be taken for Python's own.
    """
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    run = None if context is None else context.flow_run
    by_command = run is None or run.deployment_id is None
    if by_command or not Path(config.folder).is_dir():
        return nullcontext()
    return chdir(config.folder)
