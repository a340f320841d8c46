"""The real command, ended from outside in the middle of an epoch, and run again."""

import os
import signal

import httpx
import pytest
from support.runs.command import Command, Unbroken, alive
from support.runs.machine import wait_for
from support.runs.project import Project

pytestmark = pytest.mark.server


@pytest.fixture
def project(tmp_path, tracker, prefect_api):
    return Project(tmp_path / "project")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, empty_mlflow, prefect_server):
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    return Unbroken.of_command(folder, empty_mlflow=empty_mlflow, prefect_api=prefect_server[0])


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 75),
        pytest.param(signal.SIGINT, 75, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 75, marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR1, 75, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, -signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_command_goes_on_to_the_same_bytes_and_points(
    number, code, project, tracker, prefect_api, unbroken
):
    command = Command(project)
    command.wait_for_commit(3)
    trainer = command.trainer
    command.process.send_signal(number)
    ended, out = command.end()
    assert ended == code, command.errors.read_text()
    wait_for(lambda: not alive(trainer))
    assert out == ""
    if number != signal.SIGKILL:
        assert "run the same command to go on" in command.errors.read_text()
    result = Command(project).result()
    resumed = [one for one in result["stages"] if one["resumed_at"] is not None]
    assert [(one["stage"], one["epoch"]) for one in resumed] == [("train", 1)]
    assert resumed[0]["resumed_at"] >= 3
    assert not resumed[0]["cached"]
    assert [one["cached"] for one in result["stages"][:4]] == [True] * 4
    assert Unbroken.of_result(result, tracker) == unbroken
    assert not list(project.store.glob("stages/*/partial/*"))
    if number == signal.SIGKILL:
        assert states_of(command.process.pid, prefect_api) == ({"CRASHED"}, {"CRASHED"})


@pytest.mark.slow
@pytest.mark.parametrize("both", [False, True])
def test_a_command_whose_trainer_was_killed_goes_on_to_the_same_bytes_and_points(
    both, project, tracker, prefect_api, unbroken
):
    command = Command(project)
    command.wait_for_commit(3)
    os.kill(command.trainer, signal.SIGKILL)
    if both:
        command.process.send_signal(signal.SIGKILL)
    ended, _ = command.end()
    assert ended == (-signal.SIGKILL if both else 3), command.errors.read_text()
    if not both:
        said = command.errors.read_text()
        assert "train · epoch 1: the trainer process was ended by SIGKILL" in said
        assert states_of(command.process.pid, prefect_api) == ({"FAILED"}, {"FAILED"})
    result = Command(project).result()
    (resumed,) = [one for one in result["stages"] if one["resumed_at"] is not None]
    assert (resumed["stage"], resumed["epoch"]) == ("train", 1)
    assert Unbroken.of_result(result, tracker) == unbroken


def states_of(pid, api):
    """How Prefect shows the run of a process, and its tasks that did not end well."""
    found = httpx.post(f"{api}/flow_runs/filter", json={"sort": "START_TIME_DESC", "limit": 50})
    runs = [one for one in found.json() if one["labels"].get("epochal.pid") == pid]
    asked = {"flow_runs": {"id": {"any_": [one["id"] for one in runs]}}}
    tasks = httpx.post(f"{api}/task_runs/filter", json=asked).json()
    ended = {one["state_type"] for one in tasks}
    return {one["state_type"] for one in runs}, ended - {"COMPLETED"}


@pytest.mark.slow
def test_no_worker_outlives_its_command(project):
    options = ("--set", "train_data={target: 'items:Items'}", "--set", "loader.workers=2")
    ended = set()
    for number in (signal.SIGTERM, signal.SIGKILL):
        store = f"./store-{number.value}"
        command = Command(project, *options, "--set", f"store={store}")
        command.store = project.folder / store
        command.wait_for_commit(2)
        started = command.descendants()
        assert len(started) >= 3  # the trainer and two processes of its loader
        command.process.send_signal(number)
        command.end()
        ended.update(started)
    wait_for(lambda: not any(alive(pid) for pid in ended), timeout_s=10)
