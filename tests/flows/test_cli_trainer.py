"""The whole command with a trainer process: what is said where the user's code ends it."""

import json
import re

import httpx
import mlflow
import pytest
from support.runs.project import environment
from support.trainers.misbehaving import misbehaving_project

pytestmark = pytest.mark.server

PLANNING = """
    import os
    from misbehaving import Model, misbehave

    class Planned(Model):
        def forward(self, x):
            if self.training and self.calls == 9:
                misbehave(os.environ["MISBEHAVES"])
            if not self.training:
                print("printed by the model")
            return super().forward(x)
"""


@pytest.fixture
def project(tmp_path, tracker, prefect_api):
    made = misbehaving_project(tmp_path / "project", epochs=1)
    made.write("planned.py", PLANNING)
    return made


def train(project, kind, *options):
    with environment(MISBEHAVES=kind):
        return project("train", *options, model="{target: 'planned:Planned'}")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("_exit-0", "ended the trainer process with exit code 0"),
        pytest.param("segfault", "ended by SIGSEGV", marks=pytest.mark.slow),
        pytest.param("exit", "SystemExit: 0", marks=pytest.mark.slow),
    ],
)
def test_where_it_ended_is_in_the_terminal_in_prefect_and_in_mlflow(
    kind, said, project, tracker, prefect_api
):
    done = train(project, kind)
    assert done.code == 3
    assert done.out == "" or done.out.startswith("printed by the model\n")
    body = {"sort": "TIMESTAMP_DESC", "limit": 50}
    logged = [one["message"] for one in httpx.post(f"{prefect_api}/logs/filter", json=body).json()]
    record = next(text for text in logged if text.startswith("train · epoch 0: "))
    client = mlflow.MlflowClient(tracker)
    (run,) = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert run.info.status == "FAILED"
    for text in (done.err, record, run.data.tags["epochal.error"]):
        assert said in text
        frames = re.findall(r'^  File "(.*)", line \d+, in (\w+)$', text, flags=re.MULTILINE)
        own = [name for file, name in frames if file.startswith(str(project.folder))]
        assert own == ["forward", "misbehave"]


def test_debug_shows_the_frames_of_the_trainer_too(project):
    done = train(project, "value", "--debug")
    assert done.code == 3
    assert "tasks/launch/trainer_main.py" in done.err
    assert "engine/loop/epoch.py" in done.err
    assert f'File "{project.folder}/planned.py"' in done.err


def test_what_the_users_code_prints_comes_before_the_result(project):
    done = train(project, "chdir")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert set(lines[:-1]) == {"printed by the model"}
    assert json.loads(lines[-1])["run"] == "blobs"
