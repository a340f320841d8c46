"""What a run tells, kept on this machine: a log of each attempt, and where the attempt stands.

    ~/.epochal/logs/<run>/<when>-<pid>.log     what it says and what its trainers print, with times
    ~/.epochal/logs/<run>/<when>-<pid>.json    the process, the store, the epoch and update at work

Both are for people: nothing that a run computes depends on them, and a home that cannot be written
costs only them.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import psutil

from epochal.data.errors import EpochalError
from epochal.data.traces import failure_text
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.stage import Stage
from epochal.tasks.printable import printable
from epochal.tasks.private_files import private_file, private_folder
from epochal.tasks.reporting import Live, Outcome, Reporter, SilentReporter
from epochal.tasks.stages.registry import KINDS

KEPT = 20
"""Attempts of a run whose logs stay."""

MAX_LOG_BYTES = 64 << 20
MOVED_EVERY_S = 1.0
"""Between two notes of where an epoch stands."""

_SAME_S = 1.0  # a process's start, as told at two times


@dataclass(frozen=True)
class Attempt:
    """An attempt at a run on this machine, as its files tell it. body: what the JSON holds."""

    name: str
    log: Path
    body: Mapping[str, Any]

    @property
    def pid(self) -> int:
        """Of the process that works, or has worked, on it."""
        return int(self.body["pid"])

    @property
    def is_alive(self) -> bool:
        """Whether that process still works on it."""
        if "ended_ms" in self.body:
            return False
        began = _began(self.pid)
        return began is not None and abs(began - float(self.body["began"])) < _SAME_S


def logs_folder() -> Path:
    """Where the logs of all runs are."""
    return Path.home() / ".epochal" / "logs"


def attempts(name: str | None = None) -> list[Attempt]:
    """The attempts at a run, or at all, on this machine, newest first."""
    folder = logs_folder()
    found = []
    for path in sorted(folder.glob(f"{'*' if name is None else name}/*.json")):
        try:
            body = json.loads(path.read_bytes())
            attempt = Attempt(path.parent.name, path.with_suffix(".log"), body)
            _ = attempt.pid, float(body["began"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not written yet, or somebody else's
        found.append(attempt)
    return sorted(found, key=lambda one: one.log.name, reverse=True)


def begin_journal(config: RunConfig, other: Reporter | None) -> tuple[Reporter, Journal]:
    """A reporter that passes everything on and keeps it too, and how it is told of the end."""
    journal = Journal(config, other or SilentReporter())
    # It has all of a reporter's methods: those that it does not keep are the other's own.
    return cast("Reporter", journal), journal


class Journal:
    """Keeps what it is told, and passes all of it on. Never raises."""

    def __init__(self, config: RunConfig, other: Reporter) -> None:
        self._other = other
        self._lock = threading.Lock()
        self._file: int | None = None  # appended to line by line, so there is nothing to flush
        self._moved_s = 0.0
        self._written = 0
        now = datetime.now(UTC)
        self._body: dict[str, Any] = {
            "run": config.name,
            "pid": os.getpid(),
            "began": _began(os.getpid()),
            "started_ms": int(now.timestamp() * 1000),
            "folder": config.folder,
            "store": config.store,
            "epochs": config.epochs,
            "command": _command(),
            "doing": "starting",
            "links": {},
        }
        folder = logs_folder() / config.name
        stem = f"{now:%Y%m%dT%H%M%S.%f}-{os.getpid()}"
        self._note = folder / f"{stem}.json"
        try:
            private_folder(folder.parent.parent)
            private_folder(folder)
            _prune(folder)
            log = private_file(folder / f"{stem}.log")
            self._file = os.open(log, os.O_WRONLY | os.O_APPEND)
        except OSError:
            return  # a home that cannot be written, which `remember_store` tells of
        self._keep(f"{self._body['command']} · pid {os.getpid()}")
        self._save()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._other, name)

    def found(self, *, reference: str, store: str) -> None:
        """The run is open: its generation and its store's address."""
        self._tell(reference=reference, store=store)

    def linked(self, title: str, url: str) -> None:
        """Keeps where the run can be looked at."""
        self._tell(links={**self._body["links"], title: url})
        self._pass("linked", title, url)

    def doing(self, text: str) -> None:
        """Keeps what is done between the stages."""
        self._tell(doing=text)
        self._pass("doing", text)

    def opening(self, text: str) -> None:
        """Keeps the line."""
        self._keep(text)
        self._other.opening(text)

    def started(self, stage: Stage) -> None:
        """Keeps which stage is at work."""
        self._tell(doing=stage.label, epoch=stage.epoch, update=None, num_updates=None)
        self._other.started(stage)

    def resumed(self, epoch: int, update: int, num_updates: int) -> None:
        """Keeps where the epoch goes on."""
        self._keep(f"epoch {epoch} goes on behind update {update} of {num_updates}")
        self._other.resumed(epoch, update, num_updates)

    def live(self, live: Live) -> None:
        """Keeps where the epoch stands, once a second at most."""
        now = time.monotonic()
        if now - self._moved_s >= MOVED_EVERY_S:
            self._moved_s = now
            self._tell(
                epoch=live.epoch,
                update=live.update,
                num_updates=live.num_updates,
                loss=_finite(live.loss),
                learning_rate=_finite(live.learning_rate),
                gradient_norm=_finite(live.gradient_norm),
                samples=live.samples,
            )
        self._other.live(live)

    def ended(self, outcome: Outcome) -> None:
        """Keeps the stage's line."""
        self._keep(_outcome_text(outcome))
        self._other.ended(outcome)

    def notice(self, text: str) -> None:
        """Keeps the note."""
        self._keep(f"note: {text}")
        self._other.notice(text)

    def printed(self, line: str) -> None:
        """Keeps the line."""
        self._keep(line)
        self._other.printed(line)

    def failed(self, error: EpochalError) -> None:
        """Keeps the error with the frames of the user's own files."""
        self._keep(f"error: {failure_text(error)}")
        self._other.failed(error)

    def close(self, end: str) -> None:
        """The attempt is over. end: how, in a word. Again: nothing."""
        if "ended_ms" in self._body:
            return
        self._keep(end)
        self._tell(doing=end, ended_ms=int(time.time() * 1000))
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _pass(self, name: str, *told: Any) -> None:
        method: Callable[..., Any] | None = getattr(self._other, name, None)
        if method is not None:
            method(*told)

    def _tell(self, **told: Any) -> None:
        self._body |= told
        self._save()

    def _save(self) -> None:
        """Replaces the note; nobody reads half of it."""
        if self._file is None:
            return
        with self._lock:
            temporary = self._note.with_suffix(".tmp")
            try:
                private_file(temporary).write_text(json.dumps(self._body), encoding="utf-8")
                temporary.replace(self._note)
            except OSError:
                self._give_up()

    def _give_up(self) -> None:
        """A full disk: the run has more important things to write."""
        if self._file is not None:
            os.close(self._file)
        self._file = None

    def _keep(self, text: str) -> None:
        now = datetime.now().astimezone()
        line = f"{now:%H:%M:%S} {printable(text)}\n"
        with self._lock:
            if self._file is None:
                return
            self._written += len(line)
            if self._written > MAX_LOG_BYTES:
                if self._written - len(line) > MAX_LOG_BYTES:
                    return
                line = "… what follows is in the output alone\n"
            try:
                os.write(self._file, line.encode(errors="replace"))
            except OSError:
                self._give_up()


def _outcome_text(outcome: Outcome) -> str:
    parts = KINDS[outcome.stage.kind].line(outcome.stage, outcome.record)
    parts = [*parts, "cached" if outcome.cached else f"{outcome.seconds:.1f} s"]
    if outcome.resumed_at is not None:
        parts.append(f"went on from micro-step {outcome.resumed_at}")
    return f"{outcome.stage.label}: {' · '.join(parts)}"


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None


def _began(pid: int) -> float | None:
    try:
        process = psutil.Process(pid)
        ended = process.status() in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
        return None if ended else process.create_time()
    except psutil.Error:
        return None


def _command() -> str:
    try:
        line = psutil.Process().cmdline()
    except psutil.Error:
        return ""
    # `/…/python /…/epochal train x.yaml` as a person typed it.
    words = [Path(one).name if place < 2 else one for place, one in enumerate(line)]  # noqa: PLR2004
    return " ".join(words[1:] if words[1:2] == ["epochal"] else words)[:400]


def _prune(folder: Path) -> None:
    """Deletes the oldest attempts but those that live."""
    for note in _oldest(folder):
        for path in (note, note.with_suffix(".log"), note.with_suffix(".tmp")):
            path.unlink(missing_ok=True)


def _oldest(folder: Path) -> Iterator[Path]:
    notes = sorted(folder.glob("*.json"))
    living = {one.log.with_suffix(".json") for one in attempts(folder.name) if one.is_alive}
    yield from (note for note in notes[: max(0, len(notes) + 1 - KEPT)] if note not in living)
