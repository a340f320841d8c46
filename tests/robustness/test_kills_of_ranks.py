"""Runs of several processes under Prefect, killed and cancelled: what one process makes."""

import pytest
from support.runs.kills import CONFIG, HostedRun, Unbroken, Worker, result_of
from support.runs.machine import wait_for

pytestmark = [pytest.mark.server, pytest.mark.slow]

SHARED = {
    "gradients": {"accumulate": 2, "shards": 4, "clip_norm": 1.0},
    "loader": {"batch_size": 8, "drop_last": True, "workers": 1},
    "launch": {"kind": "local", "processes": 2},
}


@pytest.fixture(scope="module")
def alone(deployed):
    """How the run ends that nobody disturbs, with one process."""
    config = {**CONFIG, **SHARED, "name": "alone", "store": "./store-alone"}
    return Unbroken.of_result(result_of(deployed, config), deployed.mlflow)


@pytest.fixture(scope="module")
def host(deployed):
    host = Worker(deployed)
    yield host
    host.stop()


def test_a_killed_rank_is_replaced_without_a_retry(host, alone):
    run = HostedRun(host, "rank-killed", **SHARED)
    run.kill(run.trainer)
    assert run.wait_for_end() == "COMPLETED"
    assert [one for one in run.deployed.logs(run.id) if "processes start again" in one]
    assert run.outcome() == alone


def test_a_killed_flow_leaves_no_rank_and_goes_on_by_retry(host, alone):
    run = HostedRun(host, "flow-killed", **SHARED)
    run.kill()
    assert run.wait_for_end() == "CRASHED"
    assert run.retry() == "COMPLETED"
    assert run.outcome() == alone


def test_a_cancelled_run_of_ranks_goes_on_by_retry(host, alone):
    run = HostedRun(host, "ranks-cancelled", **SHARED)
    cancel = {"state": {"type": "CANCELLING"}, "force": True}
    run.deployed.post(f"flow_runs/{run.id}/set_state", cancel)
    assert run.wait_for_end() == "CANCELLED"
    assert wait_for(lambda: not run.processes())
    assert run.retry_by_command() == "COMPLETED"
    assert run.outcome() == alone
