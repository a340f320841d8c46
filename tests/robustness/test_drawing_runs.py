"""Items, steps and metrics that draw random numbers, while what is around them fails."""

import contextlib
import json
import os
import random
import signal

import mlflow
import pytest
from support.numbers.drawing_data import few_processors
from support.runs.bare_run import BareRun
from support.runs.command import Command, Unbroken
from support.runs.drawing_project import drawing_project
from support.runs.machine import Machine, free_port
from support.runs.project import call, environment
from support.stores.faulty_s3 import faulty_s3
from support.stores.s3_server import BUCKET

pytestmark = [pytest.mark.server, pytest.mark.slow]

SHARE = 0.3
SLOW = {"ITEM_SECONDS": "0.02", "STEP_SECONDS": "0.15"}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, empty_mlflow, prefect_server):
    """How the run ends that nothing disturbs."""
    folder = tmp_path_factory.mktemp("unbroken")
    machine = Machine(folder / "machine", mlflow_tables=empty_mlflow)
    tracker = f"sqlite:///{machine.home}/.epochal/mlflow.db"
    with machine.environment(MLFLOW_TRACKING_URI=tracker, PREFECT_API_URL=prefect_server[0]):
        result = Command(drawing_project(folder / "project"), STEP_SECONDS="0").result()
    return Unbroken.of_result(result, tracker)


@pytest.fixture
def items(s3_endpoint, request):
    """The address of a byte for each item."""
    import boto3

    place = f"{request.node.name}/items"
    for row in range(12):
        boto3.client("s3").put_object(Bucket=BUCKET, Key=f"{place}/{row}", Body=bytes([row]))
    return f"s3://{BUCKET}/{place}"


@few_processors
def test_items_read_from_storage_that_fails_draw_as_if_it_did_not(
    tmp_path, home, items, s3_endpoint
):
    def digests(name, workers):
        loader = {"batch_size": 4, "workers": workers}
        project = drawing_project(tmp_path / name, size=12, url=items, loader=loader)
        run = BareRun(project.config, launch__kind="local")
        try:
            return run().digests
        finally:
            run.session.trainer.close()

    expected = digests("good", 0)
    with faulty_s3(s3_endpoint) as server:
        server.share = SHARE
        for number in range(5):
            assert digests(f"failing-{number}", workers=number % 2 * 2) == expected
        assert server.failed > 100


@pytest.mark.parametrize("number", range(3))
def test_a_store_that_fails_changes_no_number(
    tmp_path, tracker, prefect_api, unbroken, s3_endpoint, number
):
    store = f"s3://{BUCKET}/drawing-{number}/store"
    project = drawing_project(tmp_path / "project", name=f"s3-{number}", store=store)
    with faulty_s3(s3_endpoint) as server:
        server.share, server.chance = SHARE, random.Random(number)
        result = result_in_the_end(project)
        assert server.failed > 20
    assert Unbroken.of_result(result, tracker) == unbroken
    assert call("verify", store).code == 0


def result_in_the_end(project):
    """What the command says; one that ends because the store stayed away is given once more."""
    for _ in range(5):
        command = Command(project, STEP_SECONDS="0")
        code, out = command.end()
        if code != 75:
            break
    assert code == 0, command.errors.read_text()
    return json.loads(out.splitlines()[-1])


def test_a_prefect_server_that_is_killed_and_started_again_changes_no_number(
    tmp_path, home, tracker, empty_prefect, unbroken
):
    machine = Machine(tmp_path / "machine", prefect_tables=empty_prefect)
    ports = ("--prefect-port", str(free_port()), "--mlflow-port", str(free_port()))
    project = drawing_project(tmp_path / "project")
    try:
        up = machine("up", *ports, "--json", MLFLOW_TRACKING_URI="", PREFECT_API_URL="").json
        with environment(PREFECT_API_URL=up["prefect_api"]):
            command = Command(project, **SLOW)
            command.wait_for_commit(3)
            machine.kill("prefect")
            assert machine("up", *ports, MLFLOW_TRACKING_URI="", PREFECT_API_URL="").code == 0
            code, _ = command.end()
            assert code in (0, 75), command.errors.read_text()
            result = Command(project).result()
    finally:
        machine("down", "--force")
    assert all(one["cached"] for one in result["stages"])
    assert Unbroken.of_result(result, tracker) == unbroken


@pytest.mark.parametrize("stopped", ["flow", "flow and trainer"])
def test_a_process_that_was_stopped_and_wakes_up_later_adds_nothing(
    tmp_path, tracker, prefect_api, unbroken, stopped
):
    project = drawing_project(tmp_path / "project")
    zombie = Command(project, **SLOW)
    zombie.wait_for_commit(3)
    processes = [zombie.process.pid, *(zombie.descendants() if stopped != "flow" else ())]
    try:
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        result = Command(project).result()
    finally:
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    code, _ = zombie.end()
    assert code == 0, zombie.errors.read_text()
    assert result["weights_sha256"] == unbroken.weights_sha256
    # A process that is stopped in the middle of a transaction keeps the others out of SQLite's
    # file: what the second run could not deliver the next one does.
    again = Command(project).result()
    assert all(one["cached"] for one in again["stages"])
    assert Unbroken.of_result(again, tracker) == unbroken
    experiments = [one.experiment_id for one in mlflow.MlflowClient().search_experiments()]
    runs = [one.info.run_id for one in mlflow.MlflowClient().search_runs(experiments)]
    assert runs == [again["mlflow_run_id"]]
    assert not list(project.store.glob("damaged/**/*.json"))
