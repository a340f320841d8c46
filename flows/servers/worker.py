"""The worker of this machine: the process that runs deployments. Imports no Prefect."""

from __future__ import annotations

import os
import socket
import sys

from epochal.flows.servers.home import ServerHome, ServerRecord
from epochal.flows.servers.prefect import server_environment
from epochal.flows.servers.processes import (
    find_or_start,
    is_alive,
    port_of,
    read_note,
    reserve_port,
    start_detached,
)

WORK_POOL = "epochal"
HEALTH = "/health"


def worker_name() -> str:
    """The name of this machine's worker, as Prefect's UI shows it."""
    return f"{WORK_POOL} on {socket.gethostname()}"


def worker_runs(api_url: str) -> bool:
    """Whether the worker that `up` starts here runs what that server has."""
    record = read_note(ServerHome.current()).get("worker")
    return record is not None and is_alive(record) and record.serves == api_url


def begin_worker(api_url: str) -> tuple[ServerRecord, bool]:
    """The worker of the Prefect server with this API, and whether this call started it."""
    home = ServerHome.current()
    with home.lock():
        return find_or_start(
            "worker", home=home, port=None, serves=api_url, start=lambda: _start(home, api_url)
        )


def _start(home: ServerHome, api_url: str) -> ServerRecord:
    with reserve_port(0) as reserved:  # at this port it answers whether it is polling
        bound = port_of(reserved)
    return start_detached(
        [
            *(sys.executable, "-P", "-m", "epochal.flows.worker", "worker", "start"),
            *("--pool", WORK_POOL, "--type", "process", "--name", worker_name()),
            *("--install-policy", "never", "--with-healthcheck"),
        ],
        name="worker",
        home=home,
        port=bound,
        serves=api_url,
        environment={
            **server_environment(),
            "PREFECT_API_URL": api_url,
            "PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1",
            "PREFECT_WORKER_WEBSERVER_PORT": str(bound),
            # How long a run that was started in the UI waits; the server is on this machine.
            "PREFECT_WORKER_QUERY_SECONDS": os.environ.get("PREFECT_WORKER_QUERY_SECONDS", "3"),
        },
    )
