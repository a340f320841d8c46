"""torch's elastic agent: starts the processes of one machine, which join a run, and replaces them.

Who trains with whom is told by the run, so an agent meets no other: each has its machine for
itself. (The agents' own rendezvous over a network would exchange pickles at an open port.)
"""

from __future__ import annotations

import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch.distributed
from torch.distributed.elastic.agent.server.api import WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousStoreInfo,
)

from epochal.tasks.joining.engine import command, end_with_starter

_MANY = 1_000_000
"""Restarts of processes that hold no trainer's state: the run counts those that matter."""


def main(given: dict[str, Any]) -> None:
    """Works until all processes have ended well. given: `address`, `workers`, `wait_s`."""
    end_with_starter()
    with tempfile.TemporaryDirectory(prefix="epochal-engine-") as folder:
        sys.exit(_worked(given, Path(folder) / "mark"))


def _worked(given: dict[str, Any], mark: Path) -> int:
    python, *arguments = command("relay", {**given, "mark": str(mark)})
    spec = WorkerSpec(
        role="epochal",
        local_world_size=given["workers"],
        entrypoint=python,
        args=tuple(arguments),
        rdzv_handler=_OneMachine(),
        max_restarts=_MANY,
    )
    agent = LocalElasticAgent(spec, logs_specs=DefaultLogsSpecs(), start_method="spawn")
    code = 128 + signal.SIGTERM
    with suppress(SignalException):
        code = int(agent.run().is_failed())
    return int(mark.read_text()) if mark.exists() else code


class _OneMachine(RendezvousHandler):
    """The agent of one machine meets itself."""

    def get_backend(self) -> str:
        """Its name."""
        return "one-machine"

    def next_rendezvous(self) -> RendezvousInfo:
        """At once."""
        torchs: Any = torch.distributed  # its stubs do not have all of it
        return RendezvousInfo(torchs.HashStore(), 0, 1, RendezvousStoreInfo("127.0.0.1", 0))

    def is_closed(self) -> bool:
        """Never."""
        return False

    def set_closed(self) -> None:
        """Nobody else is there to hear of it."""

    def num_nodes_waiting(self) -> int:
        """None ever."""
        return 0

    def get_run_id(self) -> str:
        """Any: it is the only one."""
        return "epochal"

    def shutdown(self) -> bool:
        """Nothing is open."""
        return True
