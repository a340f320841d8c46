"""One MLflow run as it is written to: every call writes only what the run does not hold yet.

Called again with the same, nothing is written. Knows nothing of stages or of the store.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from epochal.data.hashing import bytes_sha256, digest
from epochal.tasks.printable import printable
from epochal.tasks.tracking.connection import quiet_end
from epochal.tasks.tracking.names import mlflow_name, mlflow_names
from epochal.tasks.tracking.points import Row

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

__all__ = ["About", "DataEntry", "Row", "TrackedRun", "mlflow_name", "param_value"]

MAX_ROWS = 1000
"""MLflow's limit for the metrics of one request."""
MAX_PARAM_CHARS = 500
MAX_DATA_DIGEST_CHARS = 36
MAX_NOTE_CHARS = 5000
"""That every MLflow's database takes for a tag."""
RUNNING, FINISHED = "RUNNING", "FINISHED"
NOTE_TAG, NOTE_SHA256_TAG = "mlflow.note.content", "epochal.note_sha256"
FILES_TAG = "epochal.files_sha256"


@dataclass(frozen=True)
class DataEntry:
    """A data set of the run, as MLflow shows it; it is not opened.

    context: `train` or `validation`. source: what it comes from, plain JSON. profile: numbers of
    it, such as how many samples it has. schema: MLflow's own form of what an item is.
    """

    context: str
    name: str
    fingerprint: str
    source: Mapping[str, JsonValue]
    profile: Mapping[str, JsonValue] = field(default_factory=dict)
    schema: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True)
class About:
    """What MLflow shows of a run beside its numbers.

    title: its name there. tags: of where it comes from, written as it is made. note: its
    description, Markdown. files: artifacts by their paths.
    """

    title: str
    tags: Mapping[str, str]
    note: str
    files: Mapping[str, bytes]


def param_value(text: str) -> str:
    """`text`, or its beginning and its digest if it is too long for every MLflow."""
    text = printable(text)
    if len(text) <= MAX_PARAM_CHARS:
        return text
    tail = f"… sha256 {digest('param', text)[:16]}"
    return text[: MAX_PARAM_CHARS - len(tail)] + tail


class TrackedRun:
    """An MLflow run. `may_write` is called before each write and raises to stop it.

    Methods raise what MLflow raises; then make a new object of the run as it is by then.
    """

    def __init__(self, client: MlflowClient, run: Run, *, may_write: Callable[[], None]) -> None:
        self._client = client
        self._run = run
        self._may_write = may_write
        self._status = str(run.info.status)
        self._tags = dict(run.data.tags)
        self._latest = {metric.key: metric.step for metric in run.data.to_proto().metrics}
        self._held: dict[str, set[int]] = {}
        self.touched = False
        """Whether this object has written to the run."""

    @property
    def client(self) -> MlflowClient:
        """The client that the run is written with."""
        return self._client

    @property
    def run_id(self) -> str:
        """MLflow's id."""
        return str(self._run.info.run_id)

    @property
    def experiment_id(self) -> str:
        """MLflow's id of the experiment."""
        return str(self._run.info.experiment_id)

    def tag(self, name: str) -> str | None:
        """The tag's value, as far as this object knows."""
        return self._tags.get(name)

    def begin(self) -> None:
        """Sets the status RUNNING, which stays until `end`, also after a kill."""
        self._may_write()
        if self._status != RUNNING:
            self._client.update_run(self.run_id, status=RUNNING)
            self._status = RUNNING
        self.touched = True

    def describe(self, params: Mapping[str, str], data: Sequence[DataEntry]) -> None:
        """Writes the parameters and data sets that are not there.

        MLflow refuses to change a parameter: the first value stands, a tag names the others.
        """
        from mlflow.entities import Param

        names = mlflow_names(params)
        wanted = {names[name]: param_value(value) for name, value in params.items()}
        held = self._run.data.params
        missing = [Param(name, value) for name, value in wanted.items() if name not in held]
        changed = {
            "epochal.changed_params": param_value(
                "; ".join(
                    f"{name}: {held[name]} → {value}"
                    for name, value in sorted(wanted.items())
                    if held.get(name, value) != value
                )
            )
        }
        if missing or (changed["epochal.changed_params"] and self._differing(changed)):
            self._may_write()
            self._client.log_batch(self.run_id, params=missing)
            self.set_tags(changed if changed["epochal.changed_params"] else {})
        inputs = self._run.inputs
        if data and not (inputs is not None and inputs.dataset_inputs):
            self._may_write()
            self._client.log_inputs(self.run_id, datasets=[_data_input(entry) for entry in data])

    def refresh(self) -> None:
        """Reads again what the run holds: another process may have delivered meanwhile."""
        run = self._client.get_run(self.run_id)
        self._latest = {metric.key: metric.step for metric in run.data.to_proto().metrics}
        self._held = {}

    def is_new(self, row: Row) -> bool:
        """Whether the step is later than all points of that key that the run holds."""
        return bool(row.step > self._latest.get(row.key, -1))

    def holds(self, row: Row) -> bool:
        """Whether the run holds a point of that key and step, as far as this object knows."""
        if self.is_new(row):
            return False
        if row.key not in self._held:
            history = self._client.get_metric_history(self.run_id, row.key)
            self._held[row.key] = {metric.step for metric in history}
        return row.step in self._held[row.key]

    def log_rows(self, rows: Iterable[Row]) -> None:
        """Writes points, in requests of 1000 at most."""
        from mlflow.entities import Metric

        metrics = [Metric(row.key, row.value, row.timestamp_ms, row.step) for row in rows]
        for start in range(0, len(metrics), MAX_ROWS):
            self.begin()
            sent = metrics[start : start + MAX_ROWS]
            self._client.log_batch(self.run_id, metrics=sent)
            for metric in sent:
                self._latest[metric.key] = max(self._latest.get(metric.key, -1), metric.step)
                if metric.key in self._held:
                    self._held[metric.key].add(metric.step)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Writes the tags that differ."""
        from mlflow.entities import RunTag

        tags = {name: printable(value) for name, value in tags.items()}
        differing = self._differing(tags)
        if differing:
            self._may_write()
            self._client.log_batch(
                self.run_id, tags=[RunTag(name, value) for name, value in differing.items()]
            )
            self._tags.update(differing)

    def log_document(self, name: str, body: Mapping[str, Any], *, tag: str) -> None:
        """Writes `body` as the artifact `name`, if it is not the one whose digest `tag` holds."""
        sha256 = digest("mlflow-document", json.dumps(body, sort_keys=True))
        if self._tags.get(tag) == sha256:
            return
        self._may_write()
        self._client.log_dict(self.run_id, dict(body), name)
        self.set_tags({tag: sha256})

    def log_note(self, text: str) -> None:
        """Writes the run's description, unless a person has written another."""
        held = self._tags.get(NOTE_TAG)
        if held is None or digest("mlflow-note", held) == self._tags.get(NOTE_SHA256_TAG):
            text = printable(text)[:MAX_NOTE_CHARS]
            self.set_tags({NOTE_TAG: text, NOTE_SHA256_TAG: digest("mlflow-note", text)})

    def log_files(self, files: Mapping[str, bytes]) -> None:
        """Writes the files as artifacts, unless the run has them as they are."""
        body = sorted([name, bytes_sha256(data)] for name, data in files.items())
        sha256 = digest("mlflow-files", body)
        if not files or self._tags.get(FILES_TAG) == sha256:
            return
        self._may_write()
        with tempfile.TemporaryDirectory(prefix="epochal-files-") as scratch:
            for name, data in files.items():
                path = Path(scratch) / name
                assert path.resolve().is_relative_to(Path(scratch).resolve()), name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            self._client.log_artifacts(self.run_id, scratch)
        self.set_tags({FILES_TAG: sha256})

    def end(self, status: str, tags: Mapping[str, str]) -> None:
        """Sets the status and the tags.

        A finished run stays so if a later command was cut off before it wrote anything.
        """
        if status != FINISHED and not self.touched and self._status != RUNNING:
            return
        self.set_tags(tags)
        if self._status != status:
            self._may_write()
            with quiet_end():
                self._client.set_terminated(self.run_id, status=status)
            self._status = status

    def _differing(self, tags: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in tags.items() if self._tags.get(name) != value}


def _data_input(entry: DataEntry) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    # `code` is MLflow's type for what only a program can open again.
    source = {"tags": {**entry.source, "fingerprint": entry.fingerprint}}
    dataset = Dataset(
        name=entry.name,
        digest=entry.fingerprint[:MAX_DATA_DIGEST_CHARS],
        source_type="code",
        source=json.dumps(source, sort_keys=True),
        schema=json.dumps(entry.schema, sort_keys=True) if entry.schema else None,
        profile=json.dumps(entry.profile, sort_keys=True) if entry.profile else None,
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", entry.context)])
