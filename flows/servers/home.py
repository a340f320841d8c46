"""The note about the local servers: `$PREFECT_HOME/epochal.json`, its lock, its time of use.

Knows files only: starts nothing, stops nothing, asks no server.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from epochal.data.errors import PreflightFailed
from epochal.tasks.private_files import private_file


class Server(BaseModel):
    """A server in the background, as far as it is known before its process begins.

    name: `prefect`, `mlflow` or `worker`. port: where it answers on loopback. log: path of its
    output. stops_when_idle: whether it ends by itself when nobody needs it. serves: MLflow's own
    store, or the API of the worker's Prefect server.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    name: str
    port: int
    log: str
    stops_when_idle: bool = False
    serves: str | None = None

    @property
    def url(self) -> str:
        """Where the server, and its UI if it has one, is."""
        return f"http://127.0.0.1:{self.port}"


class ServerRecord(Server):
    """A server that was started. started: its `processes.start_mark`: with the pid it is unique.

    A pid alone is not: the system gives it to another process after this one's end.
    """

    pid: int = Field(gt=1)
    started: str


class _Note(BaseModel):
    servers: dict[str, ServerRecord]


class NoteDamagedError(Exception):
    """The note is there, but it is not what this version writes."""


@dataclass(frozen=True)
class ServerHome:
    """The folder where Prefect keeps its state, and Epochal's files in it."""

    folder: Path

    @classmethod
    def current(cls) -> ServerHome:
        """The folder that `PREFECT_HOME` and `HOME` name at this moment."""
        named = os.environ.get("PREFECT_HOME") or "~/.prefect"
        return cls(Path(named).expanduser().absolute())

    @property
    def note(self) -> Path:
        """The JSON file that names the servers."""
        return self.folder / "epochal.json"

    @property
    def touched(self) -> Path:
        """The empty file whose modification time is that of the last command."""
        return self.folder / "epochal.touch"

    def log(self, name: str) -> Path:
        """The file that takes the output of the server of this name."""
        return self.folder / f"epochal-{name}.log"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Only one process at a time is in this block; the lock ends with its holder.

        Raises PreflightFailed if the folder cannot be written.
        """
        lock = FileLock(self.folder / "epochal.lock", mode=0o600)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            name = "PREFECT_HOME" if os.environ.get("PREFECT_HOME") else "HOME"
            raise PreflightFailed(
                f"{name}: {lock.lock_file} cannot be written ({error}); set {name} to a folder of "
                "yours"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def read(self) -> dict[str, ServerRecord]:
        """The servers of the note, by name; empty if there is none. Raises NoteDamagedError."""
        try:
            return _Note.model_validate_json(self.note.read_bytes()).servers
        except FileNotFoundError:
            return {}
        except ValidationError as error:
            raise NoteDamagedError(f"{self.note}: {error}") from error

    def write(self, records: Mapping[str, ServerRecord]) -> None:
        """Replaces the note atomically, or deletes it if there is no server. Needs the lock."""
        if not records:
            self.note.unlink(missing_ok=True)
            return
        temporary = private_file(self.note.with_suffix(f".{os.getpid()}.tmp"))
        temporary.write_text(_Note(servers=dict(records)).model_dump_json(indent=1) + "\n")
        temporary.replace(self.note)

    def touch(self) -> None:
        """Notes that a command of Epochal is at work now."""
        private_file(self.touched)

    def last_touch(self) -> float:
        """When a command was last at work (seconds since the epoch); 0 for never."""
        try:
            return self.touched.stat().st_mtime
        except FileNotFoundError:
            return 0.0
