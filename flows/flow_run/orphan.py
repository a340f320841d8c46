"""A flow run that a worker or a runner started ends when that one does, also if it was killed.

Left alone it could no longer be cancelled from Prefect's UI, and nobody would report its end.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

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
