"""Whatever is killed under Prefect, and whoever ends a run: Retry ends in the same bytes."""

import os
import signal

import pytest
from support.runs.kills import CONFIG, HostedRun, Runner, Unbroken, Worker, result_of
from support.runs.machine import wait_for

pytestmark = pytest.mark.server

worker_only = pytest.mark.parametrize("host", ["worker"], indirect=True)


@pytest.fixture(scope="module")
def unbroken(deployed):
    """How the run ends that nobody disturbs."""
    config = {**CONFIG, "name": "unbroken", "store": "./store-unbroken"}
    return Unbroken.of_result(result_of(deployed, config), deployed.mlflow)


@pytest.fixture(scope="module", params=["worker", pytest.param("served", marks=pytest.mark.slow)])
def host(request, deployed):
    host = {"worker": Worker, "served": Runner}[request.param](deployed)
    host.kind = request.param
    yield host
    host.stop()


def tasks(run, *, attempt):
    return run.deployed.tasks(run.id, attempt=attempt)


def test_a_killed_run_goes_on_by_retry(host, unbroken):
    run = HostedRun(host, f"{host.kind}-killed")
    run.kill()
    assert run.wait_for_end() == "CRASHED"
    assert run.retry() == "COMPLETED"
    assert run.outcome() == unbroken
    assert wait_for(lambda: tasks(run, attempt=1)["train · epoch 1"] == "Crashed")


@pytest.mark.slow
@pytest.mark.parametrize("both", [False, True])
def test_a_run_whose_trainer_was_killed_says_so_and_goes_on_by_retry(both, host, unbroken):
    run = HostedRun(host, f"{host.kind}-trainer-killed-{both}")
    run.kill(*([run.trainer, run.pid] if both else [run.trainer]))
    assert run.wait_for_end() == ("CRASHED" if both else "FAILED")
    if not both:
        assert [one for one in run.deployed.logs(run.id) if "ended by SIGKILL" in one]
    assert run.retry() == "COMPLETED"
    assert run.outcome() == unbroken


@pytest.mark.slow
def test_a_run_ends_with_the_host_that_was_killed_and_goes_on_by_retry(host, unbroken):
    run = HostedRun(host, f"{host.kind}-host-killed")
    os.kill(host.pid, signal.SIGKILL)
    assert run.wait_for_end() == "CRASHED"
    assert [one for one in run.deployed.logs(run.id) if "is gone: the run ends too" in one]
    host.start()
    assert run.retry() == "COMPLETED"
    assert run.outcome() == unbroken


@pytest.mark.slow
def test_a_run_whose_host_was_killed_with_it_is_found_dead_and_goes_on_by_retry(host, unbroken):
    run = HostedRun(host, f"{host.kind}-all-killed")
    os.kill(host.pid, signal.SIGKILL)
    run.kill()
    wait_for(lambda: not run.processes())
    host.deployed.machine.kill("prefect")
    host.start()
    assert run.wait_for_end() == "CRASHED"
    assert run.retry() == "COMPLETED"
    assert run.outcome() == unbroken


@pytest.mark.slow
def test_a_run_goes_on_while_the_server_is_killed_and_started_again(host, unbroken):
    run = HostedRun(host, f"{host.kind}-server-killed")
    host.deployed.machine.kill("prefect")
    host.start()
    if run.wait_for_end() != "COMPLETED":
        assert run.retry() == "COMPLETED"
    assert run.outcome() == unbroken


@pytest.mark.slow
def test_a_cancelled_run_goes_on_by_the_command_for_retry(host, unbroken):
    run = HostedRun(host, f"{host.kind}-cancelled")
    cancel = {"state": {"type": "CANCELLING"}, "force": True}
    run.deployed.post(f"flow_runs/{run.id}/set_state", cancel)
    assert run.wait_for_end() == "CANCELLED"
    assert run.retry_by_command() == "COMPLETED"
    assert run.outcome() == unbroken


@pytest.mark.slow
def test_a_failed_run_goes_on_by_the_command_for_retry(host, unbroken):
    broken = host.deployed.project.folder / "broken"
    broken.write_text("19")
    try:
        run = HostedRun(host, f"{host.kind}-failed", caught=False)
        assert run.wait_for_end() == "FAILED"
    finally:
        broken.unlink()
    assert run.retry_by_command() == "COMPLETED"
    assert run.outcome() == unbroken
