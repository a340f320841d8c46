"""Where MLflow is, and the one MLflow run of a generation: found by tag, or created once.

Only the client is used: no active run, no setting of the user's MLflow is touched. Knows nothing
of stages or of the store.
"""

from __future__ import annotations

import getpass
import logging
import os
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psutil
from filelock import FileLock

from epochal.data.errors import ServerUnavailable
from epochal.data.hashing import digest
from epochal.tasks.config.parts import TrackingConfig
from epochal.tasks.private_files import private_folder

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

IDENTITY_TAG = "epochal.identity"
LINEAGE_TAG = "epochal.lineage"
MAX_LINEAGE = 500  # epochs in a tag, which takes 5,000 characters
KIND_TAG, KIND = "mlflow.experimentKind", "custom_model_development"
"""What MLflow's pages go by: runs and their charts instead of traces of language models."""
PROBE_S = 3.0
DATABASES = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_PORTS = {"http": 80, "https": 443, **DATABASES}
_SQLITE = "sqlite:///"
_SHOWN_CHARACTERS = 2000  # of what MLflow said when it could not make its tables


@dataclass(frozen=True)
class RunIdentity:
    """Which MLflow run belongs to a generation of a run.

    identity: digest that stays the same while the generation grows; the run is found by it.
    lineage: of each epoch digits that stand for its keys: of several stores each may have a first
    generation of that name and beginning, and these are one run only where they agree as far as
    both go. branched_from: `name@generation` that shares `shared_epochs` epochs with it, or None.
    """

    name: str
    generation: int
    branched_from: str | None
    shared_epochs: int | None
    identity: str
    lineage: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What MLflow's list of runs shows: `digits`, from the second generation on `digits@2`."""
        return self.name if self.generation == 1 else f"{self.name}@{self.generation}"

    @property
    def tags(self) -> dict[str, str]:
        """The tags that say so in MLflow."""
        tags = {
            IDENTITY_TAG: self.identity,
            "epochal.run": self.name,
            "epochal.generation": str(self.generation),
            **self.lineage_tag(None),
        }
        if self.branched_from is not None:
            tags["epochal.branched_from"] = self.branched_from
            tags["epochal.shared_epochs"] = str(self.shared_epochs or 0)
        return tags

    def fits(self, held: str | None) -> bool:
        """Whether a run with that lineage tag, or none, is of the same generation."""
        return all(
            own == other for own, other in zip(self.lineage, (held or "").split(), strict=False)
        )

    def lineage_tag(self, held: str | None) -> dict[str, str]:
        """The tag, where it says more than the one that is held."""
        own = self.lineage[:MAX_LINEAGE]
        return {LINEAGE_TAG: " ".join(own)} if len(own) > len((held or "").split()) else {}


def tracking_home() -> Path:
    """The folder of MLflow's store where the config and the environment name none."""
    return Path.home() / ".epochal"


def tracking_uri(config: TrackingConfig, *, local_server: str | None) -> str:
    """The config's address, else MLFLOW_TRACKING_URI, else `local_server`, else SQLite at home."""
    named = config.uri or os.environ.get("MLFLOW_TRACKING_URI") or local_server
    return named or f"{_SQLITE}{tracking_home() / 'mlflow.db'}"


def unreachable(uri: str) -> str | None:
    """Why MLflow at `uri` cannot be reached now, or None. Takes 3 s at most.

    MLflow's own client retries for minutes before it says so. Looks whether the port answers, or
    whether SQLite can read the file; of other addresses nothing is known.
    """
    if is_sqlite(uri):
        return _unreadable(sqlite_path(uri))
    parts = urlsplit(uri)
    port = parts.port or _PORTS.get(parts.scheme.partition("+")[0])
    if parts.hostname is None or port is None or _by_proxy(parts.scheme):
        return None
    try:
        socket.create_connection((parts.hostname, port), timeout=PROBE_S).close()
    except OSError as error:
        return f"{parts.hostname}:{port}: {error}"
    return None


def is_sqlite(uri: str) -> bool:
    """Whether MLflow's store is an SQLite file."""
    return uri.startswith(_SQLITE)


def sqlite_path(uri: str) -> Path:
    """The file of such an address."""
    return Path(uri.removeprefix(_SQLITE).partition("?")[0]).absolute()


def _by_proxy(scheme: str) -> bool:
    names = (f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
    return any(os.environ.get(name) for name in names)


def _unreadable(path: Path) -> str | None:
    try:
        if not path.exists():
            _make_folder(path.parent)
            return None
        opened_to_read(path).close()
    except sqlite3.Error as error:
        # A locked file can be reached: MLflow waits until it is free.
        return None if _name_of(error).startswith(_LOCKED) else f"{path}: {error}"
    except (OSError, UnicodeError) as error:  # also names of tables that are no text
        return f"{path}: {error}"
    return None


def opened_to_read(path: Path) -> sqlite3.Connection:
    """An SQLite file that is there, opened so that looking into it does not change it.

    But for one thing: a process that was killed in a transaction leaves a journal, and until what
    is half done is put back by it nobody can read the file. SQLite does that, where it may write.
    Raises sqlite3.Error where the file is no database, or cannot be read.
    """
    try:
        return _opened(path, mode="ro")
    except sqlite3.OperationalError as error:
        if _name_of(error) not in _HALF_DONE:
            raise
    _opened(path, mode="rw").close()
    return _opened(path, mode="ro")


def _name_of(error: sqlite3.Error) -> str:
    """SQLite's name of an error; nothing where it is Python's own."""
    return getattr(error, "sqlite_errorname", "")


_LOCKED = ("SQLITE_BUSY", "SQLITE_LOCKED")
_HALF_DONE = {"SQLITE_READONLY_ROLLBACK", "SQLITE_READONLY_RECOVERY"}


def _opened(path: Path, *, mode: str) -> sqlite3.Connection:
    database = sqlite3.connect(f"{path.as_uri()}?mode={mode}", timeout=PROBE_S, uri=True)
    try:
        database.execute("SELECT name FROM sqlite_master LIMIT 1").fetchone()
    except sqlite3.Error:
        database.close()
        raise
    return database


def _make_folder(path: Path) -> None:
    """A database's folder: the one at home is private, others are as the umask has it."""
    if path == tracking_home():
        private_folder(path)
    else:
        path.mkdir(parents=True, exist_ok=True)


def connect(uri: str) -> MlflowClient:
    """A client of MLflow at `uri`; a new SQLite file gets its tables, which takes seconds.

    Raises ServerUnavailable if it cannot be reached, and what MLflow raises.
    """
    problem = unreachable(uri)
    if problem is not None:
        raise ServerUnavailable(problem)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # else importing it phones home
    from mlflow import MlflowClient

    # Of two processes that make the same tables one would fail. Its logger reports each table.
    with tracker_lock(), quiet("mlflow.store.db.utils"):
        if is_sqlite(uri):
            make_database(sqlite_path(uri))
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def quiet(name: str) -> Iterator[None]:
    """Inside the block the logger `name` logs nothing below warnings."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def quiet_end() -> Iterator[None]:
    """Keeps `set_terminated` from printing two addresses on standard output."""
    name = "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"
    before = os.environ.get(name)
    os.environ[name] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def find_or_create_run(
    client: MlflowClient,
    *,
    uri: str,
    experiment: str,
    run: RunIdentity,
    tags: Mapping[str, str],
    title: str | None = None,
) -> Run:
    """The active MLflow run of the identity and its lineage; the oldest of several; or a new one.

    title: the name of a new one, where it is to say more than the identity's. A deleted run is not
    found: a new one takes its place. Raises what MLflow raises.
    """
    experiment_id = _experiment_id(client, uri=uri, name=experiment)
    existing = _search(client, experiment_id, run)
    if existing is not None:
        return existing
    with tracker_lock():
        existing = _search(client, experiment_id, run)
        if existing is not None:
            return existing
        created = client.create_run(
            experiment_id,
            run_name=title or run.title,
            tags={**_origin_tags(), **run.tags, **tags},
        )
        # Another machine has another lock: both look again, and both keep the older one.
        oldest = _search(client, experiment_id, run)
    if oldest is None or oldest.info.run_id == created.info.run_id:
        return created
    client.delete_run(created.info.run_id)
    return oldest


def _search(client: MlflowClient, experiment_id: str, identity: RunIdentity) -> Run | None:
    runs = client.search_runs(
        [experiment_id], f"tags.`{IDENTITY_TAG}` = '{identity.identity}'", max_results=100
    )
    fitting = [run for run in runs if identity.fits(run.data.tags.get(LINEAGE_TAG))]
    return min(fitting, key=lambda run: (run.info.start_time, run.info.run_id), default=None)


def _experiment_id(client: MlflowClient, *, uri: str, name: str) -> str:
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return client.create_experiment(
                name, artifact_location=_artifact_location(uri, name), tags={KIND_TAG: KIND}
            )
        except MlflowException:
            experiment = client.get_experiment_by_name(name)  # another process was faster
            if experiment is None:
                raise
    if experiment.lifecycle_stage != "active":
        raise ServerUnavailable(deleted_experiment(name, experiment.experiment_id))
    if KIND_TAG not in experiment.tags:
        client.set_experiment_tag(experiment.experiment_id, KIND_TAG, KIND)
    return str(experiment.experiment_id)


def deleted_experiment(name: str, experiment_id: object) -> str:
    """The error text for an experiment that was deleted, with what to do."""
    return (
        f"tracking.experiment: {name!r} was deleted in MLflow; restore it (`mlflow experiments "
        f"restore -x {experiment_id}`) or name another one"
    )


def _artifact_location(uri: str, name: str) -> str | None:
    """Beside the SQLite file; MLflow itself would take ./mlruns of the working folder."""
    if not is_sqlite(uri):
        return None
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:80]
    folder = plain if plain == name else f"{plain}-{digest('experiment', name)[:8]}"
    return (sqlite_path(uri).parent / "mlartifacts" / folder).as_uri()


def _origin_tags() -> dict[str, str]:
    tags = {"mlflow.source.name": "epochal", "mlflow.source.type": "LOCAL"}
    try:
        tags["mlflow.user"] = getpass.getuser()
    except (KeyError, OSError):  # a container may have a user id without a name
        return tags
    return tags


@contextmanager
def tracker_lock(name: str = "mlflow") -> Iterator[None]:
    """Held by one process of this machine at a time, from looking at MLflow to writing there."""
    lock = FileLock(tracking_home() / f"{name}.lock", mode=0o600)
    try:
        private_folder(tracking_home())
        lock.acquire()
    except OSError:  # no home to write in; of two new runs the older one stays, lock or not
        yield
        return
    try:
        yield
    finally:
        lock.release()  # also what the loader forked meanwhile holds of it, for an epoch


def make_database(path: Path) -> None:
    """Makes the file with MLflow's tables if there is none, which takes seconds.

    In a process of its own, since MLflow keeps connections to what it has opened. Two that make it
    at once both work, and the first one's file stands. Only its owner can read the one at home.
    Raises ServerUnavailable.
    """
    if path.exists():
        return
    _make_folder(path.parent)
    for leftover in path.parent.glob(f".{path.name}.*.new*"):
        with suppress(ValueError, FileNotFoundError):
            if not psutil.pid_exists(int(leftover.name.split(".")[-2])):
                leftover.unlink()
    private = path.with_name(f".{path.name}.{os.getpid()}.new")
    made = subprocess.run(  # noqa: S603 - this Python, and a path
        [sys.executable, "-P", "-m", "mlflow", "db", "upgrade", f"sqlite:///{private}"],
        capture_output=True,
        text=True,
        check=False,
        umask=0o077 if path.parent == tracking_home() else -1,  # -1: as the user has it
    )
    try:
        if made.returncode != 0:
            said = made.stderr.strip()[-_SHOWN_CHARACTERS:]
            raise ServerUnavailable(f"{path}: MLflow could not make its tables: {said}")
        with suppress(FileExistsError):  # another process was faster
            os.link(private, path)
    finally:
        private.unlink(missing_ok=True)
