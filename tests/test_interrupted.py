"""The real command, ended from outside in the middle of an epoch, and run again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
from project import Project

pytestmark = pytest.mark.server

SLOW = """
    import time
    from torch import nn

    class Net(nn.Module):
        def __init__(self, width=16):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU())
            self.dropout = nn.Dropout(0.2)
            self.head = nn.Linear(width, 3)

        def forward(self, x):
            if self.training:
                time.sleep(0.15)
            return self.head(self.dropout(self.body(x)))
"""
OPTIONS = ("--set", "epochs=2", "--set", "checkpoint.every_updates=1")


class Command:
    """`epochal train` in a process of its own."""

    def __init__(self, project, *options):
        self.errors = project.folder / "errors.txt"
        command = [sys.executable, "-m", "epochal.flows.cli", "train", str(project.config)]
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [*command, "--json", *OPTIONS, *options],
                cwd=project.folder, stdout=subprocess.PIPE, stderr=errors, text=True,
                env={**os.environ, "PYTHONPATH": ""},
            )  # fmt: skip
        self.store = project.store

    def wait_for_commit(self, micro_step):
        """Until the second epoch has a commit of at least that micro-step."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.errors.read_text()
            done = sum(1 for _ in self.store.glob("stages/*/record.json"))
            found = [int(path.stem) for path in self.store.glob("stages/*/partial/*.json")]
            if done >= 4 and found and max(found) >= micro_step:
                return
            time.sleep(0.02)
        pytest.fail(f"no commit came: {self.errors.read_text()}")

    def end(self):
        out, _ = self.process.communicate(timeout=120)
        return self.process.returncode, out

    def children(self):
        tasks = Path(f"/proc/{self.process.pid}/task")
        return [
            int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()
        ]


def points(run_id):
    client = mlflow.MlflowClient()
    return {
        key: sorted((one.step, one.value) for one in client.get_metric_history(run_id, key))
        for key in client.get_run(run_id).data.metrics
    }


@pytest.fixture
def project(tmp_path, tracker, prefect_api):
    made = Project(tmp_path / "project")
    made.write("model.py", SLOW)
    return made


@pytest.fixture
def unbroken(tmp_path, tracker, prefect_api):
    made = Project(tmp_path / "unbroken", name="unbroken")
    made.write("model.py", SLOW)
    command = Command(made)
    code, out = command.end()
    assert code == 0, command.errors.read_text()
    return json.loads(out.splitlines()[-1])


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 75), (signal.SIGINT, 75), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_an_interrupted_command_goes_on_to_the_same_bytes_and_points(
    number, code, project, unbroken
):
    command = Command(project)
    command.wait_for_commit(3)
    command.process.send_signal(number)
    ended, out = command.end()
    assert ended == code, command.errors.read_text()
    assert out == ""
    if number != signal.SIGKILL:
        assert "run the same command to go on" in command.errors.read_text()
    again, out = Command(project).end()
    assert again == 0
    result = json.loads(out.splitlines()[-1])
    resumed = [one for one in result["stages"] if one["resumed_at"] is not None]
    assert [(one["stage"], one["epoch"]) for one in resumed] == [("train", 1)]
    assert resumed[0]["resumed_at"] >= 3
    assert not resumed[0]["cached"]
    assert [one["cached"] for one in result["stages"][:4]] == [True] * 4
    assert result["weights_sha256"] == unbroken["weights_sha256"]
    assert points(result["mlflow_run_id"]) == points(unbroken["mlflow_run_id"])
    assert not list(project.store.glob("stages/*/partial/*"))


def test_no_worker_outlives_its_command(project):
    project.write(
        "items.py",
        """
        from torch.utils.data import Dataset
        from blobs import blobs

        class Items(Dataset):
            def __init__(self):
                self.data = blobs("train")
            def __len__(self):
                return len(self.data)
            def __getitem__(self, row):
                return self.data[row]
        """,
    )
    options = ("--set", "train_data={target: 'items:Items'}", "--set", "loader.workers=2")
    for number in (signal.SIGTERM, signal.SIGKILL):
        store = f"./store-{number.value}"
        command = Command(project, *options, "--set", f"store={store}")
        command.store = project.folder / store
        command.wait_for_commit(2)
        children = command.children()
        assert len(children) >= 2
        command.process.send_signal(number)
        command.end()
        deadline = time.monotonic() + 10
        while any(_alive(pid) for pid in children) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not any(_alive(pid) for pid in children)


def _alive(pid):
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] != "Z"
