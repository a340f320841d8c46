"""Runs that a dead or a sleeping process left: taken over by the next one, wherever that is."""

import json
import shutil
import signal
import subprocess
import sys
from datetime import timedelta
from types import SimpleNamespace

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Cancelling, Crashed, Failed, Pending, Running, Scheduled
from support.runs.command import Command, Unbroken
from support.runs.machine import Machine, wait_for
from support.runs.project import Project, call

from epochal.flows.flow_run import dead_runs as left_running
from epochal.flows.flow_run.client import talking_to
from epochal.flows.flow_run.dead_runs import (
    end_left_running,
    is_dead,
    process_labels,
    runs_at_work,
)
from epochal.flows.servers import begin_prefect_server
from epochal.flows.train import train
from epochal.flows.worker import is_news

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, empty_mlflow, prefect_server):
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    return Unbroken.of_command(folder, empty_mlflow=empty_mlflow, prefect_api=prefect_server[0])


@pytest.fixture
def client(prefect_api):
    with talking_to(prefect_api), get_client(sync_client=True) as client:
        yield client


@pytest.fixture(scope="module")
def dead():
    """The labels of a process that has ended."""
    code = "import json; from epochal.flows.flow_run.dead_runs import process_labels as labels; "
    command = [sys.executable, "-c", f"{code}print(json.dumps(labels()))"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_only_the_run_of_a_process_that_is_known_to_be_dead_is_ended(client, dead, monkeypatch):
    def run(labels, state):
        made = client.create_flow_run(train, state=Scheduled())
        client.update_flow_run_labels(made.id, labels)
        client.set_flow_run_state(made.id, state, force=True)
        return made.id

    left = {
        "of a process that lives": run(process_labels(), Running()),
        "of another machine": run({**dead, "epochal.host": "elsewhere"}, Running()),
        "of another container": run({**dead, "epochal.pid_namespace": "pid:[1]"}, Running()),
        "unknown": run({}, Running()),
        "of a new try that has not named its process": run({**dead, "epochal.try": 0}, Running()),
    }
    others = {
        "dead": run({**dead, "epochal.try": 1}, Running()),
        "dead, of an earlier version": run(dead, Running()),
        "dead, to be cancelled": run(dead, Cancelling()),
        "dead, told its end": run(dead, Failed()),
        "dead, retried": run(dead, Scheduled()),
    }
    end_left_running(client)
    found = {name: client.read_flow_run(one) for name, one in (left | others).items()}
    assert {name: one.state_name for name, one in found.items()} == {
        **dict.fromkeys(left, "Running"),
        **dict.fromkeys(("dead", "dead, of an earlier version"), "Crashed"),
        "dead, to be cancelled": "Cancelled",
        "dead, told its end": "Failed",
        "dead, retried": "Scheduled",
    }
    assert f"Process {dead['epochal.pid']} on " in found["dead"].state.message
    monkeypatch.setattr(left_running, "_NAMED_WITHIN", timedelta(0))
    end_left_running(client)
    died_unnamed = left.pop("of a new try that has not named its process")
    assert client.read_flow_run(died_unnamed).state_name == "Crashed"
    assert {client.read_flow_run(one).state_name for one in left.values()} == {"Running"}
    for one in (*left.values(), others["dead, retried"]):
        client.delete_flow_run(one)


def test_a_pid_that_another_process_has_now_is_not_the_one_that_was_noted():
    own = process_labels()
    assert not is_dead(own)
    assert is_dead({**own, "epochal.started": "before/1"})
    assert not is_dead({**own, "epochal.pid": "no pid"})


@pytest.mark.parametrize(
    ("now", "tries", "news"),
    [
        (Running(), 3, True),
        (Pending(), 2, True),  # it could not even begin
        (Crashed(), 3, False),
        (Scheduled(), 3, False),  # Retry was pressed
        (Pending(), 3, False),  # and taken
        (Running(), 4, False),  # and begun
    ],
)
def test_a_crash_is_reported_once_and_never_over_a_retry(now, tries, news):
    submitted = SimpleNamespace(run_count=2)
    assert is_news(submitted, SimpleNamespace(state=now, run_count=tries)) is news


def killed(project):
    """A command that was killed in the middle of its second epoch."""
    command = Command(project)
    command.wait_for_commit(3)
    command.process.kill()
    command.end()
    return command


@pytest.mark.slow
def test_the_run_of_a_killed_command_is_retried_by_prefects_command(
    tmp_path, tracker, client, unbroken
):
    project = Project(tmp_path / "project", name="taken-over")
    pid = killed(project).process.pid

    def left():
        found = client.read_flow_runs(limit=50, sort="START_TIME_DESC")
        (run,) = [one for one in found if one.labels.get("epochal.pid") == pid]
        return run

    end_left_running(client)
    run = wait_for(lambda: (now := left()).state_name == "Crashed" and now)
    command = [sys.executable, "-P", "-m", "prefect", "flow-run", "retry", str(run.id)]
    entrypoint = ("--entrypoint", "epochal.flows.train.train")
    done = subprocess.run([*command, *entrypoint], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    again = client.read_flow_run(run.id)
    assert (again.state_name, again.run_count) == ("Completed", 2)
    result = Command(project).result()
    assert all(one["cached"] for one in result["stages"])
    assert Unbroken.of_result(result, tracker) == unbroken


@pytest.mark.slow
def test_a_process_that_sleeps_while_another_ends_its_run_damages_nothing(
    tmp_path, tracker, prefect_api, unbroken
):
    project = Project(tmp_path / "project")
    asleep = Command(project)
    asleep.wait_for_commit(3)
    asleep.process.send_signal(signal.SIGSTOP)
    try:
        # Not to be asked of it is MLflow: the other one may sleep while it holds that one's lock.
        assert Command(project).result()["weights_sha256"] == unbroken.weights_sha256
    finally:
        asleep.process.send_signal(signal.SIGCONT)
    assert Unbroken.of_result(asleep.result(), tracker) == unbroken
    verified = call("verify", str(project.store))
    assert verified.code == 0, verified.out + verified.err


@pytest.mark.slow
def test_a_copy_of_the_store_goes_on_on_another_machine(
    tmp_path, tracker, prefect_api, empty_prefect, empty_mlflow, unbroken, monkeypatch
):
    project = Project(tmp_path / "project")
    killed(project)
    monkeypatch.delenv("PREFECT_API_URL")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    resumed = []
    for name in ("second", "third"):  # the third gets what the second one has finished
        shutil.copytree(project.folder, tmp_path / name / "copied")
        machine = Machine(tmp_path / name, prefect_tables=empty_prefect, mlflow_tables=empty_mlflow)
        project = Project(tmp_path / name / "copied")
        with machine.environment():
            try:
                result = Command(project).result()
            finally:
                machine("down", "--force")
        resumed.append([one["resumed_at"] for one in result["stages"] if not one["cached"]])
        tracked = f"sqlite:///{tmp_path}/{name}/.epochal/mlflow.db"
        assert result["mlflow_tracking_uri"] == tracked
        assert Unbroken.of_result(result, tracked) == unbroken
    assert [len(one) for one in resumed] == [3, 0]
    assert resumed[0][0] >= 3


@pytest.mark.slow
def test_down_while_a_run_works_names_it_and_stops_nothing_until_it_is_forced(
    tmp_path, empty_prefect
):
    machine = Machine(tmp_path / "home", prefect_tables=empty_prefect)
    with machine.environment():
        server = begin_prefect_server().wait()
        with talking_to(server.api_url), get_client(sync_client=True) as client:
            run = client.create_flow_run(
                train, parameters={"config": {}}, name="busy", state=Running()
            )
            client.update_flow_run_labels(run.id, process_labels())
        refused = machine("down")
        assert refused.code == 2
        assert f"at work: busy ({run.id}); nothing was stopped" in refused.err
        assert "--force" in refused.err
        assert machine.process("prefect").exists()
        with talking_to(server.api_url), get_client(sync_client=True) as client:
            client.update_flow_run_labels(run.id, {"epochal.started": "another boot"})
        assert runs_at_work() == []  # its process is gone
        with talking_to(server.api_url), get_client(sync_client=True) as client:
            client.update_flow_run_labels(run.id, process_labels())
        assert machine("down", "--force", "--json").json == {"stopped": ["prefect"]}
