"""The ledger while MLflow is away or the store damaged: training never waits, nothing is lost."""

import socket
import time

from support.stores.tracking_store import Finished, expected_keys_and_steps, keys_and_steps

from epochal.tasks.tracking import background as ledger_module


def break_log_batch(monkeypatch, *, after):
    """`log_batch` writes `after` requests with metrics, then raises, until the patch is undone."""
    from mlflow import MlflowClient

    original, calls = MlflowClient.log_batch, []

    def log_batch(self, run_id, metrics=(), params=(), tags=(), **more):
        if metrics:
            calls.append(len(metrics))
            if len(calls) > after:
                raise ConnectionError("the cable was pulled")
        return original(self, run_id, metrics=metrics, params=params, tags=tags, **more)

    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    return calls


def test_delivery_killed_between_two_requests_is_completed_without_doubles(database, monkeypatch):
    finished = Finished(epochs=2, updates=400)
    notices = []
    with monkeypatch.context() as patch:
        calls = break_log_batch(patch, after=1)
        first = finished.run(database.uri, notices=notices)
    assert calls[0] == 1000
    assert len(notices) == 1
    assert "the cable was pulled" in first.problem
    assert len(database.points(first.run_id)) == 1000
    second = finished.run(database.uri)
    assert (second.run_id, second.problem) == (first.run_id, None)
    assert keys_and_steps(database, first.run_id) == expected_keys_and_steps(finished, 2)


def test_tracker_that_is_away_is_told_once_and_served_by_the_next_command(database, tmp_path):
    finished = Finished(epochs=2)
    notices = []
    (tmp_path / "file").write_text("")
    result = finished.run(f"sqlite:///{tmp_path}/file/mlflow.db", notices=notices)
    assert result.run_id is None
    assert len(notices) == 1
    assert "Nothing is lost" in notices[0]
    later = finished.run(database.uri)
    assert keys_and_steps(database, later.run_id) == expected_keys_and_steps(finished, 2)


def test_server_that_refuses_connections_costs_no_waiting(database):
    finished = Finished(epochs=1)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        started = time.monotonic()
        result = finished.run(f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert result.run_id is None
    assert "refused" in result.problem
    assert time.monotonic() - started < 2


def test_server_that_never_answers_is_given_up_when_the_run_is_killed(database, monkeypatch):
    monkeypatch.setattr(ledger_module, "KILLED_S", 0.5)
    finished = Finished(epochs=1)
    notices = []
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()
        tracker = finished.tracker(f"http://127.0.0.1:{silent.getsockname()[1]}", notices=notices)
        tracker.start()
        result = tracker.finish("KILLED", best=None, tags={})
        assert time.monotonic() - started < 5
    assert result.run_id is None
    assert len(notices) == 1


def test_damaged_table_costs_only_its_own_stage(database):
    finished = Finished(epochs=2)
    record = next(one for one in finished.records if one.stage == "train")
    finished.store.delete(finished.stages.artifact_path(record, "updates"))
    result = finished.run(database.uri)
    assert "train of epoch 0" in result.problem
    steps = {step for key, step in keys_and_steps(database, result.run_id) if key == "train/loss"}
    assert steps == set(range(21, 41))
