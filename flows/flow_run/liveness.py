"""Blocks around the body of a flow run: a heartbeat, the end of its parent, its folder.

`beating` tells the server that the run works, `ending_with_runner` ends it with the process that
started it, `working_place` makes relative paths mean what they mean to a command.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, chdir, contextmanager, nullcontext
from pathlib import Path

from epochal.flows.flow_run.client import current_flow_run
from epochal.flows.servers import touch_servers
from epochal.tasks.config.run import RunConfig

BEAT_EVERY_S = 30.0
LOOK_EVERY_S = 1.0
_OUTPUTS = (1, 2)  # the descriptors of standard output and standard error
_DRAIN_S = 5.0


@contextmanager
def own_heartbeat() -> Iterator[None]:
    """Around the call of a flow: Prefect sends no heartbeat of its own, so that `beating` does.

    Prefect's own would delay the end of every flow by up to a second.
    """
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


@contextmanager
def beating(*, every_s: float = BEAT_EVERY_S) -> Iterator[None]:
    """Inside a flow: sends `prefect.flow-run.heartbeat` at once and then every `every_s` seconds.

    So a killed run can be told from one that works, and the background server does not count as
    idle. Does nothing where Prefect sends heartbeats itself, as in a run that a worker started.
    """
    from prefect.settings import get_current_settings

    if get_current_settings().flows.heartbeat_frequency is not None:
        yield
        return
    from prefect.events import emit_event

    run = current_flow_run()
    if run is None:
        raise RuntimeError("beating() is for the inside of a flow")
    resource = {"prefect.resource.id": f"prefect.flow-run.{run.id}"}
    resource["prefect.resource.name"] = run.name

    def beat(over: threading.Event) -> None:
        while True:
            emit_event(event="prefect.flow-run.heartbeat", resource=resource)
            touch_servers()
            if over.wait(every_s):
                return

    with _meanwhile(beat, name="heartbeat"):
        yield


@contextmanager
def ending_with_runner(*, look_every_s: float = LOOK_EVERY_S) -> Iterator[None]:
    """Inside a flow: when the parent process is gone, this one gets SIGTERM, so that it commits.

    Does nothing in a run that a command started: that one may outlive its terminal.
    """
    if not _is_of_deployment():
        yield
        return
    from prefect.logging import get_run_logger
    from prefect.logging.handlers import APILogWorker

    logger, parent = get_run_logger(), os.getppid()

    def watch(over: threading.Event) -> None:
        while not over.wait(look_every_s):
            if os.getppid() == parent:
                continue
            _drop_broken_outputs()
            logger.warning("The worker or runner that started this run is gone: the run ends too.")
            os.kill(os.getpid(), signal.SIGTERM)
            return

    try:
        with _meanwhile(watch, name="watches-runner"):
            yield
    finally:
        if os.getppid() != parent:
            APILogWorker.drain_all(timeout=_DRAIN_S)  # now: a second SIGTERM will end all


def working_place(config: RunConfig) -> AbstractContextManager[None]:
    """Inside a flow that a worker runs: works in the config's folder, as relative paths expect.

    A command works where it was called. A worker's process begins in an empty folder: told to
    begin in the config's, Prefect would import what is there before the libraries, and a file of
    the user's named `queue.py` or `types.py` would be taken for Python's own.
    """
    if not _is_of_deployment() or not Path(config.folder).is_dir():
        return nullcontext()
    return chdir(config.folder)


def _is_of_deployment() -> bool:
    """Whether a worker or runner started this run, not a command."""
    run = current_flow_run()
    return run is not None and run.deployment_id is not None


@contextmanager
def _meanwhile(work: Callable[[threading.Event], None], *, name: str) -> Iterator[None]:
    """Beside the block `work` runs in a thread; its argument is set when the block is over."""
    over = threading.Event()
    thread = threading.Thread(target=work, args=(over,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _drop_broken_outputs() -> None:
    """Replaces closed outputs by /dev/null: writing to them would end the process uncommitted."""
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for output in _OUTPUTS:
            poll = select.poll()
            poll.register(output, 0)
            if any(event & select.POLLERR for _, event in poll.poll(0)):
                os.dup2(nowhere, output)
    finally:
        os.close(nowhere)
