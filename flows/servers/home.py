"""What is written about the local servers: `$PREFECT_HOME/epochal.json`, its lock, its clock.

Knows files only: starts nothing, stops nothing, asks no server.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from epochal.data.errors import ServerUnavailable


@dataclass(frozen=True)
class ServerRecord:
    """One process that was started in the background.

    name: `prefect`, `mlflow` or `worker`. started: when the process began, as
    `server_processes.start_mark` says it; with the pid it names one process, ever.
    port: where it answers on loopback. log: path of its output.
    stops_when_idle: whether it ends by itself when nobody needs it. serves: MLflow's own store.
    """

    name: str
    pid: int
    started: str
    port: int
    log: str
    stops_when_idle: bool = False
    serves: str | None = None

    @property
    def url(self) -> str:
        """Where the server, and its UI if it has one, is."""
        return f"http://127.0.0.1:{self.port}"


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

        Raises ServerUnavailable if the folder cannot be written.
        """
        path = self.folder / "epochal.lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ServerUnavailable(
                f"{path}: cannot be written ({error}); PREFECT_HOME must name a folder of yours"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def read(self) -> dict[str, ServerRecord]:
        """The servers of the note, by name; empty if there is none. Raises NoteDamagedError."""
        try:
            text = self.note.read_bytes()
        except FileNotFoundError:
            return {}
        try:
            servers = json.loads(text)["servers"]
            records = [record_of(name, entry) for name, entry in servers.items()]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise NoteDamagedError(f"{self.note}: {error}") from error
        return {record.name: record for record in records}

    def write(self, records: Mapping[str, ServerRecord]) -> None:
        """Replaces the note at once; without servers there is none. Call it under the lock."""
        if not records:
            self.note.unlink(missing_ok=True)
            return
        text = json.dumps({"servers": {n: asdict(one) for n, one in records.items()}}, indent=1)
        temporary = self.note.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(text + "\n")
        temporary.replace(self.note)

    def touch(self) -> None:
        """A command of Epochal is at work now."""
        self.touched.touch()

    def last_touch(self) -> float:
        """When a command was last at work (seconds since the epoch); 0 for never."""
        try:
            return self.touched.stat().st_mtime
        except FileNotFoundError:
            return 0.0


def record_of(name: str, entry: Any) -> ServerRecord:
    """The record that `entry` spells out. Raises TypeError or ValueError if it spells none."""
    known = {field.name for field in fields(ServerRecord)}
    record = ServerRecord(**{key: value for key, value in entry.items() if key in known})
    typed = {"pid": int, "port": int, "started": str, "log": str, "stops_when_idle": bool}
    wrong = [key for key, kind in typed.items() if type(getattr(record, key)) is not kind]
    if wrong or record.name != name or record.pid <= 1:
        raise ValueError(f"{name}: unexpected {', '.join(wrong) or 'name or pid'}")
    return record
