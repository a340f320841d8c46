"""Servers that are away, at the start, in the middle, at the end: training is not lost."""

import pytest
from support.runs.command import Command, Unbroken
from support.runs.machine import Machine, free_port
from support.runs.project import MODEL, Project, environment

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, empty_mlflow, prefect_server):
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    return Unbroken.of_command(folder, empty_mlflow=empty_mlflow, prefect_api=prefect_server[0])


@pytest.fixture
def machine(tmp_path, empty_prefect, empty_mlflow):
    made = Machine(tmp_path / "machine", prefect_tables=empty_prefect, mlflow_tables=empty_mlflow)
    yield made
    made("down", "--force")


def begin_server(machine):
    """The address of the machine's own Prefect server, which runs then."""
    from epochal.flows.servers import ensure_prefect_server

    with machine.environment():
        return ensure_prefect_server().api_url


@pytest.mark.slow  # it is waited for
def test_a_server_that_is_away_at_the_start_is_named_before_anything_runs(tmp_path, tracker):
    project = Project(tmp_path / "project")
    url = f"http://127.0.0.1:{free_port()}/api"
    with environment(PREFECT_API_URL=url):
        command = Command(project)
        assert command.end() == (75, "")
    said = command.errors.read_text()
    assert f"PREFECT_API_URL is {url}" in said
    assert "Connection refused" in said
    assert not list(project.store.glob("stages/*"))


@pytest.mark.slow
def test_a_server_that_dies_in_the_middle_costs_no_epoch(tmp_path, tracker, machine, unbroken):
    project = Project(tmp_path / "project")
    url = begin_server(machine)
    with environment(PREFECT_API_URL=url):
        command = Command(project)
        command.wait_for_commit(3)
        machine.kill("prefect")
        ended_is_named(command, url)
    with environment(PREFECT_API_URL=begin_server(machine)):
        result = Command(project).result()
    assert all(one["cached"] for one in result["stages"])
    assert Unbroken.of_result(result, tracker) == unbroken


@pytest.mark.slow
def test_a_server_that_dies_at_the_end_costs_no_epoch(tmp_path, tracker, machine, unbroken):
    project = Project(tmp_path / "project")
    url = begin_server(machine)
    # The last epoch's validation ends the server; after it there is only the end to be told.
    forward = "            return self.head("
    dies = 'os.kill(int(os.environ["SERVER"]), 9)'
    ends = f"            if not self.training and self.calls > 20: {dies}\n"
    project.write("model.py", MODEL.replace(forward, ends + forward))
    with environment(PREFECT_API_URL=url):
        command = Command(project, SERVER=str(machine.servers["prefect"]["pid"]))
        ended_is_named(command, url)
    with environment(PREFECT_API_URL=begin_server(machine)):
        result = Command(project).result()
    assert all(one["cached"] for one in result["stages"][:5])
    assert Unbroken.of_result(result, tracker) == unbroken


def ended_is_named(command, url):
    assert command.end(timeout_s=200) == (75, "")
    said = command.errors.read_text()
    assert f"Prefect's server at {url} failed" in said
    assert "run the same command to go on" in said


@pytest.mark.slow
def test_an_mlflow_server_that_dies_in_the_middle_gets_all_points_later(
    tmp_path, home, prefect_api, machine, unbroken
):
    project = Project(tmp_path / "project")
    ports = ("--mlflow-port", str(free_port()), "--prefect-port", str(free_port()))
    up = machine("up", *ports, "--json", PREFECT_API_URL="").json
    with environment(MLFLOW_TRACKING_URI=up["mlflow_ui"]):
        command = Command(project)
        command.wait_for_commit(3)
        machine.kill("mlflow")
        assert command.result()["weights_sha256"] == unbroken.weights_sha256
        assert "Nothing is lost" in command.errors.read_text()
        assert machine("up", *ports, PREFECT_API_URL="").code == 0
        result = Command(project).result()
    assert all(one["cached"] for one in result["stages"])
    assert Unbroken.of_result(result, up["mlflow_ui"]) == unbroken
