"""Brings a run's points to the trackers beside MLflow: each by a thread here and a process there.

    runs/<name>/delivered/also-<digest>/<generation>/<stage key>.<every n>.json    once it has them

A tracker that fails, hangs or is not installed is said once and then left alone: training goes on,
and the next command gives it what it lacks. Each point at least once: a stage without such a marker
is sent as a whole, and parts of an epoch at work leave none.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from queue import SimpleQueue
from typing import Any

from epochal.data.documents import dump_document
from epochal.data.errors import CorruptObject
from epochal.data.hashing import digest
from epochal.data.secrets import masked
from epochal.data.stage_store.stages import StageRecord, StageStore
from epochal.data.types import Target, in_json
from epochal.tasks.planning.run_view import BestEpoch
from epochal.tasks.private_files import private_file, private_folder
from epochal.tasks.session.session import EpochPart
from epochal.tasks.stages.registry import KINDS
from epochal.tasks.trackers.tracker import RunInfo
from epochal.tasks.tracking.background import Status, Tracker, TrackerResult
from epochal.tasks.tracking.connection import tracking_home
from epochal.tasks.tracking.points import LogEvery, PointReader, Row

ANSWER_S = 60.0
"""How long a tracker may take for what it is given at once."""
END_S = 10.0
"""How long the end of a command waits for one."""
_BATCH = 2000  # points in one document
_OWN_VARIABLES = ("PREFECT_", "MLFLOW_", "DATABRICKS_")


class TrackerFailedError(Exception):
    """What a tracker raised, or that it did not answer."""


@dataclass(frozen=True)
class _End:
    status: Status


class OtherTracker:
    """One tracker beside MLflow. place: in the config, for messages."""

    def __init__(
        self,
        target: Target,
        run: RunInfo,
        *,
        place: str,
        stages: StageStore,
        log_every: LogEvery,
        measures: Sequence[tuple[str, Any]],
        notice: Callable[[str], None],
    ) -> None:
        self._target, self._run, self._place = target, run, place
        self._stages, self._notice, self._log_every = stages, notice, log_every
        self._records: dict[str, StageRecord] = {}
        self._reader = PointReader(
            stages, log_every=log_every, history=self._records, measures=measures
        )
        identity: Any = [target.target, in_json(target.args)]
        generation = run.reference.rpartition("@")[2]
        self._folder = (
            f"runs/{run.name}/delivered/also-{digest('tracker', identity)[:16]}/{generation}"
        )
        self._queue: SimpleQueue[StageRecord | EpochPart | _End] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="epochal-also", daemon=True)
        # What follows belongs to the thread.
        self._process: _Process | None = None
        self._marked: set[str] | None = None
        self._latest: dict[str, int] = {}
        self._failed = False

    def start(self) -> None:
        """Starts the thread; the process comes with the first points."""
        self._thread.start()

    def deliver(self, item: StageRecord | EpochPart) -> None:
        """Takes a finished stage, or what is committed of an epoch; returns at once."""
        self._queue.put(item)

    def end(self, status: Status) -> None:
        """Nothing more will come; returns at once."""
        self._queue.put(_End(status))

    def join(self, timeout_s: float) -> None:
        """Waits for the thread; then ends the process if it still has one, and says so."""
        self._thread.join(timeout_s)
        process = self._process
        if process is not None:
            process.end()
            self._tell("it does not answer")

    def _work(self) -> None:
        while True:
            item = self._queue.get()
            try:
                if isinstance(item, _End):
                    self._close(item.status)
                elif not self._failed:
                    self._take(item)
            except Exception as error:  # noqa: BLE001 - the edge of the thread: training goes on
                self._tell(str(error) or type(error).__name__)
            if isinstance(item, _End):
                return

    def _take(self, item: StageRecord | EpochPart) -> None:
        if isinstance(item, EpochPart):
            rows = self._reader.part_points(item).steps
            self._send([row for row in rows if row.step > self._latest.get(row.key, 0)])
            return
        self._records[item.key] = item
        if self._marked is None:
            listed = self._stages.store.listing(self._folder)
            self._marked = {path.rpartition("/")[2] for path in listed}
        suffixes = self._log_every.suffixes if "updates" in item.artifacts else ("all",)
        markers = [f"{item.key}.{suffix}.json" for suffix in suffixes]
        if KINDS[item.stage].points is None or any(marker in self._marked for marker in markers):
            return
        with suppress(CorruptObject):  # MLflow's delivery tells of it, and has it made again
            points = self._reader.stage_points(item)
            self._send([
                *(row for row in points.steps if row.step > self._latest.get(row.key, 0)),
                *points.whole,
            ])  # fmt: skip
            body = {"stage": item.stage, "epoch": item.epoch, "points": len(points)}
            with suppress(FileExistsError):
                self._stages.store.put_new(f"{self._folder}/{markers[-1]}", dump_document(body))
            self._marked.add(markers[-1])

    def _send(self, rows: Sequence[Row]) -> None:
        if self._process is None and rows:
            self._process = _Process(self._place)
            opened = self._target.model_dump(mode="json")
            self._process.ask({"open": opened, "run": asdict(self._run)})
        for start in range(0, len(rows), _BATCH):
            sent = rows[start : start + _BATCH]
            assert self._process is not None
            self._process.ask(
                {"log": [[row.key, row.step, row.timestamp_ms, row.value] for row in sent]}
            )
            for row in sent:
                self._latest[row.key] = max(row.step, self._latest.get(row.key, 0))

    def _close(self, status: Status) -> None:
        if self._process is not None and not self._failed:
            self._process.ask({"close": status})
        if self._process is not None:
            self._process.end()
            self._process = None

    def _tell(self, problem: str) -> None:
        if self._process is not None:
            self._process.end()
            self._process = None
        if not self._failed:
            self._failed = True
            self._notice(
                f"{self._place} ({self._target.target}): {masked(problem.strip())[:600]}; training "
                "goes on without it, and the next command gives it what it lacks"
            )


class _Process:
    """The tracker's process, which has none of the variables that hold other trackers' secrets."""

    def __init__(self, place: str) -> None:
        answers, theirs = os.pipe()
        folder = tracking_home()
        private_folder(folder)
        try:
            with private_file(folder / "trackers.log").open("ab") as log:
                self._process = subprocess.Popen(  # noqa: S603 - this Python, and a place's name
                    [sys.executable, "-P", "-m", __name__.replace("delivery", "process"), place,
                     str(theirs)],
                    stdin=subprocess.PIPE,
                    stdout=log,  # what a tracker prints is no output of the command
                    stderr=log,
                    pass_fds=(theirs,),
                    start_new_session=True,
                    env={
                        name: value
                        for name, value in os.environ.items()
                        if not name.startswith(_OWN_VARIABLES)
                    },
                )  # fmt: skip
        finally:
            os.close(theirs)
        self._answers = answers
        self._received = b""

    def ask(self, document: Mapping[str, Any]) -> None:
        """Sends it and waits for the answer. Raises TrackerFailedError."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(document).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise TrackerFailedError(
                "its process has ended; see ~/.epochal/trackers.log"
            ) from error
        answer = json.loads(self._line(time.monotonic() + ANSWER_S))
        if "error" in answer:
            raise TrackerFailedError(answer["error"])

    def _line(self, deadline: float) -> bytes:
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            while b"\n" not in self._received:
                if not selector.select(max(deadline - time.monotonic(), 0)):
                    raise TrackerFailedError(f"it did not answer in {ANSWER_S:.0f} s")
                data = os.read(self._answers, 1 << 16)
                if not data:
                    raise TrackerFailedError("its process has ended; see ~/.epochal/trackers.log")
                self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line

    def end(self) -> None:
        """Ends the process, which has all that it will get."""
        with suppress(OSError):
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin,):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        with suppress(OSError):
            os.close(self._answers)


class RunTrackers:
    """MLflow and the trackers beside it, as one."""

    def __init__(self, mlflow: Tracker, others: Sequence[OtherTracker]) -> None:
        self._mlflow, self._others = mlflow, tuple(others)

    @property
    def uri(self) -> str:
        """Where MLflow is, to be shown."""
        return self._mlflow.uri

    @property
    def page(self) -> str | None:
        """The run's page below the address of MLflow's UI, or None while it is not known."""
        return self._mlflow.page

    def start(self, *, computing: bool = False, forks: bool = False) -> None:
        """Starts all; arguments as of MLflow's."""
        self._mlflow.start(computing=computing, forks=forks)
        for other in self._others:
            other.start()

    def deliver(self, record: StageRecord) -> None:
        """Takes a finished stage, computed or found; returns at once."""
        self._mlflow.deliver(record)
        for other in self._others:
            other.deliver(record)

    def deliver_part(self, part: EpochPart) -> None:
        """Takes the committed part of a running epoch; returns at once."""
        self._mlflow.deliver_part(part)
        for other in self._others:
            other.deliver(part)

    def finish(
        self,
        status: Status,
        *,
        best: BestEpoch | None,
        tags: Mapping[str, str],
        hurried: bool | None = None,
    ) -> TrackerResult:
        """Delivers what is left and ends all; raises nothing. Gives how MLflow's ended."""
        for other in self._others:
            other.end(status)
        result = self._mlflow.finish(status, best=best, tags=tags, hurried=hurried)
        deadline = time.monotonic() + END_S
        for other in self._others:
            other.join(max(deadline - time.monotonic(), 0.1))
        return result
