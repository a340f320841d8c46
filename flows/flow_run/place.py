"""Where a run works: one that a worker started, in the folder of its config."""

from __future__ import annotations

from contextlib import AbstractContextManager, chdir, nullcontext
from pathlib import Path

from epochal.tasks.config.run import RunConfig


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
