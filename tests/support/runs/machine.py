"""A home with servers of its own, as on a machine of its own, and a look at its processes."""

import contextlib
import functools
import http.client
import json
import os
import random
import select
import shutil
import signal
import socket
import socketserver
import threading
import time
from pathlib import Path

import httpx
from support.runs.command import children
from support.runs.project import MODEL, Project, call, environment

USUAL_PORTS = (4200, 5000)


class Machine:
    """Commands run with this `HOME`; tables of the databases are there from the start."""

    def __init__(self, folder: Path, *, prefect_tables=None, mlflow_tables=None):
        self.home = folder
        self.prefect_home = folder / ".prefect"
        for tables, place in (
            (prefect_tables, self.prefect_home / "prefect.db"),
            (mlflow_tables, folder / ".epochal" / "mlflow.db"),
        ):
            if tables is not None:
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(tables, place)

    def environment(self, **variables):
        """Its variables, inside the block."""
        return environment(
            HOME=str(self.home),
            PREFECT_HOME=str(self.prefect_home),
            PREFECT_WORKER_QUERY_SECONDS="1",
            **variables,
        )

    def kill(self, name):
        """SIGKILL to a server and what it has started; when this returns, its port is free."""
        server = self.servers[name]
        for pid in (server["pid"], *children(server["pid"])):
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not listens(server["port"]))

    def __call__(self, *arguments, **variables):
        """One command of the command line, in this process."""
        with self.environment(**variables):
            return call(*arguments)

    @property
    def servers(self):
        """Name → what the note says of that server."""
        note = self.prefect_home / "epochal.json"
        return json.loads(note.read_text())["servers"] if note.exists() else {}

    def process(self, name):
        return Path("/proc") / str(self.servers[name]["pid"])


class Deployed:
    """A project that is deployed on a machine where servers and a worker run.

    Its model fails at the training step that a file named `broken` in the working folder names.
    """

    def __init__(self, machine, up, project):
        self.machine, self.up, self.project = machine, up, project
        self.api, self.ui, self.mlflow = up["prefect_api"], up["prefect_ui"], up["mlflow_ui"]
        done = machine("deploy", str(project.config), "--json")
        assert done.code == 0, done.err
        self.deployment = done.json

    @classmethod
    def on(cls, machine, up):
        assert up.code == 0, up.err
        # Batch normalisation cannot be trained on the one sample that a last batch may have.
        loader = {"batch_size": 16, "drop_last": True}
        allowed = ["items:Items"]  # what runs of the kill tests read instead
        project = Project(
            machine.home / "project",
            loader=loader, targets_allowed=allowed, launch={"kind": "local"},
        )  # fmt: skip
        fails = 'int(os.environ.get("FAIL_AT_CALL", -1))'
        told = '(int(open("broken").read() or 38) if os.path.exists("broken") else -1)'
        project.write("model.py", MODEL.replace(fails, told))
        for name in ("prefect", "queue", "torch"):
            project.write(f"{name}.py", "raise RuntimeError('imported in place of the library')")
        return cls(machine, up.json, project)

    @functools.cached_property
    def complete_run(self):
        """The id of a run that is complete."""
        run = self.run()
        assert self.wait(run, "COMPLETED", "FAILED", "CRASHED")["state_type"] == "COMPLETED"
        return run

    def run(self, *, step_seconds=0, deployment=None, called=None, **changes):
        """The id of a new run of the deployment, with these fields of its config changed.

        called: the name that a person gives it.
        """
        path = f"deployments/{deployment or self.deployment['deployment_id']}"
        config = self.get(path)["parameters"]["config"]
        body = {
            "parameters": {"config": {**config, **changes}},
            "job_variables": {"env": {"STEP_SECONDS": str(step_seconds)}},
            **({} if called is None else {"name": called}),
        }
        return self.post(f"{path}/create_flow_run", body)["id"]

    def retry(self, run):
        """What the button of the UI sends."""
        state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}
        self.post(f"flow_runs/{run}/set_state", {"state": state, "force": True})

    def wait(self, run, *states, timeout_s=120.0):
        """The run as soon as its state's type is one of these."""
        return wait_for(
            lambda: (now := self.get(f"flow_runs/{run}"))["state_type"] in states and now,
            timeout_s=timeout_s,
        )

    def tasks(self, run, *, attempt=1):
        """Name → state of the task runs of that attempt."""
        body = {"flow_runs": {"id": {"any_": [run]}}, "sort": "EXPECTED_START_TIME_ASC"}
        return {
            one["name"]: one["state_name"]
            for one in self.post("task_runs/filter", body)
            if one["flow_run_run_count"] == attempt
        }

    def logs(self, run):
        """What was logged, in order."""
        body = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
        return [one["message"] for one in self.post("logs/filter", body)]

    def get(self, path):
        return httpx.get(f"{self.api}/{path}", timeout=30).raise_for_status().json()

    def post(self, path, body):
        def answer():
            found = httpx.post(f"{self.api}/{path}", json=body, timeout=30)
            # SQLite is locked for a moment: Prefect's own client asks again, too.
            return None if found.status_code == httpx.codes.SERVICE_UNAVAILABLE else found

        return wait_for(answer).raise_for_status().json()


@contextlib.contextmanager
def taken(*ports):
    """Nobody else can have these ports inside the block."""
    with contextlib.ExitStack() as stack:
        for port in ports:
            listening = stack.enter_context(socket.socket())
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):  # then somebody has it already
                listening.bind(("127.0.0.1", port))
                listening.listen()
        yield


@contextlib.contextmanager
def tunnel(port):
    """Another port of loopback that leads to this one, byte for byte, as `ssh -L` makes it."""

    class Forward(socketserver.BaseRequestHandler):
        def handle(self):
            with socket.create_connection(("127.0.0.1", port)) as there:
                ends = {self.request: there, there: self.request}
                while True:
                    for end in select.select(list(ends), [], [])[0]:
                        data = end.recv(1 << 16)
                        if not data:
                            return
                        ends[end].sendall(data)

    class Tunnel(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request, client_address):  # one end has closed
            pass

    with Tunnel(("127.0.0.1", 0), Forward) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def free_port():
    """A port that nobody listens at, below those that the system gives to its clients.

    One of those could be taken by a client of the very server that is to be started there again.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as unused, contextlib.suppress(OSError):
            unused.bind(("127.0.0.1", port))
            return port


def listens(port):
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def get(url, path):
    """(status, body) of a GET; no proxy is asked."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def status_of(url, path, *, method="GET", body=None, **headers):
    """The status of a request with these headers (`_` for `-`), `Host` too if it is among them."""
    address = url.removeprefix("http://")
    named = {"Host": address, **{name.replace("_", "-"): text for name, text in headers.items()}}
    connection = http.client.HTTPConnection(address, timeout=30)
    with contextlib.closing(connection):
        connection.putrequest(method, path, skip_host=True)
        if body is not None:
            named |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        for name, text in named.items():
            connection.putheader(name, text)
        connection.endheaders(None if body is None else body.encode())
        return connection.getresponse().status


def wait_for(what, *, timeout_s=60.0):
    """The first true answer of `what()`."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = what()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.2)


def variables_of(process):
    """The environment that a process began with."""
    entries = (process / "environ").read_bytes().decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def family(process):
    """Command lines of all processes in the session of that one."""
    session = (process / "stat").read_text().rpartition(")")[2].split()[3]
    found = []
    for other in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (other / "stat").read_text().rpartition(")")[2].split()
            if fields[3] == session:
                found.append((other / "cmdline").read_text().replace("\0", " "))
    return found
