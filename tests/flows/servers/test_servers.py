"""Servers in the background: there when they are asked for, once, on the right ports, and gone."""

import contextlib
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.runs.machine import (
    USUAL_PORTS,
    Machine,
    family,
    free_port,
    get,
    status_of,
    taken,
    variables_of,
    wait_for,
)

from epochal.flows import supervise
from epochal.flows.servers.prefect import begin_prefect_server
from epochal.flows.servers.processes import port_of, reserve_port

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]


@pytest.fixture(scope="module")
def machine(tmp_path_factory, empty_prefect, empty_mlflow):
    """A machine whose usual ports are taken, under a command whose descriptors are inherited."""
    machine = Machine(
        tmp_path_factory.mktemp("machine"),
        prefect_tables=empty_prefect,
        mlflow_tables=empty_mlflow,
    )
    for folder in (machine.home, machine.prefect_home, machine.home / ".epochal"):
        folder.chmod(0o755)
        for file in folder.glob("*.db"):
            file.chmod(0o666)
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    with taken(*USUAL_PORTS):
        yield machine
        machine("down", "--force")
    os.close(reading)
    os.close(writing)


@pytest.fixture
def up(machine):
    """What `up` prints; after the first time nothing is started."""
    before = os.umask(0)  # the servers', too: what they leave open is open
    try:
        done = machine("up", "--json")
    finally:
        os.umask(before)
    assert done.code == 0, done.err
    return done.json


@pytest.fixture
def fresh(tmp_path, empty_prefect):
    """A machine on which nothing runs."""
    machine = Machine(tmp_path / "home", prefect_tables=empty_prefect)
    yield machine
    machine("down", "--force")


def test_up_starts_all_on_free_ports_where_the_usual_are_taken_and_all_answer(machine, up):
    assert not any(
        up[name].endswith(f":{port}") for name in up for port in USUAL_PORTS if "ui" in name
    )
    assert get(up["prefect_ui"], "/api/health")[0] == 200
    assert "<html" in get(up["prefect_ui"], "/")[1]
    assert get(up["mlflow_ui"], "/health")[0] == 200
    assert "<html" in get(up["mlflow_ui"], "/")[1]
    assert set(machine.servers) == {"prefect", "mlflow", "worker"}
    assert sorted(up["logs"]) == sorted(server["log"] for server in machine.servers.values())


def test_the_page_asks_the_api_beside_it_also_through_a_tunnel_at_another_port(up):
    settings = json.loads(get(up["prefect_ui"], "/ui-settings")[1])
    assert settings["api_url"] == "/api"
    assert settings["default_ui"] == "v1"
    assert status_of(up["prefect_ui"], "/api/health", Host="localhost:9999") == 200


ATTACKED = {
    "prefect_ui": ("/api/deployments/filter", "{}"),
    "mlflow_ui": ("/api/2.0/mlflow/experiments/search", '{"max_results": 2}'),
}
WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec_WebSocket_Version": "13",
}


@pytest.mark.parametrize("name", ATTACKED)
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8888"},
        {"Host": "evil.example"},
        {"Host": "10.evil.example", "Origin": "http://10.evil.example"},
        {"Sec_Fetch_Site": "cross-site"},
    ],
    ids=str,
)
def test_no_web_page_but_its_own_reaches_a_server(up, name, headers):
    path, body = ATTACKED[name]
    assert status_of(up[name], path, method="POST", body=body) == 200
    assert status_of(up[name], path, method="POST", body=body, **headers) == 403
    asking = {"Access_Control_Request_Method": "POST"}
    assert status_of(up[name], path, method="OPTIONS", **asking, **headers) == 403
    assert status_of(up[name], "/", **headers) == 403
    assert status_of(up[name], "/health", **headers) == 403


@pytest.mark.parametrize("path", ["/api/events/out", "/api/events/in", "/api/logs/out"])
def test_no_web_page_but_its_own_opens_a_websocket(up, path):
    own = up["prefect_ui"]
    assert status_of(own, path, **WEBSOCKET, Origin=own) == 101
    assert status_of(own, path, **WEBSOCKET) == 101
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example"},
    ):
        assert status_of(own, path, **WEBSOCKET, **headers) == 403


def test_servers_listen_on_loopback_only(machine, up):
    listening = "0A"
    for name in ("prefect", "mlflow", "worker"):
        port = f"{machine.servers[name]['port']:04X}"
        lines = [
            line.split()
            for table in ("tcp", "tcp6")
            for line in (machine.process(name) / "net" / table).read_text().splitlines()[1:]
        ]
        hosts = {
            line[1].partition(":")[0]
            for line in lines
            if line[1].endswith(f":{port}") and line[3] == listening
        }
        assert hosts == {"0100007F"}, name


def test_servers_send_no_telemetry_and_start_no_jobs_of_their_own(machine, up):
    for name in machine.servers:
        variables = variables_of(machine.process(name))
        assert variables["DO_NOT_TRACK"] == "true"
        assert variables["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
        assert variables["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert not any("huey" in line or "job" in line for line in family(machine.process("mlflow")))


def test_only_their_owner_reads_what_servers_write_but_runs_of_the_worker_are_as_the_user_has_it(
    machine, up
):
    status = {name: (machine.process(name) / "status").read_text() for name in machine.servers}
    umasks = {name: text.partition("Umask:")[2].split()[0] for name, text in status.items()}
    assert umasks.pop("worker") == "0000"
    assert set(umasks.values()) == {"0077"}
    kept = [machine.home / ".epochal", *(machine.home / ".epochal").iterdir()]
    kept += [place for place in machine.prefect_home.iterdir() if place.is_file()]
    assert {place.suffix for place in kept} >= {".db", ".log", ".json", ".lock", ".touch"}
    modes = {place.name: place.stat().st_mode & 0o077 for place in kept}
    assert set(modes.values()) == {0}, modes


def test_servers_are_detached_from_the_command_that_starts_them(machine, up):
    for name, server in machine.servers.items():
        process = machine.process(name)
        mine = {link for link in links("/proc/self/fd") if link.startswith("pipe:")}
        assert mine
        assert mine.isdisjoint(links(process / "fd")), name
        assert (process / "fd" / "0").readlink() == Path("/dev/null")
        assert os.getsid(server["pid"]) == server["pid"] != os.getsid(0)


def links(folder):
    targets = set()
    for link in Path(folder).iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own descriptor
            targets.add(str(link.readlink()))
    return targets


def test_up_again_starts_nothing(machine, up):
    again = machine("up", "--json")
    assert again.code == 0
    assert again.json == {**up, "started": []}


def test_up_says_where_everything_is_and_what_to_do_next(machine, up):
    done = machine("up")
    assert done.code == 0
    for text in (up["prefect_ui"], up["mlflow_ui"], up["work_pool"], "deploy CONFIG", "down"):
        assert text in done.out
    assert max(map(len, done.out.split("log ")[0].splitlines())) <= 80


def test_a_command_uses_the_server_that_runs(machine, up):
    with machine.environment():
        server = begin_prefect_server()
    assert (server.started, server.api_url) == (False, up["prefect_api"])


@pytest.mark.parametrize("option", ["--prefect-port", "--mlflow-port"])
def test_a_running_server_stays_on_its_port_and_another_one_is_refused(machine, up, option):
    done = machine("up", option, str(free_port()))
    assert done.code == 2
    assert "already runs at" in done.err
    assert machine("up", "--json").json["started"] == []


def test_servers_are_found_again_when_their_note_is_damaged(machine, up):
    (machine.prefect_home / "epochal.json").write_text("{")
    again = machine("up", "--json")
    assert again.json["started"] == []
    assert again.json["prefect_ui"] == up["prefect_ui"]


@pytest.mark.slow
def test_a_server_that_was_killed_is_started_anew(machine, up):
    before = machine.servers
    process = machine.process("prefect")
    os.kill(before["prefect"]["pid"], signal.SIGKILL)
    wait_for(lambda: not process.exists())
    again = machine("up", "--json")
    assert again.code == 0, again.err
    assert "prefect" in again.json["started"]
    assert "mlflow" not in again.json["started"]
    assert machine.servers["prefect"]["pid"] != before["prefect"]["pid"]


def test_down_stops_all_and_again_does_nothing_and_up_takes_the_ports_it_is_given(machine, up):
    processes = [machine.process(name) for name in machine.servers]
    down = machine("down", "--json")
    assert (down.code, down.json) == (0, {"stopped": ["worker", "mlflow", "prefect"]})
    # They have ended; who has inherited them may take a moment to notice.
    wait_for(lambda: not any(process.exists() for process in processes), timeout_s=10)
    assert machine.servers == {}
    assert machine("down", "--json").json == {"stopped": []}
    assert machine("down").out == "nothing was running\n"
    prefect, mlflow = free_port(), free_port()
    done = machine("up", "--prefect-port", str(prefect), "--mlflow-port", str(mlflow), "--json")
    assert done.code == 0, done.err
    assert done.json["prefect_ui"] == f"http://127.0.0.1:{prefect}"
    assert done.json["mlflow_ui"] == f"http://127.0.0.1:{mlflow}"
    assert sorted(done.json["started"]) == ["mlflow", "prefect", "worker"]


@pytest.mark.parametrize("option", ["--prefect-port", "--mlflow-port"])
def test_a_port_that_is_taken_is_named_and_nothing_is_started(fresh, option):
    with reserve_port(0) as mine:
        port = port_of(mine)
        done = fresh("up", option, str(port))
    assert done.code == 2
    assert f"port {port}: cannot be used on 127.0.0.1" in done.err
    assert fresh.servers == {}


@pytest.mark.parametrize(
    ("ports", "said"),
    [
        (["--prefect-port", "4311", "--mlflow-port", "4311"], "asked for twice"),
        (["--prefect-port", "0"], "--prefect-port"),
        (["--mlflow-port", "65536"], "--mlflow-port"),
        (["--mlflow-port", "http"], "--mlflow-port"),
    ],
)
def test_ports_that_cannot_be_are_refused(fresh, ports, said):
    done = fresh("up", *ports)
    assert done.code == 2
    assert said in done.err
    assert fresh.servers == {}


def test_a_server_that_is_set_but_away_is_named_and_none_is_started_in_its_place(fresh):
    done = fresh("up", PREFECT_API_URL=f"http://127.0.0.1:{free_port()}/api")
    assert done.code == 75
    assert "PREFECT_API_URL" in done.err
    assert "prefect" not in fresh.servers


BEGIN = """
from epochal.flows.servers import begin_prefect_server
server = begin_prefect_server()
print(server.started, server.api_url)
"""


def test_two_commands_at_the_same_moment_start_one_server(fresh):
    with fresh.environment():
        commands = [
            subprocess.Popen([sys.executable, "-c", BEGIN], stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        outputs = [command.communicate(timeout=60)[0].split() for command in commands]
    assert sorted(started for started, _ in outputs) == ["False", "True"]
    assert outputs[0][1] == outputs[1][1]
    assert fresh("down", "--json").json == {"stopped": ["prefect"]}


def test_a_server_that_nobody_needs_ends_by_itself_and_leaves_no_note(fresh):
    with fresh.environment(EPOCHAL_IDLE_SECONDS="1"):
        server = begin_prefect_server()
        process = fresh.process("prefect")
        assert server.started
        assert server.wait().api_url == server.api_url
    wait_for(lambda: not process.exists())
    assert fresh.servers == {}


def test_idle_seconds_that_are_no_number_are_refused(fresh):
    for wrong in ("soon", "0", "-1", "inf", "nan"):
        done = fresh("up", EPOCHAL_IDLE_SECONDS=wrong)
        assert done.code == 2
        assert "EPOCHAL_IDLE_SECONDS" in done.err
    assert fresh.servers == {}


SCHEDULED = {"schedules": [{"active": True}]}
BEAT = {"event": "prefect.flow-run.heartbeat"}


@pytest.mark.parametrize(
    ("deployments", "updated_days_ago", "events", "busy"),
    [
        ([], [], [], False),
        ([SCHEDULED], [], [], True),
        ([{**SCHEDULED, "paused": True}], [], [], False),
        ([{"schedules": [{"active": False}]}, {}], [], [], False),
        ([], [0], [], True),
        ([], [1], [], False),
        ([], [1], [BEAT], True),
    ],
)
def test_a_server_is_needed_by_schedules_and_by_runs_that_live(
    deployments, updated_days_ago, events, busy
):
    now = datetime.now(UTC)
    runs = [{"updated": (now - timedelta(days=days)).isoformat()} for days in updated_days_ago]
    pages = {"deployments": [deployments], "flow_runs": [runs], "events": [{"events": events}]}

    class Api(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            left = pages[self.path.split("/")[2]]
            body = json.dumps(left.pop(0) if left else []).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            assert supervise.is_busy(server.server_port, window_s=900) is busy
        finally:
            server.shutdown()


def test_a_server_that_does_not_answer_counts_as_needed():
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        assert supervise.is_busy(deaf.getsockname()[1], window_s=900)
