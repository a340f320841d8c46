"""Prefect in our process: silent in the terminal, complete on its server, its failures named."""

import os
import subprocess
import sys
import textwrap
import time

import httpx
import pytest
from support.runs.machine import Machine, free_port, wait_for
from support.runs.project import environment

from epochal.data.errors import Interrupted, ServerUnavailable
from epochal.flows.flow_run.client import begun_patiently, server_errors, talking_to

pytestmark = pytest.mark.server

FLOW = """
    import logging, os, signal, sys
    from epochal.flows.flow_run.liveness import beating, own_heartbeat
    from epochal.flows.flow_run.client import quiet_console, talking_to

    def run():
        from prefect import flow, get_run_logger, task

        @task(name="step")
        def step(number):
            get_run_logger().warning("said by Prefect's logger in step %d", number)
            logging.getLogger("of_the_user").warning("said by the user in step %d", number)

        @flow(name="flow-of-{pid}")
        def whole():
            with beating():
                step(0)
                {middle}
                step(1)

        with own_heartbeat():
            whole()

    try:
        with talking_to(os.environ["PREFECT_API_URL"]), quiet_console():
            run()
    except Exception as error:
        print(type(error).__name__, error, file=sys.stderr)
"""


def run_flow(middle=""):
    """What a process printed that ran a flow of two steps."""
    code = textwrap.dedent(FLOW).replace("{middle}", middle).replace("{pid}", str(time.time_ns()))
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=True
    )


def logs(api):
    body = {"sort": "TIMESTAMP_DESC", "limit": 50}
    return [one["message"] for one in httpx.post(f"{api}/logs/filter", json=body).json()]


def test_nothing_of_prefect_is_printed_and_all_of_it_is_on_its_server(prefect_api):
    done = run_flow()
    assert done.stdout == ""
    said = [line.partition(" | ")[2] for line in done.stderr.splitlines()]
    assert said == [f"WARNING | of_the_user - said by the user in step {n}" for n in (0, 1)]
    wait_for(lambda: "said by Prefect's logger in step 1" in logs(prefect_api))


def test_the_traceback_of_a_failure_is_on_the_server_and_not_in_the_terminal(prefect_api):
    done = run_flow("raise ValueError('of the user')")
    assert done.stdout == ""
    assert done.stderr.splitlines()[1:] == ["ValueError of the user"]
    wait_for(
        lambda: [one for one in logs(prefect_api) if "Traceback" in one and "of the user" in one]
    )


@pytest.mark.slow
def test_a_server_that_dies_under_a_run_is_named_and_nothing_else_is_said(tmp_path, empty_prefect):
    machine = Machine(tmp_path / "home", prefect_tables=empty_prefect)
    with machine.environment():
        from epochal.flows.servers import ensure_prefect_server

        server = ensure_prefect_server()
    killed = machine.servers["prefect"]["pid"]
    with environment(PREFECT_API_URL=server.api_url):
        started = time.monotonic()
        done = run_flow(f"os.kill({killed}, signal.SIGKILL)")
    machine("down", "--force")
    assert time.monotonic() - started < 90
    (*said, last) = done.stderr.splitlines()
    assert all("of_the_user" in line for line in said)
    assert last.startswith(f"ServerUnavailable Prefect's server at {server.api_url} failed: ")
    assert "run the same command" in last


def test_a_server_that_is_not_there_is_named_at_once():
    from prefect.client.orchestration import get_client

    url = f"http://127.0.0.1:{free_port()}/api"
    started = time.monotonic()
    with pytest.raises(ServerUnavailable, match=url), talking_to(url):
        get_client(sync_client=True).read_deployments()
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "error",
    [
        httpx.ReadTimeout("late"),
        RuntimeError("Failed to reach API at http://x/api"),
        RuntimeError("Found incompatible versions: client: 3.8, server: 2.0"),
    ],
)
def test_what_prefects_client_raises_for_its_server_is_the_servers_failure(prefect_api, error):
    with pytest.raises(ServerUnavailable, match="failed"), talking_to(prefect_api):
        raise error


@pytest.mark.parametrize("error", [RuntimeError("size mismatch"), ValueError(), OSError("disk")])
def test_what_others_raise_goes_through(prefect_api, error):
    with pytest.raises(type(error)) as raised, talking_to(prefect_api):
        raise error
    assert raised.value is error
    assert not isinstance(error, server_errors())


def test_a_run_that_the_server_ends_is_interrupted(prefect_api):
    from prefect.exceptions import Abort

    with pytest.raises(Interrupted, match="deleted in the UI"), talking_to(prefect_api):
        raise Abort("deleted in the UI")


def test_the_server_in_use_is_that_of_the_block_only(prefect_api, monkeypatch):
    from prefect.settings import get_current_settings

    monkeypatch.delenv("PREFECT_API_URL")
    with talking_to("http://one/api"):
        assert get_current_settings().api.url == "http://one/api"
        with talking_to("http://two/api"):
            assert get_current_settings().api.url == "http://two/api"
        assert os.environ["PREFECT_API_URL"] == "http://one/api"
    assert "PREFECT_API_URL" not in os.environ


def refused(status):
    request = httpx.Request("POST", "http://127.0.0.1:4200/api/flow_runs/")
    response = httpx.Response(status, request=request)
    return httpx.HTTPStatusError(f"status {status}", request=request, response=response)


class Server:
    """Fails with these errors, one after the other, and then gives a result."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.notices = []

    def __call__(self):
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    def patiently(self, *, begun=False):
        return begun_patiently(self, begun=lambda: begun, notice=self.notices.append)


@pytest.fixture
def no_pause(monkeypatch):
    monkeypatch.setattr("epochal.flows.flow_run.client.PAUSE_S", 0.0)


def test_a_server_that_is_busy_when_a_run_begins_is_asked_again(no_pause):
    server = Server(refused(503), refused(502), httpx.ReadTimeout("slow"))
    assert server.patiently() == "done"
    (notice,) = server.notices
    assert "does not take the run" in notice


@pytest.mark.parametrize("error", [refused(404), refused(401), ValueError("ours")])
def test_what_no_patience_helps_is_raised_at_once(error, no_pause):
    server = Server(error)
    with pytest.raises(type(error)):
        server.patiently()
    assert server.notices == []


def test_a_run_that_has_begun_is_not_begun_again(no_pause):
    with pytest.raises(httpx.HTTPStatusError):
        Server(refused(503)).patiently(begun=True)


def test_patience_with_a_server_ends_as_that_with_a_store(no_pause, monkeypatch):
    monkeypatch.setenv("EPOCHAL_STORE_PATIENCE_SECONDS", "0")
    server = Server(refused(503))
    with pytest.raises(httpx.HTTPStatusError):
        server.patiently()
