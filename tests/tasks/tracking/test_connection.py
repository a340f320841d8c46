"""Where MLflow is, when each update happened, and delivery to a real MLflow server."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from support.stores.tracking_store import Finished

from epochal.data.errors import ServerUnavailable
from epochal.data.types import Target
from epochal.tasks.config.parts import TrackingConfig
from epochal.tasks.tracking.background import DataEntry, ModelSource
from epochal.tasks.tracking.connection import connect, tracker_lock, tracking_uri, unreachable
from epochal.tasks.tracking.exporter import LogEvery, step_metrics, update_times_ms
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


def test_update_times_run_evenly_between_anchors():
    times_U = update_times_ms([[0, 1000], [2, 1100], [4, 1300]], 5)
    assert times_U.tolist() == [1050, 1100, 1200, 1300, 1300]


def test_one_anchor_is_the_time_of_every_update():
    assert update_times_ms([[0, 7]], 3).tolist() == [7, 7, 7]


def test_times_without_anchors_are_refused():
    with pytest.raises(ValueError, match="at least one pair"):
        update_times_ms([], 3)


@given(
    gaps=st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 10**7)), max_size=8),
    start=st.integers(0, 2**42),
    num_updates=st.integers(0, 3000),
    data=st.data(),
)
def test_update_times_are_ordered_within_the_anchors_whatever_their_order(
    gaps, start, num_updates, data
):
    times = [[0, start]]
    for updates, gap_ms in gaps:
        times.append([times[-1][0] + updates, times[-1][1] + gap_ms])
    times_U = update_times_ms(times, num_updates)
    assert times_U.shape == (num_updates,)
    assert np.all(np.diff(times_U) >= 0)
    assert np.all((times_U >= start) & (times_U <= times[-1][1]))
    for update, moment in times[1:]:
        if update <= num_updates:
            assert times_U[update - 1] == moment
    shuffled = data.draw(st.permutations(times))
    assert np.array_equal(update_times_ms(shuffled, num_updates), times_U)


@given(every=st.integers(1, 9), updates=st.integers(1, 30), earlier=st.integers(0, 50))
def test_thinning_takes_the_same_steps_in_any_cut_and_each_last_one(every, updates, earlier):
    done = earlier + updates
    steps = np.arange(earlier + 1, done + 1)
    columns = {"step": steps, "key": np.array(["train/loss"] * updates), "value": steps * 0.5}
    found = step_metrics(
        columns,
        times=[[0, 5]],
        updates=updates,
        updates_done=done,
        log_every=LogEvery(log_every_updates=every, per_group=True),
    )
    expected = sorted({step for step in steps.tolist() if step % every == 0} | {done})
    assert [row.step for row in found.rows] == expected


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
    server = Server(tmp_path)
    yield server
    server.stop()


class Server:
    def __init__(self, folder: Path):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        options = {
            "--host": "127.0.0.1",
            "--port": str(self.port),
            "--workers": "1",
            "--backend-store-uri": f"sqlite:///{self.folder}/server.db",
            "--artifacts-destination": (self.folder / "artifacts").as_uri(),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *sum(options.items(), ())],
            env={
                **os.environ,
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                "DO_NOT_TRACK": "true",
            },
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while not self._healthy():
            assert self.process.poll() is None, "the MLflow server ended"
            assert time.monotonic() < deadline, "the MLflow server does not answer"
            time.sleep(0.1)

    def stop(self):
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
            deadline = time.monotonic() + 20
            while unreachable(self.uri) is None:  # its workers die a moment later
                assert time.monotonic() < deadline, "the MLflow server does not end"
                time.sleep(0.05)

    def _healthy(self):
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False


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
    assert files == {"MLmodel", "data", "requirements.txt"}
    assert [one.path for one in client.list_artifacts(first.run_id)] == ["checkpoints.json"]
    second = finished.run(mlflow_server.uri, best_epoch=2, model=source, data=data)
    assert (second.run_id, second.problem) == (first.run_id, None)
    assert client.get_run(first.run_id).to_dictionary() == before.to_dictionary()
    mlflow_server.stop()
    third = finished.run(mlflow_server.uri, best_epoch=2, model=source, data=data)
    assert "refused" in third.problem
    assert capfd.readouterr() == ("", "")
