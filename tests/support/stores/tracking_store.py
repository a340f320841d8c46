"""A store with finished stages as training leaves them, and a look into MLflow's SQLite file."""

import io
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save

from epochal.data.hashing import digest
from epochal.data.stage_store.stages import StageRecord, StageStore
from epochal.data.store.open import open_store
from epochal.tasks.planning.run_view import BestEpoch
from epochal.tasks.tracking.background import RunIdentity, Tracker

UPDATE_KEYS = ("train/loss", "train/learning_rate", "gradients/norm", "gradients/norm/body")
START_MS = 1_700_000_000_000


class Finished:
    """Stages of a run in a fresh store: initialise, then train, validate and mine per epoch."""

    def __init__(
        self, *, epochs, updates=20, keys=UPDATE_KEYS, tensors=None, values=None, metrics=None
    ):
        self.store = open_store(f"memory://{uuid.uuid4().hex}/store")
        self.stages = StageStore(self.store)
        self.updates = updates
        self.keys = keys
        self.tensors = tensors or {"weight": torch.zeros(2)}
        self.values = values or {}
        self.metrics = metrics or {"accuracy": 0.9, "loss": None}
        self.records = [self._put("initialise", None, {}, {})]
        for epoch in range(epochs):
            self.add_epoch(epoch)

    def add_epoch(self, epoch):
        done = (epoch + 1) * self.updates
        artifacts = {"updates": self._artifact("train", epoch, "parquet", self._table(epoch))}
        artifacts["model"] = self._artifact("train", epoch, "safetensors", save(self.tensors))
        begun = START_MS + epoch * 60_000
        self._times("train", epoch, [[0, begun], [self.updates, begun + 10_000]])
        values = {"updates": self.updates, "updates_done": done, "loss": 0.5, "accuracy": None}
        self.records.append(self._put("train", epoch, artifacts, values))
        self._times("validate", epoch, [[0, begun + 11_000]])
        values = {"updates_done": done, "metrics": self.metrics}
        self.records.append(self._put("validate", epoch, {}, values))
        self._times("mine", epoch, [[0, begun + 12_000]])
        values = {"updates_done": done, "kept_fraction": 0.75, "samples": 40}
        values |= {"label_noise": None, "suspects": 2}
        self.records.append(self._put("mine", epoch, {}, values))

    def cost(self, kind, epoch, **body):
        """Puts what a stage has cost beside its record."""
        self.stages.put_side_file(self.key(kind, epoch), "goodput.json", body)

    def _table(self, epoch):
        steps = range(epoch * self.updates + 1, (epoch + 1) * self.updates + 1)
        rows = [
            (step, key, self.values.get((key, step), step + index / 8))
            for index, key in enumerate(self.keys)
            for step in steps
        ]
        step, key, value = zip(*rows, strict=True)
        table = pa.table(
            {"step": pa.array(step, pa.int64()), "key": key, "value": np.array(value, np.float64)}
        )
        buffer = io.BytesIO()
        pq.write_table(table, buffer, write_page_checksum=True)
        return buffer.getvalue()

    def key(self, kind, epoch):
        return digest("test-stage", [self.store.url, kind, epoch])

    def _artifact(self, kind, epoch, suffix, data):
        return self.stages.put_artifact(self.key(kind, epoch), suffix, data)

    def _times(self, kind, epoch, times):
        self.stages.put_side_file(self.key(kind, epoch), "times.json", {"anchors": times})

    def _put(self, kind, epoch, artifacts, values):
        return self.stages.commit(
            StageRecord(
                stage=kind,
                epoch=epoch,
                key=self.key(kind, epoch),
                inputs={},
                environment={},
                environment_digest="0" * 64,
                consumed={},
                artifacts=artifacts,
                values=values,
            )
        )

    def tracker(self, uri, *, notices=None, log_every_updates=1, per_group=True, **more):
        return Tracker(
            uri=uri,
            experiment="tests",
            run=RunIdentity(
                "digits",
                2,
                "digits@1",
                3,
                digest("test-run", self.store.url),
                more.pop("lineage", ()),
            ),
            params=more.pop("params", {"optimizer.args.lr": "0.1"}),
            tags=more.pop("tags", {"epochs": str(len(self.records) // 3)}),
            stages=self.stages,
            log_every_updates=log_every_updates,
            per_group=per_group,
            measures=more.pop("measures", [("accuracy", "max")]),
            notice=(notices if notices is not None else []).append,
            **more,
        )

    def run(self, uri, *, status="FINISHED", best_epoch=None, final=None, **more):
        """One whole command; returns how the delivery ended."""
        tracker = self.tracker(uri, **more)
        tracker.start()
        for record in self.records:
            tracker.deliver(record)
        best = None if best_epoch is None else BestEpoch(best_epoch, "accuracy", 0.5)
        return tracker.finish(status, best=best, tags=final or {})


class Database:
    """MLflow's SQLite file, read without MLflow."""

    def __init__(self, path: Path):
        self.path = path
        self.uri = f"sqlite:///{path}"

    def __call__(self, query, *values):
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(query, values).fetchall()

    def points(self, run_id):
        """(key, step, timestamp, value), sorted."""
        return sorted(
            self(
                "SELECT key, step, timestamp, value FROM metrics WHERE run_uuid = ?",
                run_id,
            )
        )

    def runs(self):
        """(id, status, lifecycle) of every run."""
        return self("SELECT run_uuid, status, lifecycle_stage FROM runs ORDER BY start_time")

    def tags(self, run_id):
        return dict(self("SELECT key, value FROM tags WHERE run_uuid = ?", run_id))

    def dump(self):
        """Everything that is in it, as text."""
        with closing(sqlite3.connect(self.path)) as connection:
            return "\n".join(connection.iterdump())


def expected_keys_and_steps(finished, epochs, keys=UPDATE_KEYS):
    last = [(epoch + 1) * finished.updates for epoch in range(epochs)]
    steps = range(1, epochs * finished.updates + 1)
    return sorted(
        [(key, step) for key in keys for step in steps]
        + [
            (key, step)
            for key in (
                "epoch",
                "train/epoch_loss",
                "Overview/train_loss",
                "validation/accuracy",
                "Overview/validation_accuracy",
                "best/accuracy",
                "best/epoch",
                "sampling/kept",
                "sampling/suspects",
            )
            for step in last
        ]
    )


def keys_and_steps(database, run_id):
    return [(key, step) for key, step, _, _ in database.points(run_id)]
