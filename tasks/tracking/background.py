"""The tracker of one run: takes finished stages and delivers them to MLflow on its own thread.

Training never waits for MLflow and never fails because of it. A failed delivery is reported once,
and the next command delivers the rest: the store knows what is missing (`tasks.tracking.exporter`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Literal, Protocol

from epochal.data.errors import EpochalError
from epochal.data.secrets import masked
from epochal.data.stage_store.stages import StageRecord, StageStore
from epochal.tasks.planning.run_view import BestEpoch
from epochal.tasks.session.session import EpochPart
from epochal.tasks.tracking.connection import (
    LINEAGE_TAG,
    RunIdentity,
    connect,
    find_or_create_run,
    quiet,
    unreachable,
)
from epochal.tasks.tracking.exporter import Exporter
from epochal.tasks.tracking.mlflow_models import Graphs, log_best_model, log_links
from epochal.tasks.tracking.mlflow_run import FINISHED, About, DataEntry, TrackedRun
from epochal.tasks.tracking.model_folder import ModelSource
from epochal.tasks.tracking.points import Direction, LogEvery, PointReader

__all__ = ["DataEntry", "ModelSource", "RunIdentity", "Status", "Tracker", "TrackerResult"]

Status = Literal["FINISHED", "FAILED", "KILLED"]

STOPPED_TAG = "epochal.stopped_early"
"""The epoch that early stopping ended the run with."""
PREFECT_TAG = "epochal.prefect_run"
"""The page of the flow run that has last computed something of it."""
ERROR_TAG = "epochal.error"
"""What a run failed with, and where in the user's own files."""
MAX_TAG = 5000
"""Characters that every MLflow's database takes for a tag."""
AWAY_S = 8.0
"""How long `finish` waits for a tracker that no longer answers."""
STUCK_S = 60.0
"""How long it waits for one that answers but gets nothing done."""
KILLED_S = 12.0
"""How long it waits at all if the run is being killed: Prefect grants 30 s."""
RACED_TRIES = 4
"""How often something is written that another process may write at the same moment.

MLflow looks whether a row is there and then inserts it: of two runs that start together, on the
same data or in a new experiment, one is told that it broke a rule of the database.
"""
_RACED = "IntegrityError"
_TRAINING = "workflowType=machine_learning"
"""Without it MLflow's pages begin with traces of language models, whatever the experiment is."""
_OF_SYSTEM = "mlflow.system_metrics.system_metrics_monitor"
RETRY_S = 15.0
"""Pause between two tries while the tracker is away."""


PICTURES_TAG, PICTURES_DUE_TAG = "epochal.pictures", "epochal.pictures_due"
"""Which pictures a run in MLflow has, and which it is to have since a command ended well."""


class Pictures(Protocol):
    """The pictures of a whole run. They come when its status is told: nobody waits for them."""

    def identity(self, records: Mapping[str, StageRecord]) -> str:
        """What they are of, as a digest."""

    def deliver(
        self,
        run: TrackedRun,
        records: Mapping[str, StageRecord],
        *,
        may_write: Callable[[], None],
        here: bool,
    ) -> None:
        """Draws what is due, or has it drawn. may_write: called now and then, raises to stop it.

        here: not in another process, so that errors are raised.
        """


@dataclass(frozen=True)
class TrackerResult:
    """How the delivery ended.

    run_id: MLflow's, or None while nothing could be delivered. uri: without a password.
    problem: what is left, or None.
    """

    run_id: str | None
    uri: str
    problem: str | None


@dataclass(frozen=True)
class _Finish:
    status: Status
    best: BestEpoch | None
    tags: Mapping[str, str]


class _AbandonedError(Exception):
    """Raised in the thread once nobody waits for it any more, so that it writes nothing."""


class Tracker:
    """One run's way to MLflow: `start`, `deliver` each stage, `finish`.

    params, tags, data, model, pictures: what MLflow shows of the run. about: makes what else it
    shows, in the tracker's thread. graphs: makes that of the best model. prefect_page: address of
    the flow run. log_every_updates, per_group and thinned leave out part of what is delivered.
    measures: metric, and which way is better, of the best epoch. notice: called once if MLflow is
    away, from the tracker's thread.
    """

    def __init__(
        self,
        *,
        uri: str,
        experiment: str,
        run: RunIdentity,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        stages: StageStore,
        log_every_updates: int,
        per_group: bool,
        notice: Callable[[str], None],
        data: Sequence[DataEntry] = (),
        model: ModelSource | None = None,
        pictures: Pictures | None = None,
        thinned: bool = True,
        measures: Sequence[tuple[str, Direction]] = (),
        about: Callable[[], About] | None = None,
        prefect_page: str | None = None,
        graphs: Graphs | None = None,
        system_metrics: bool = False,
    ) -> None:
        self._uri = uri
        self._experiment = experiment
        self._identity = run
        self._params = dict(params)
        self._initial_tags = dict(tags)
        self._stages = stages
        self._log_every = LogEvery(log_every_updates, per_group, thinned)
        self._make_about = about
        self._prefect_page = prefect_page
        self._graphs = graphs
        self._system_metrics = system_metrics
        self._monitor: Any = None
        self._notice = notice
        self._data = tuple(data)
        self._model = model
        self._pictures = pictures
        self._queue: SimpleQueue[StageRecord | EpochPart | _Finish] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="epochal-tracker", daemon=True)
        self._settled = threading.Event()
        self._ended = threading.Event()
        self._moved = time.monotonic()
        self._abandoned = False
        self._computing = False
        # The attributes below belong to the thread.
        self._run: TrackedRun | None = None
        self._exporter: Exporter | None = None
        self._records: dict[str, StageRecord] = {}
        self._reader = PointReader(
            stages, log_every=self._log_every, history=self._records, measures=measures
        )
        self._about: About | None = None
        self._pending: dict[str, StageRecord] = {}
        self._part: EpochPart | None = None
        self._tried = -RETRY_S
        self._problem: str | None = None
        self._told = False

    @property
    def uri(self) -> str:
        """Where MLflow is, to be shown."""
        return masked(self._uri)

    @property
    def page(self) -> str | None:
        """The run's page below the address of MLflow's UI, or None while it is not known."""
        run = self._run
        if run is None:
            return None
        return f"#/experiments/{run.experiment_id}/runs/{run.run_id}?{_TRAINING}"

    def start(self, *, computing: bool = False, forks: bool = False) -> None:
        """Starts the thread and returns at once.

        computing: something will be computed, so the run shows as running from now on, not only
        from its first new stage. forks: processes will be forked from this one, so it waits until
        MLflow is imported: a child forked meanwhile would hang at the locks of half an import.
        """
        self._computing = computing
        self._thread.start()
        if forks:
            self._settled.wait(timeout=STUCK_S)

    def deliver(self, record: StageRecord) -> None:
        """Takes a finished stage, computed or found; returns at once."""
        self._queue.put(record)

    def deliver_part(self, part: EpochPart) -> None:
        """Takes the committed part of a running epoch; returns at once. A newer one replaces it."""
        self._queue.put(part)

    def finish(
        self,
        status: Status,
        *,
        best: BestEpoch | None,
        tags: Mapping[str, str],
        hurried: bool | None = None,
    ) -> TrackerResult:
        """Delivers what is left, sets the status and ends the thread; raises nothing.

        Waits for a tracker that works, about 10 s for one that is away. hurried: waits 12 s at
        most; None: if the run is being killed.
        """
        hurried = status == "KILLED" if hurried is None else hurried
        self._queue.put(_Finish(status, best, dict(tags)))
        started = time.monotonic()
        while not self._ended.wait(0.2):
            now = time.monotonic()
            idle = now - max(self._moved, started)
            if (
                (hurried and now - started > KILLED_S)
                or idle > STUCK_S
                or (idle > AWAY_S and unreachable(self._uri) is not None)
            ):
                self._abandoned = True
                self._tell("it does not answer")
                break
        run = self._run
        return TrackerResult(None if run is None else run.run_id, self.uri, self._problem)

    def _work(self) -> None:
        self._attempt()
        self._settled.set()
        while True:
            taken = self._take()
            finish = next((item for item in taken if isinstance(item, _Finish)), None)
            for item in taken:
                if isinstance(item, StageRecord):
                    self._records[item.key] = self._pending[item.key] = item
                elif isinstance(item, EpochPart):
                    self._part = item
            if finish is not None or time.monotonic() - self._tried >= RETRY_S or self._exporter:
                self._attempt(finish)
            if finish is not None:
                self._ended.set()
                return

    def _take(self) -> list[StageRecord | EpochPart | _Finish]:
        # Waits for one item, then takes all that have gathered: they share requests.
        taken = [self._queue.get()]
        while True:
            try:
                taken.append(self._queue.get_nowait())
            except Empty:
                return taken

    def _attempt(self, finish: _Finish | None = None, *, tries: int = RACED_TRIES) -> None:
        self._tried = time.monotonic()
        try:
            run, exporter = self._connected()
            report = exporter.deliver(list(self._pending.values()))
            self._pending = {
                key: record for key, record in self._pending.items() if key not in report.delivered
            }
            part, self._part = self._part, None
            if part is not None and part.key not in self._records:
                exporter.deliver_part(part)
            self._problem = "; ".join(report.problems) or None
            if self._about is not None:  # behind the points: these need no place for files
                run.log_files(self._about.files)
            if finish is not None:
                self._finish_run(run, finish)
        except _AbandonedError:
            return
        except EpochalError as error:
            self._failed(str(error))
        except Exception as error:  # noqa: BLE001  # MLflow, its plugins and its drivers raise
            # anything, and this is the edge of the thread: training goes on.
            if _RACED in str(error) and tries > 1:
                self._exporter = None  # asks again what is there by now
                self._attempt(finish, tries=tries - 1)
                return
            self._failed(f"{type(error).__name__}: {error}")

    def _failed(self, problem: str) -> None:
        # What MLflow holds now is not known: the next try asks it again.
        self._exporter = None
        self._tell(problem.partition("\n")[0][:400])

    def _tell(self, problem: str) -> None:
        self._problem = masked(f"MLflow at {self._uri}: {problem}")
        if not self._told:
            self._told = True
            self._notice(
                f"{self._problem}. Nothing is lost: what is not delivered stays in the store, and "
                "the next command delivers it"
            )

    def _connected(self) -> tuple[TrackedRun, Exporter]:
        if self._run is not None and self._exporter is not None:
            return self._run, self._exporter
        client = connect(self._uri)
        self._may_write()
        if self._about is None and self._make_about is not None:
            self._about = self._make_about()
        about = self._about
        mlflow_run = find_or_create_run(
            client,
            uri=self._uri,
            experiment=self._experiment,
            run=self._identity,
            tags={**({} if about is None else about.tags), **self._initial_tags},
            title=None if about is None else about.title,
        )
        run = TrackedRun(client, mlflow_run, may_write=self._may_write)
        run.set_tags(self._identity.lineage_tag(run.tag(LINEAGE_TAG)))
        run.describe(self._params, self._data)
        if about is not None:
            self._describe_origin(run, about)
        if self._computing:
            run.begin()
            self._watch_machine(run.run_id)
        self._run = run
        self._exporter = Exporter(
            run,
            stages=self._stages,
            name=self._identity.name,
            log_every=self._log_every,
            reader=self._reader,
        )
        return self._run, self._exporter

    def _watch_machine(self, run_id: str) -> None:
        """Has MLflow note what the machine does, in a thread of its own, until the run ends."""
        if not self._system_metrics or self._monitor is not None:
            return
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        monitor: Any = SystemMetricsMonitor  # it has no types
        with quiet(_OF_SYSTEM):
            self._monitor = monitor(run_id, resume_logging=True, tracking_uri=self._uri)
            self._monitor.start()

    def _describe_origin(self, run: TrackedRun, about: About) -> None:
        page = run.tag(PREFECT_TAG)
        if self._prefect_page is not None and (page is None or self._computing):
            page = self._prefect_page
            run.set_tags({PREFECT_TAG: page})
        link = "" if page is None else f"\n\n[The flow run in Prefect]({page})"
        run.log_note(f"{about.note}{link}")

    def _may_write(self) -> None:
        if self._abandoned:
            raise _AbandonedError
        self._moved = time.monotonic()

    def _finish_run(self, run: TrackedRun, finish: _Finish) -> None:
        tags = {**self._initial_tags, **finish.tags}
        if STOPPED_TAG not in tags and run.tag(STOPPED_TAG) is not None:
            tags[STOPPED_TAG] = "no"  # it has continued since, with more patience
        if ERROR_TAG not in tags and run.tag(ERROR_TAG) is not None:
            tags[ERROR_TAG] = "none"  # it has gone on since
        if self._monitor is not None:
            with quiet(_OF_SYSTEM):
                self._monitor.finish()
            self._monitor = None
        whole = finish.status == FINISHED
        if whole and finish.best is not None:
            tags["epochal.best_epoch"] = str(finish.best.epoch)
        pictures = self._pictures if whole else None
        # Those of a command before have not come: what hinders them is to be told this time.
        owed = run.tag(PICTURES_DUE_TAG) not in (None, run.tag(PICTURES_TAG))
        if pictures is not None:
            tags[PICTURES_DUE_TAG] = pictures.identity(self._records)
        try:
            if whole:
                self._log_models(run, finish.best)
        finally:  # the status is set even if a file could not be uploaded
            run.end(finish.status, tags)
        if pictures is not None:
            pictures.deliver(run, self._records, may_write=self._may_write, here=owed)

    def _log_models(self, run: TrackedRun, best: BestEpoch | None) -> None:
        trained = [record for record in self._records.values() if record.stage == "train"]
        log_links(run, trained, stages=self._stages)
        if best is None or self._model is None:
            return
        for record in trained:
            if record.epoch == best.epoch:
                log_best_model(
                    run,
                    record,
                    artifact=best.artifact,
                    stages=self._stages,
                    source=self._model,
                    may_write=self._may_write,
                    graphs=self._graphs,
                )
