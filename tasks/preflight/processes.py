"""What slows several processes down, seen in the config before they start. No torch."""

from __future__ import annotations

import os
from collections.abc import Iterator

from epochal.tasks.config.run import RunConfig


def notes_on_processes(config: RunConfig, *, threads: int) -> Iterator[str]:
    """Sentences for a person. threads: of torch, in each process."""
    processes, accumulate = config.launch.processes, config.gradients.accumulate
    if processes == 1:
        return
    if accumulate < processes:
        size = config.loader.batch_size
        smaller = f"gradients.accumulate: {processes}, loader.batch_size: {-(-size // processes)}"
        yield (
            f"launch.processes: an update has {accumulate} micro-batches (gradients.accumulate): "
            f"{processes - accumulate} of {processes} processes have nothing to do; {smaller} "
            "deals an update of the same size to all"
        )
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    here = config.launch.processes_here
    fitting = max(1, (available or threads) // here)
    if config.device != "cuda" and here > 1 and threads > fitting:
        yield (
            f"launch.processes: {here} processes of {threads} threads each share {available} "
            f"processors; threads: {fitting} is quicker (another number may "
            "change the last bits)"
        )
