"""The MLflow server of this machine: start it, and tell where it is. Imports no MLflow."""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass
from pathlib import Path

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
from epochal.tasks.private_files import close_to_others
from epochal.tasks.tracking.connection import make_database, tracking_home

PREFERRED_PORT = 5000
HEALTH = "/health"
# Accepting a connection is the kernel's work: no answer in this time means that nobody listens.
_CONNECT_TIMEOUT_S = 0.2


@dataclass(frozen=True)
class MlflowHome:
    """Where MLflow keeps what no other server was named for: `$HOME/.epochal`."""

    folder: Path

    @classmethod
    def current(cls) -> MlflowHome:
        """The folder that `HOME` names at this moment."""
        return cls(tracking_home().absolute())

    @property
    def store(self) -> str:
        """The database, as MLflow writes it."""
        return f"sqlite:///{self.database}"

    @property
    def database(self) -> Path:
        """Its file."""
        return self.folder / "mlflow.db"

    @property
    def artifacts(self) -> str:
        """Where artifacts go: a file URL, which clients with and without the server can use."""
        return (self.folder / "artifacts").as_uri()


def local_mlflow_uri() -> str | None:
    """The URI of the MLflow server that `up` started, if it is there."""
    record = read_note(ServerHome.current()).get("mlflow")
    return record.url if record is not None and _listens(record) else None


def mlflow_ui_of(tracking_uri: str) -> str | None:
    """Where a browser shows what this tracking URI holds; None if no server shows it."""
    if tracking_uri.startswith(("http://", "https://")):
        return tracking_uri
    local = local_mlflow_uri()
    return local if tracking_uri == MlflowHome.current().store else None


def begin_mlflow_server(*, port: int | None = None) -> tuple[ServerRecord, bool]:
    """The background server of this PREFECT_HOME and whether this call started it.

    Does not wait. port: where it must be; None for 5000 or, if that is taken, a free one.
    Raises InputError if the port cannot be had.
    """
    home = ServerHome.current()
    with home.lock():
        return find_or_start("mlflow", home=home, port=port, start=lambda: _start(home, port=port))


def _start(home: ServerHome, *, port: int | None) -> ServerRecord:
    mlflow = MlflowHome.current()
    make_database(mlflow.database)
    for own in (mlflow.folder, *mlflow.folder.glob("mlflow.db*")):  # made before, by whatever umask
        close_to_others(own)
    others = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
    environment = {n: value for n, value in server_environment().items() if n not in others}
    with reserve_port(port or PREFERRED_PORT, required=port is not None) as reserved:
        return start_detached(
            [
                *(sys.executable, "-P", "-m", "epochal.flows.serve_mlflow"),
                *("--descriptor", "{fd}"),
                *("--store", mlflow.store, "--artifacts", mlflow.artifacts),
            ],
            name="mlflow",
            home=home,
            port=port_of(reserved),
            serves=mlflow.store,
            listening=reserved,
            owner_only=True,
            environment={**environment, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )


def _listens(record: ServerRecord) -> bool:
    if not is_alive(record):
        return False
    try:
        with socket.create_connection(("127.0.0.1", record.port), timeout=_CONNECT_TIMEOUT_S):
            return True
    except OSError:
        return False
