"""Where MLflow is, when each update happened, and delivery to a real MLflow server."""

import fcntl
import os
import socket
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from support.stores.mlflow_server import MlflowServer
from support.stores.tracking_store import Finished

from epochal.data.errors import ServerUnavailable
from epochal.data.types import Target
from epochal.tasks.config.parts import TrackingConfig
from epochal.tasks.tracking.background import DataEntry, ModelSource
from epochal.tasks.tracking.connection import connect, tracker_lock, tracking_uri, unreachable
from epochal.tasks.tracking.mlflow_run import mlflow_name, param_value


def test_config_address_wins_then_environment_then_local_server_then_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment")
    local = "http://local"
    assert tracking_uri(TrackingConfig(uri="http://config"), local_server=local) == "http://config"
    assert tracking_uri(TrackingConfig(), local_server=local) == "http://environment"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert tracking_uri(TrackingConfig(), local_server=local) == local
    home = f"sqlite:///{tmp_path}/.epochal/mlflow.db"
    assert tracking_uri(TrackingConfig(), local_server=None) == home
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"uri": ""}, {"experiment": ""}, {"log_every_updates": 0}])
def test_config_refuses_what_cannot_be(wrong):
    with pytest.raises(ValidationError):
        TrackingConfig(**wrong)


def test_importing_the_ledger_imports_neither_mlflow_nor_torch():
    code = (
        "import sys, epochal.tasks.tracking.background, epochal.tasks.config.parts;"
        "sys.exit(str([name for name in ('mlflow', 'torch', 'pyarrow', 'prefect') "
        "if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"


def test_closed_port_and_unusable_file_are_unreachable_and_said_so(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert "refused" in unreachable(uri)
        with pytest.raises(ServerUnavailable, match="refused"):
            connect(uri)
    (tmp_path / "text.db").write_text("no database, only some text that is long enough" * 40)
    assert "not a database" in unreachable(f"sqlite:///{tmp_path}/text.db")
    assert unreachable(f"sqlite:///{tmp_path}/new/mlflow.db") is None
    assert unreachable("databricks") is None


def test_a_process_that_was_forked_under_the_lock_does_not_keep_it(home):
    reading, writing = os.pipe()
    with tracker_lock():
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)  # until the test has ended
            os._exit(0)
    try:
        with (home / ".epochal" / "mlflow.lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(writing)
        os.waitpid(child, 0)


@settings(deadline=None)  # the first example imports MLflow
@given(st.text(min_size=1))
def test_every_name_becomes_one_that_mlflow_takes(text):
    from mlflow.utils.validation import _validate_metric_name

    _validate_metric_name(mlflow_name(text))


def test_names_that_mlflow_takes_stay_as_they_are():
    for name in ("train/loss", "gradients/norm/layer.0.weight", "validation/top-5 accuracy"):
        assert mlflow_name(name) == name


def test_long_parameters_keep_their_difference_in_a_digest():
    one, other = param_value("x" * 600 + "a"), param_value("x" * 600 + "b")
    assert len(one) == len(other) == 500
    assert one != other
    assert param_value("short") == "short"


@pytest.fixture
def mlflow_server(tmp_path, monkeypatch):
    """Starts, and starts again after `stop`, one MLflow server on loopback."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    server = MlflowServer(tmp_path)
    yield server
    server.stop()


@pytest.mark.server
def test_run_reaches_a_server_that_came_late_whole_and_once(mlflow_server, tmp_path, capfd):
    (tmp_path / "net.py").write_text("from torch.nn import Linear as Net\n")
    source = ModelSource(
        Target(target="net:Net", args={"in_features": 2, "out_features": 1}),
        tmp_path,
        {"net.py": (tmp_path / "net.py").read_bytes()},
    )
    data = [DataEntry("train", "digits", "a" * 64, {"target": "data:digits"})]
    import torch

    tensors = torch.nn.Linear(2, 1).state_dict()
    finished = Finished(epochs=3, updates=120, tensors=tensors)
    away = finished.run(mlflow_server.uri)
    assert away.run_id is None
    mlflow_server.start()
    first = finished.run(mlflow_server.uri, best_epoch=2, model=source, data=data)
    assert first.problem is None
    client = connect(mlflow_server.uri)
    before = client.get_run(first.run_id)
    assert before.info.status == "FINISHED"
    assert [one.step for one in client.get_metric_history(first.run_id, "train/loss")] == list(
        range(1, 361)
    )
    model_id = before.data.tags["epochal.best_model"].removeprefix("models:/")
    files = {one.path for one in client.list_logged_model_artifacts(model_id)}
    assert files == {"MLmodel", "data", "loader", "python_env.yaml", "requirements.txt"}
    assert [one.path for one in client.list_artifacts(first.run_id)] == ["checkpoints.json"]
    second = finished.run(mlflow_server.uri, best_epoch=2, model=source, data=data)
    assert (second.run_id, second.problem) == (first.run_id, None)
    assert client.get_run(first.run_id).to_dictionary() == before.to_dictionary()
    mlflow_server.stop()
    third = finished.run(mlflow_server.uri, best_epoch=2, model=source, data=data)
    assert "refused" in third.problem
    assert capfd.readouterr() == ("", "")
