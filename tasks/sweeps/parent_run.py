"""The sweep's own run in MLflow, the parent of its runs, and what MLflow has of these.

MLflow that is away stops no sweep: then nothing is known, and the next command delivers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from epochal.data.errors import EpochalError
from epochal.data.hashing import digest
from epochal.data.secrets import masked
from epochal.tasks.config.parts import TrackingConfig
from epochal.tasks.runs.run_plans import read_plans
from epochal.tasks.sweeps.tree import PlannedRun, Tree
from epochal.tasks.tracking.connection import (
    IDENTITY_TAG,
    RunIdentity,
    connect,
    find_or_create_run,
    tracking_uri,
)
from epochal.tasks.tracking.mlflow_run import FINISHED, TrackedRun

PARENT_TAG = "mlflow.parentRunId"
SWEEP_TAG = "epochal.sweep"


class ParentRun:
    """The sweep in MLflow. `run_id`: None while it could not be reached."""

    def __init__(
        self,
        tracking: TrackingConfig,
        *,
        sweep: str,
        store: str,
        local_mlflow: str | None,
        notice: Callable[[str], None],
    ) -> None:
        self._uri = tracking_uri(tracking, local_server=local_mlflow)
        self._experiment, self._sweep, self._store = tracking.experiment, sweep, store
        self._notice, self._told = notice, False
        self._run: TrackedRun | None = None
        self._client: Any = None
        self._patiently(self._begin)

    @property
    def run_id(self) -> str | None:
        """MLflow's id of it."""
        return None if self._run is None else self._run.run_id

    def _begin(self) -> None:
        self._client = connect(self._uri)
        identity = RunIdentity(
            name=self._sweep,
            generation=1,
            branched_from=None,
            shared_epochs=None,
            identity=digest("sweep", [self._sweep, self._store]),
        )
        found = find_or_create_run(
            self._client,
            uri=self._uri,
            experiment=self._experiment,
            run=identity,
            tags={SWEEP_TAG: self._sweep, "epochal.store": self._store},
        )
        run = TrackedRun(self._client, found, may_write=lambda: None)
        run.begin()
        self._run = run

    def delivered(self, planned: PlannedRun, tree: Tree) -> str | None:
        """MLflow's id of a run that is whole, if all of it is there; made a child of this one."""
        found: list[str] = []

        def look() -> None:
            identity = _identity(planned, tree)
            if self._run is None or identity is None:
                return
            runs = self._client.search_runs(
                [self._run.experiment_id], f"tags.`{IDENTITY_TAG}` = '{identity}'", max_results=1
            )
            for run in runs:
                if run.info.status != FINISHED:
                    return
                if run.data.tags.get(PARENT_TAG) != self._run.run_id:
                    self._client.set_tag(run.info.run_id, PARENT_TAG, self._run.run_id)
                    self._client.set_tag(run.info.run_id, SWEEP_TAG, self._sweep)
                found.append(str(run.info.run_id))

        self._patiently(look)
        return found[0] if found else None

    def found(self, planned: PlannedRun, tree: Tree) -> str | None:
        """MLflow's id of a run, whatever it has of it."""
        found: list[str] = []

        def look() -> None:
            identity = _identity(planned, tree)
            if self._run is None or identity is None:
                return
            runs = self._client.search_runs(
                [self._run.experiment_id], f"tags.`{IDENTITY_TAG}` = '{identity}'", max_results=1
            )
            found.extend(str(run.info.run_id) for run in runs)

        self._patiently(look)
        return found[0] if found else None

    def end(
        self,
        status: str,
        *,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        body: Mapping[str, Any],
    ) -> None:
        """Writes what the sweep has come to."""

        def write() -> None:
            if self._run is not None:
                self._run.describe(params, [])
                self._run.log_document("sweep.json", body, tag="epochal.sweep_table")
                self._run.end(status, tags)

        self._patiently(write)

    def _patiently(self, call: Callable[[], None]) -> None:
        try:
            call()
        except EpochalError as error:
            self._tell(str(error))
        except Exception as error:  # noqa: BLE001 - MLflow, its plugins and drivers raise anything
            self._tell(f"{type(error).__name__}: {error}")

    def _tell(self, problem: str) -> None:
        if not self._told:
            self._told = True
            first = problem.partition("\n")[0][:400]
            self._notice(
                f"MLflow at {masked(self._uri)}: {first}; the sweep's own run is missing there, "
                "and the next command writes it"
            )


def _identity(planned: PlannedRun, tree: Tree) -> str | None:
    """By which MLflow's run of these stages is found; None if they were never planned."""
    name = planned.member.name
    for entry in read_plans(tree.stage_store.store, name):
        if [stage.key for stage in entry.plan.stages] == planned.keys:
            return entry.plan.identity
    return None
