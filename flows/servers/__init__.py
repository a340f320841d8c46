"""Servers and UIs on this machine, behind `epochal up` and `epochal down`.

The one door to this folder: files outside import from here alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from epochal.data.errors import InputError
from epochal.flows.servers import mlflow as mlflow_server
from epochal.flows.servers import prefect as prefect_server
from epochal.flows.servers import worker as worker_server
from epochal.flows.servers.configured import check_answers, configured_api_url
from epochal.flows.servers.home import ServerHome
from epochal.flows.servers.mlflow import local_mlflow_uri, mlflow_ui_of
from epochal.flows.servers.own_pages import own_pages_only
from epochal.flows.servers.prefect import (
    PrefectServer,
    StartingServer,
    begin_prefect_server,
    ensure_prefect_server,
    prefect_answers,
    touch_servers,
)
from epochal.flows.servers.processes import (
    is_alive,
    read_note,
    reserve_port,
    start_mark,
    stop,
    surviving,
    wait_until_answers,
)
from epochal.flows.servers.worker import WORK_POOL, worker_name, worker_runs

__all__ = [
    "MLFLOW_PORT",
    "PREFECT_PORT",
    "WORK_POOL",
    "DownResult",
    "PrefectServer",
    "ServerHome",
    "StartingServer",
    "UpResult",
    "begin_prefect_server",
    "check_answers",
    "configured_api_url",
    "down",
    "ensure_prefect_server",
    "is_alive",
    "local_mlflow_uri",
    "mlflow_ui_of",
    "own_pages_only",
    "prefect_answers",
    "read_note",
    "start_mark",
    "touch_servers",
    "up",
    "worker_name",
    "worker_runs",
]

PREFECT_PORT = prefect_server.PREFERRED_PORT
MLFLOW_PORT = mlflow_server.PREFERRED_PORT
MLFLOW_TIMEOUT_S = 180.0
WORKER_TIMEOUT_S = 120.0
# The worker first: its flow runs report their end to Prefect's server.
_STOP_ORDER = ("worker", "mlflow", "prefect")


@dataclass(frozen=True)
class UpResult:
    """Where everything is. started: names of what this call started; the rest ran already."""

    prefect_api: str
    prefect_ui: str
    mlflow_ui: str
    work_pool: str
    started: tuple[str, ...]
    logs: tuple[str, ...]


@dataclass(frozen=True)
class DownResult:
    """stopped: names of what ran and was stopped."""

    stopped: tuple[str, ...]


def up(*, prefect_port: int | None = None, mlflow_port: int | None = None) -> UpResult:
    """Starts Prefect's and MLflow's servers and a worker, or finds them; returns when they answer.

    A port that is None is the usual one or, if that is taken, a free one.
    Raises InputError for a port that cannot be had, ServerUnavailable if a server does not start.
    """
    _check_ports(prefect=prefect_port, mlflow=mlflow_port)
    starting = _begin_prefect(prefect_port)
    mlflow, mlflow_started = mlflow_server.begin_mlflow_server(port=mlflow_port)
    prefect = starting.wait()
    worker, worker_started = worker_server.begin_worker(prefect.api_url)
    wait_until_answers(mlflow, mlflow_server.HEALTH, timeout_s=MLFLOW_TIMEOUT_S)
    wait_until_answers(worker, worker_server.HEALTH, timeout_s=WORKER_TIMEOUT_S)
    flags = {"prefect": prefect.started, "mlflow": mlflow_started, "worker": worker_started}
    records = [starting.record, mlflow, worker]
    return UpResult(
        prefect_api=prefect.api_url,
        prefect_ui=prefect.ui_url,
        mlflow_ui=mlflow.url,
        work_pool=WORK_POOL,
        started=tuple(name for name, started in flags.items() if started),
        logs=tuple(record.log for record in records if record is not None),
    )


def down() -> DownResult:
    """Stops every server that `up` or `train` started here; doing it again does nothing."""
    home = ServerHome.current()
    if not home.folder.is_dir():
        return DownResult(stopped=())
    with home.lock():
        records = {**surviving(home), **read_note(home)}
        known = [records[name] for name in _STOP_ORDER if name in records]
        stopped = tuple(
            record.name
            for record in known
            if stop(record, home=home, started_first=record.name == "worker")
        )
        home.write({})
    return DownResult(stopped=stopped)


def _check_ports(**asked: int | None) -> None:
    """Raises InputError for a port that cannot be had, before anything is started."""
    running = read_note(ServerHome.current())
    ports = {name: port for name, port in asked.items() if port is not None}
    if len(set(ports.values())) < len(ports):
        raise InputError(f"port {ports['prefect']}: asked for twice; name two ports")
    for name, port in ports.items():
        record = running.get(name)
        if record is None or not is_alive(record):  # else the server itself says what is wrong
            reserve_port(port, required=True).close()


def _begin_prefect(port: int | None) -> StartingServer:
    configured = configured_api_url()
    if configured is None or (port is not None and _is_loopback(configured, port=port)):
        return prefect_server.begin_local_server(stops_when_idle=False, port=port)
    if port is not None:
        raise InputError(
            f"port {port}: PREFECT_API_URL is {configured}, and that server is used; leave the "
            "port out, or unset PREFECT_API_URL"
        )
    return begin_prefect_server()


def _is_loopback(api_url: str, *, port: int) -> bool:
    hosts = ("127.0.0.1", "localhost")
    return api_url.rstrip("/") in {f"http://{host}:{port}/api" for host in hosts}
