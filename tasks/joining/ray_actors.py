"""Ray's actors: each starts one process that joins a run, on the node that Ray chooses.

The first is on the node of the run, whose buffer it shares. An actor whose process or node is gone
is made again; trainers are started again by the run, in the seats there are.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # this process reports to nobody

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from epochal.tasks.joining.connection import TOKEN
from epochal.tasks.joining.engine import command, end_with_starter, environment

_THREADS = "OMP_NUM_THREADS"  # which Ray sets to an actor's CPUs


class Joining:
    """One actor."""

    def join(self, given: Mapping[str, Any], token: str, threads: str | None) -> int:
        """Has a process join until the run ends; gives its exit code."""
        variables = environment(token)
        variables.pop(_THREADS, None)
        if threads is not None:
            variables[_THREADS] = threads
        joining = command("relay", {**given, "mark": os.devnull, "place": 0})
        return subprocess.run(joining, env=variables, check=False).returncode  # noqa: S603 - this Python


def main(given: dict[str, Any]) -> None:
    """Works until all processes have ended well.

    given: `address`, `workers`, `wait_s`; `cluster` to use, or None for a Ray of its own; `gpu`:
    whether each may have one.
    """
    end_with_starter()
    token = os.environ.pop(TOKEN)
    ray.init(**_cluster(given["cluster"], given["workers"]), logging_level="warning")
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    gpus = int(given["gpu"] and ray.cluster_resources().get("GPU", 0) > 0)
    told = {"address": given["address"], "wait_s": given["wait_s"]}
    kind = ray.remote(num_cpus=1, num_gpus=gpus)(Joining)

    def begun(number: int) -> Any:
        placed = kind.options(scheduling_strategy=here if number == 0 else "DEFAULT")
        actors[number] = placed.remote()
        return actors[number].join.remote(told, token, os.environ.get(_THREADS))

    actors: dict[int, Any] = {}
    working = {begun(number): number for number in range(given["workers"])}
    while working:
        (ended,), _ = ray.wait(list(working), num_returns=1)
        number = working.pop(ended)
        try:
            code = ray.get(ended)
        except RayError as error:
            sys.stderr.write(f"an actor of Ray is gone, and made again: {_first_line(error)}\n")
            code = -signal.SIGKILL
        if code:
            ray.kill(actors[number])
            working[begun(number)] = number
    ray.shutdown()


def _cluster(address: str | None, workers: int) -> dict[str, Any]:
    if address is not None:
        return {"address": address}
    cpus = max(workers, os.cpu_count() or 1)
    return {"address": "local", "num_cpus": cpus, "include_dashboard": False}


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
