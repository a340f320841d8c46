"""MLflow and Prefect as small models: what they keep, and how they are known to fail."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

from support.simulator.clock import Here, VirtualLock, VirtualTime
from support.simulator.faults import Faults

from epochal.data.errors import Unavailable

ANSWER_S = 0.02
"""A request takes up to so long."""


class ServiceFailed(Exception):
    """What a client of MLflow raises."""


class _Held:
    """One run, as the database has it."""

    def __init__(self, number: int, experiment: str, name: str, tags: dict[str, str]) -> None:
        self.id, self.experiment, self.name = f"run-{number}", experiment, name
        self.started_ms = int(VirtualTime.time() * 1000)
        self.status = "RUNNING"
        self.tags, self.params = dict(tags), dict[str, str]()
        self.points: Counter[tuple[str, int, int, float]] = Counter()
        self.inputs: list[object] = []
        self.files: dict[str, dict] = {}
        self.deleted = False

    def shown(self) -> SimpleNamespace:
        """As a client sees it."""
        latest: dict[str, int] = {}
        for key, step, _, _ in self.points:
            latest[key] = max(step, latest.get(key, step))
        metrics = [SimpleNamespace(key=key, step=step) for key, step in sorted(latest.items())]
        return SimpleNamespace(
            info=SimpleNamespace(
                run_id=self.id,
                experiment_id=self.experiment,
                status=self.status,
                start_time=self.started_ms,
            ),
            data=SimpleNamespace(
                tags=dict(self.tags),
                params=dict(self.params),
                to_proto=lambda: SimpleNamespace(metrics=metrics),
            ),
            inputs=SimpleNamespace(dataset_inputs=list(self.inputs)),
        )


class SimulatedMlflow:
    """The database behind all clients, and what a client asks: see `mlflow.MlflowClient`.

    A point with the same key, step, time and value is one row, as MLflow's own table has it. Two
    that make one experiment or one tag's row at the same moment: one is told that it broke a rule.
    """

    def __init__(self, faults: Callable[[], Faults]) -> None:
        self._faults = faults
        self._numbers = itertools.count(1)
        self.runs: dict[str, _Held] = {}
        self.experiments: dict[str, SimpleNamespace] = {}
        self.lock = VirtualLock()

    def _request(self, name: str, operation: Callable[[], object]) -> object:
        scheduler = Here.scheduler
        assert scheduler is not None
        kind = self._faults().strike("tracker", name)
        scheduler.note(f"mlflow {name} {kind or ''}")
        if kind == "kill" and scheduler.process is not None:
            scheduler.kill(scheduler.process)
        scheduler.sleep(scheduler.random.uniform(0.0, ANSWER_S))
        match kind:
            case "unavailable":
                raise ServiceFailed("503 Service Unavailable")
            case "locked":
                raise ServiceFailed("(sqlite3.OperationalError) database is locked")
            case "duplicate":
                raise ServiceFailed("(sqlite3.IntegrityError) UNIQUE constraint failed")
        found = operation()
        scheduler.switch(f"mlflow {name} done")
        if kind == "lost_answer":
            raise ServiceFailed("Connection aborted")
        return found

    def get_experiment_by_name(self, name: str) -> object:
        return self._request("get_experiment", lambda: self.experiments.get(name))

    def create_experiment(self, name: str, artifact_location: object, tags: dict) -> object:
        del artifact_location

        def create() -> str:
            from mlflow.exceptions import MlflowException

            if name in self.experiments:
                raise MlflowException("Experiment already exists")
            made = SimpleNamespace(experiment_id="1", lifecycle_stage="active", tags=dict(tags))
            self.experiments[name] = made
            return made.experiment_id

        return self._request("create_experiment", create)

    def set_experiment_tag(self, experiment_id: str, name: str, value: str) -> None:
        del experiment_id, name, value

    def search_runs(self, experiments: list[str], text: str, max_results: int) -> object:
        del experiments, max_results
        name, _, value = text.removeprefix("tags.").partition(" = ")
        name, value = name.strip("`"), value.strip("'")

        def search() -> list[SimpleNamespace]:
            held = self.runs.values()
            return [one.shown() for one in held if one.tags.get(name) == value and not one.deleted]

        return self._request("search_runs", search)

    def create_run(self, experiment_id: str, run_name: str, tags: dict[str, str]) -> object:
        def create() -> SimpleNamespace:
            made = _Held(next(self._numbers), experiment_id, run_name, tags)
            self.runs[made.id] = made
            return made.shown()

        return self._request("create_run", create)

    def delete_run(self, run_id: str) -> None:
        self._request("delete_run", lambda: setattr(self.runs[run_id], "deleted", True))

    def get_run(self, run_id: str) -> object:
        return self._request("get_run", self.runs[run_id].shown)

    def update_run(self, run_id: str, status: str) -> None:
        self._request("update_run", lambda: setattr(self.runs[run_id], "status", status))

    def set_terminated(self, run_id: str, status: str) -> None:
        self._request("set_terminated", lambda: setattr(self.runs[run_id], "status", status))

    def log_inputs(self, run_id: str, datasets: list[object]) -> None:
        self._request("log_inputs", lambda: self.runs[run_id].inputs.extend(datasets))

    def log_batch(
        self, run_id: str, metrics: object = (), params: object = (), tags: object = ()
    ) -> None:
        held = self.runs[run_id]

        def log() -> None:
            for one in params:
                held.params.setdefault(one.key, one.value)
            for one in tags:
                held.tags[one.key] = one.value
            for one in metrics:
                held.points[one.key, one.step, one.timestamp, one.value] = 1

        self._request("log_batch", log)

    def log_dict(self, run_id: str, body: dict, name: str) -> None:
        self._request("log_dict", lambda: self.runs[run_id].files.update({name: body}))

    def get_metric_history(self, run_id: str, key: str) -> object:
        def history() -> list[SimpleNamespace]:
            return [
                SimpleNamespace(step=step) for name, step, _, _ in self.runs[run_id].points
                if name == key
            ]  # fmt: skip

        return self._request("get_metric_history", history)

    @contextmanager
    def locked(self, name: str = "mlflow") -> Iterator[None]:
        """In place of `tracker_lock`: a file's lock, which goes with the process that has it."""
        del name
        scheduler = Here.scheduler
        assert scheduler is not None
        lock, process = self.lock, scheduler.process
        if lock._owner is not None and lock._owner.process is not None:
            owner = lock._owner.process
            scheduler.wait(lambda: lock._owner is None or not owner.alive, "MLflow's lock")
            if not owner.alive:
                self.lock = lock = VirtualLock()
        lock.acquire()
        try:
            yield
        finally:
            if process is None or process.alive:
                lock.release()


class SimulatedPrefect:
    """The orchestrator, as far as a run meets it: it is asked before each stage and after it."""

    def __init__(self, faults: Callable[[], Faults]) -> None:
        self._faults = faults

    def report(self, name: str) -> None:
        """A state of a task that is told. Raises Unavailable where nobody answers."""
        scheduler = Here.scheduler
        assert scheduler is not None
        kind = self._faults().strike("orchestrator", name)
        scheduler.note(f"prefect {name} {kind or ''}")
        if kind == "kill" and scheduler.process is not None:
            scheduler.kill(scheduler.process)
        scheduler.sleep(scheduler.random.uniform(0.0, ANSWER_S))
        if kind in {"unavailable", "lost_answer"}:
            raise Unavailable("Prefect does not answer: run the same command when it is back")
