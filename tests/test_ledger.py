"""The ledger against a real MLflow store: everything arrives, once, and training never waits."""

import shutil
import socket
import threading
import time

import numpy as np
import pytest
from tracking_store import UPDATE_KEYS, Database, Finished

from epochal.tasks import ledger as ledger_module
from epochal.tasks.ledger import DataEntry, ModelSource
from epochal.tasks.tracking import connect


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory):
    """A file with MLflow's tables: making them takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    connect(f"sqlite:///{path}")
    return path


@pytest.fixture
def database(empty_database, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = tmp_path / "mlflow.db"
    shutil.copyfile(empty_database, path)
    return Database(path)


def expected_keys_and_steps(finished, epochs, keys=UPDATE_KEYS):
    last = [(epoch + 1) * finished.updates for epoch in range(epochs)]
    steps = range(1, epochs * finished.updates + 1)
    return sorted(
        [(key, step) for key in keys for step in steps]
        + [
            (key, step)
            for key in ("train/epoch_loss", "validation/accuracy", "sampling/kept")
            for step in last
        ]
    )


def keys_and_steps(database, run_id):
    return [(key, step) for key, step, _, _ in database.points(run_id)]


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


def test_every_update_and_epoch_metric_is_delivered_with_its_time_and_value(database):
    finished = Finished(epochs=2, updates=4)
    result = finished.run(database.uri)
    assert result.problem is None
    assert keys_and_steps(database, result.run_id) == expected_keys_and_steps(finished, 2)
    points = {
        (key, step): (time, value) for key, step, time, value in database.points(result.run_id)
    }
    assert points["gradients/norm", 5] == (1_700_000_062_500, 5.25)
    assert points["validation/accuracy", 8] == (1_700_000_071_000, 0.9)
    assert points["sampling/kept", 4] == (1_700_000_012_000, 0.75)


def test_run_holds_identity_params_tags_and_data_sets(database):
    finished = Finished(epochs=1)
    data = [
        DataEntry("train", "digits", "a" * 64, {"target": "data:digits"}),
        DataEntry("validation", "digits", "b" * 64, {"target": "data:digits"}),
    ]
    params = {"optimizer.args.lr": "0.1", "model.args.text": "long " * 200}
    result = finished.run(
        database.uri, params=params, data=data, final={"epochal.weights_sha256": "c" * 64}
    )
    run = connect(database.uri).get_run(result.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "digits@2"
    assert run.data.params["optimizer.args.lr"] == "0.1"
    assert len(run.data.params["model.args.text"]) == 500
    tags = run.data.tags
    assert tags["epochs"] == "1"
    assert tags["epochal.branched_from"] == "digits@1"
    assert tags["epochal.shared_epochs"] == "3"
    assert tags["epochal.weights_sha256"] == "c" * 64
    held = {
        one.tags[0].value: (one.dataset.name, one.dataset.digest)
        for one in run.inputs.dataset_inputs
    }
    assert held == {"train": ("digits", "a" * 36), "validation": ("digits", "b" * 36)}


def test_second_identical_command_writes_nothing(database):
    finished = Finished(epochs=3)
    final = {"epochal.weights_sha256": "c" * 64}
    data = [DataEntry("train", "digits", "a" * 64, {})]
    first = finished.run(database.uri, best_epoch=1, final=final, data=data)
    before = database.dump()
    second = finished.run(database.uri, best_epoch=1, final=final, data=data)
    assert (second.run_id, second.problem) == (first.run_id, None)
    assert database.dump() == before


def test_longer_run_adds_its_new_epochs_to_the_same_mlflow_run(database):
    finished = Finished(epochs=2, updates=5)
    first = finished.run(database.uri)
    finished.add_epoch(2)
    second = finished.run(database.uri)
    assert second.run_id == first.run_id
    assert keys_and_steps(database, first.run_id) == expected_keys_and_steps(finished, 3)
    assert database.tags(first.run_id)["epochs"] == "3"


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


def test_lost_markers_and_lost_times_double_nothing(database):
    finished = Finished(epochs=2)
    first = finished.run(database.uri)
    before = database.points(first.run_id)
    for path in finished.store.listing():
        if "/delivered/" in path or path.endswith("times.json"):
            finished.store.delete(path)
    second = finished.run(database.uri)
    assert (second.run_id, second.problem) == (first.run_id, None)
    assert database.points(first.run_id) == before


def test_run_left_running_by_a_kill_is_taken_over(database):
    finished = Finished(epochs=1)
    abandoned = finished.ledger(database.uri)
    abandoned.start(forks=True)
    ((run_id, status, _),) = database.runs()
    assert status == "RUNNING"
    result = finished.run(database.uri)
    assert result.run_id == run_id
    assert database.runs() == [(run_id, "FINISHED", "active")]


def test_finished_run_that_computes_again_shows_as_running(database):
    finished = Finished(epochs=1)
    run_id = finished.run(database.uri).run_id
    ledger = finished.ledger(database.uri)
    ledger.start(computing=True, forks=True)
    assert database.runs() == [(run_id, "RUNNING", "active")]
    ledger.finish("FAILED", best_epoch=None, tags={})
    assert database.runs() == [(run_id, "FAILED", "active")]


def test_command_cut_off_before_it_wrote_leaves_a_finished_run_finished(database):
    finished = Finished(epochs=1)
    run_id = finished.run(database.uri).run_id
    before = database.dump()
    finished.run(database.uri, status="KILLED")
    assert database.dump() == before
    assert database.runs() == [(run_id, "FINISHED", "active")]


def test_deleted_run_is_made_anew_and_complete(database):
    finished = Finished(epochs=2)
    first = finished.run(database.uri)
    connect(database.uri).delete_run(first.run_id)
    second = finished.run(database.uri)
    assert second.run_id != first.run_id
    assert keys_and_steps(database, second.run_id) == expected_keys_and_steps(finished, 2)


def test_two_ledgers_at_once_share_one_run(database):
    finished = Finished(epochs=3, updates=50)
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(finished.run(database.uri)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.problem for result in results] == [None, None]
    assert results[0].run_id == results[1].run_id
    assert [lifecycle for _, _, lifecycle in database.runs()] == ["active"]
    assert keys_and_steps(database, results[0].run_id) == expected_keys_and_steps(finished, 3)


def test_of_two_runs_created_at_once_the_older_stays(database, monkeypatch):
    from mlflow import MlflowClient

    from epochal.tasks import tracking

    finished = Finished(epochs=1)
    client = connect(database.uri)
    identity = finished.ledger(database.uri)._identity
    original = MlflowClient.create_run

    def create_run(self, experiment_id, **more):
        original(self, experiment_id, start_time=1, tags=identity.tags)  # the other machine's
        return original(self, experiment_id, **more)

    monkeypatch.setattr(MlflowClient, "create_run", create_run)
    run = tracking.find_or_create_run(
        client, uri=database.uri, experiment="tests", run=identity, tags={}
    )
    assert run.info.start_time == 1
    assert [lifecycle for _, _, lifecycle in database.runs()] == ["active", "deleted"]


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
        ledger = finished.ledger(f"http://127.0.0.1:{silent.getsockname()[1]}", notices=notices)
        ledger.start()
        result = ledger.finish("KILLED", best_epoch=None, tags={})
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


def test_log_frequency_and_groups_thin_the_delivery_and_keep_each_last_update(database):
    finished = Finished(epochs=2, updates=5)
    result = finished.run(database.uri, log_every_updates=3, per_group=False)
    held = keys_and_steps(database, result.run_id)
    assert [step for key, step in held if key == "train/loss"] == [3, 5, 6, 9, 10]
    assert not [key for key, _ in held if key.startswith("gradients/norm/")]


def test_finer_log_frequency_adds_what_was_left_out(database):
    finished = Finished(epochs=2, updates=5)
    finished.run(database.uri, log_every_updates=3, per_group=False)
    result = finished.run(database.uri)
    assert keys_and_steps(database, result.run_id) == expected_keys_and_steps(finished, 2)


def test_infinite_points_stay_in_the_store_and_are_named(database):
    values = {("gradients/norm", 3): float("inf"), ("train/loss", 4): float("nan")}
    finished = Finished(epochs=1, updates=5, values=values)
    result = finished.run(database.uri)
    held = keys_and_steps(database, result.run_id)
    assert ("gradients/norm", 3) not in held
    assert ("train/loss", 4) in held
    note = database.tags(result.run_id)["epochal.non_finite"]
    assert note == "1, first: gradients/norm at update 3"


def test_names_that_mlflow_refuses_do_not_stop_the_rest(database):
    finished = Finished(epochs=1, updates=2, keys=("train/loss", "gradients/norm/a[0]/../b"))
    result = finished.run(database.uri, params={"model.args.a:b[c]": "1"})
    assert result.problem is None
    assert ("gradients/norm/a_0_/_../b", 1) in keys_and_steps(database, result.run_id)


def test_changed_parameter_is_named_and_stops_nothing(database):
    finished = Finished(epochs=1)
    finished.run(database.uri)
    result = finished.run(database.uri, params={"optimizer.args.lr": "0.2"})
    assert result.problem is None
    tags = database.tags(result.run_id)
    assert tags["epochal.changed_params"] == "optimizer.args.lr: 0.1 → 0.2"


def test_nothing_is_printed_and_no_mlflow_state_of_the_user_changes(tmp_path, monkeypatch, capfd):
    import mlflow

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    result = Finished(epochs=1).run(f"sqlite:///{tmp_path}/new/mlflow.db")
    assert result.problem is None
    assert mlflow.get_tracking_uri() == before
    assert mlflow.active_run() is None
    assert capfd.readouterr() == ("", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".epochal", "new"]


NET = """
    from torch import nn
    from layers import head

    class Net(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.body = nn.Linear(3, width)
            self.dropout = nn.Dropout(0.5)
            self.head = head(width)

        def forward(self, x):
            return self.head(self.dropout(self.body(x)))
"""
LAYERS = """
    from torch import nn

    def head(width):
        return nn.Linear(width, 2)
"""


def write_project(folder):
    import textwrap

    folder.mkdir()
    (folder / "net.py").write_text(textwrap.dedent(NET))
    (folder / "layers.py").write_text(textwrap.dedent(LAYERS))


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning")  # of MLflow's own
def test_best_model_is_loaded_by_mlflow_and_predicts_what_the_module_does(database, tmp_path):
    import mlflow
    import torch

    from epochal.data.types import Target
    from epochal.tasks.targets import call_target

    project = tmp_path / "project"
    write_project(project)
    target = Target(target="net:Net", args={"width": 4})
    module = call_target(target, field="model", folder=project).eval()
    tensors = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    finished = Finished(epochs=2, updates=2, tensors=tensors)
    source = ModelSource(target, project, files=("net.py", "layers.py"))
    result = finished.run(database.uri, best_epoch=1, model=source)
    assert result.problem is None
    shutil.rmtree(project)
    uri = database.tags(result.run_id)["epochal.best_model"]
    with pytest.MonkeyPatch.context() as patch:  # `set_tracking_uri` would stay for later tests
        patch.setenv("MLFLOW_TRACKING_URI", database.uri)
        loaded = mlflow.pyfunc.load_model(uri)
        folder = mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path / "download"))
    x = np.linspace(-1, 1, 12).reshape(4, 3)
    with torch.inference_mode():
        expected = module(torch.tensor(x, dtype=torch.float32)).numpy()
    np.testing.assert_array_equal(loaded.predict(x), expected)
    np.testing.assert_array_equal(loaded.predict({"x": x}), expected)
    assert {path.suffix for path in (tmp_path / "download").rglob("*") if path.is_file()} <= {
        "",
        ".txt",
        ".json",
        ".safetensors",
        ".py",
        ".yaml",
    }
    assert folder


def test_best_model_is_written_once_for_its_weights(database, tmp_path):
    from epochal.data.types import Target

    write_project(tmp_path / "project")
    source = ModelSource(Target(target="net:Net"), tmp_path / "project")
    finished = Finished(epochs=2)
    finished.run(database.uri, best_epoch=1, model=source)
    before = database.dump()
    finished.run(database.uri, best_epoch=1, model=source)
    assert database.dump() == before
    assert database("SELECT status FROM logged_models") == [(2,)]


def test_checkpoints_are_listed_as_links_into_the_store(database):
    finished = Finished(epochs=2)
    result = finished.run(database.uri)
    client = connect(database.uri)
    import json
    from pathlib import Path

    path = client.download_artifacts(result.run_id, "checkpoints.json")
    links = json.loads(Path(path).read_text())["checkpoints"]
    assert [link["epoch"] for link in links] == [0, 1]
    assert links[0]["url"].startswith(finished.store.url)
