"""Background processes: start one that outlives us, recognise it again, stop it.

A process is recognised by its pid and start time, and by a marker in its environment that its
children inherit; so a recycled pid is never signalled, and a child whose parent was killed is
still found. Without Linux's /proc, `ps` and the process group take their place. Knows neither
Prefect nor MLflow.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from epochal.data.errors import InputError, ServerUnavailable
from epochal.flows.servers.home import ServerHome, ServerRecord, record_of

GRACE_S = 20.0
MARKER = "EPOCHAL_SERVER"

_POLL_S = 0.05
_LOG_LINES = 20
_PROC = Path("/proc")
# Fields of /proc/<pid>/stat behind the command's closing bracket, proc_pid_stat(5).
_STATE, _SESSION, _START_TICKS = 0, 3, 19


def start_detached(
    command: Sequence[str],
    *,
    name: str,
    home: ServerHome,
    port: int,
    environment: Mapping[str, str],
    stops_when_idle: bool = False,
    serves: str | None = None,
    listening: socket.socket | None = None,
) -> ServerRecord:
    """Starts `command` in a session of its own, its output in a log file.

    It inherits no descriptor but `listening`, whose number replaces `{fd}` in the command.
    """
    log = home.log(name)
    marker = {"name": name, "home": str(home.folder), "port": port, "log": str(log)}
    marker |= {"stops_when_idle": stops_when_idle, "serves": serves}
    handed = () if listening is None else (listening.fileno(),)
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [part.format(fd=handed[0]) if handed else part for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=home.folder,
            env={**environment, MARKER: json.dumps(marker)},
            start_new_session=True,
            pass_fds=handed,
        )
    # If it dies while we live, somebody must reap it: a zombie keeps its pid.
    threading.Thread(target=process.wait, name=f"reaps-{name}", daemon=True).start()
    return ServerRecord(
        name=name,
        pid=process.pid,
        started=start_mark(process.pid) or "gone",
        port=port,
        log=str(log),
        stops_when_idle=stops_when_idle,
        serves=serves,
    )


def is_alive(record: ServerRecord) -> bool:
    """Whether exactly the process of this record still runs."""
    return start_mark(record.pid) == record.started


def start_mark(pid: int) -> str | None:
    """When the process began, as one word per boot of the machine; None if it does not run."""
    if not _has_proc():
        return _start_mark_by_ps(pid)
    stat = _stat(pid)
    if stat is None or stat[_STATE] in "ZX":
        return None
    return f"{_boot_id()}/{stat[_START_TICKS]}"


def surviving(home: ServerHome) -> dict[str, ServerRecord]:
    """The servers of this home that run, found without its note: by their markers."""
    found: dict[str, ServerRecord] = {}
    for pid in _own_pids():
        marker, stat = _marker(pid), _stat(pid)
        leads = stat is not None and stat[_SESSION] == str(pid)
        started = start_mark(pid)
        if marker is None or not leads or started is None or marker["home"] != str(home.folder):
            continue
        record = record_of(str(marker["name"]), {**marker, "pid": pid, "started": started})
        found[record.name] = record
    return found


def stop(record: ServerRecord, *, home: ServerHome, grace_s: float = GRACE_S) -> bool:
    """Ends the record's process and all that it started: SIGTERM, and SIGKILL after `grace_s`.

    Returns whether there was anything to stop.
    """
    pids = _family(record, home)
    if not pids:
        return False
    _signal(pids, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while (pids := _family(record, home)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    while pids := _family(record, home):
        _signal(pids, signal.SIGKILL)
        time.sleep(_POLL_S)
    return True


def reserve_port(preferred: int, *, required: bool = False) -> socket.socket:
    """A listening socket on loopback: on the preferred port, or on a free one if that is taken.

    Raises InputError if the port is required and cannot be had.
    """
    for port in (preferred, 0):
        reserved = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            reserved.bind(("127.0.0.1", port))
            reserved.listen(128)
        except (OSError, OverflowError) as error:
            reserved.close()
            if required or port == 0:
                raise InputError(
                    f"port {port}: cannot be used on 127.0.0.1 ({error}); name a free one"
                ) from error
            continue
        return reserved
    raise AssertionError("port 0 is always free or refused")


def port_of(reserved: socket.socket) -> int:
    """The port that a socket is bound to."""
    return int(reserved.getsockname()[1])


def answers(port: int, path: str, *, timeout_s: float) -> bool:
    """Whether a GET of `path` on loopback is answered with 200. Asks no proxy."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def wait_until_answers(record: ServerRecord, path: str, *, timeout_s: float) -> None:
    """Returns when the server answers. Raises ServerUnavailable if it ends, or does not in time."""
    deadline = time.monotonic() + timeout_s
    while not answers(record.port, path, timeout_s=1.0):
        if not is_alive(record):
            raise ServerUnavailable(
                f"{record.name}: the server on port {record.port} ended while it started"
                f"{_last_lines(record)}"
            )
        if time.monotonic() > deadline:
            raise ServerUnavailable(
                f"{record.name}: no answer from {record.url}{path} in {timeout_s:.0f} s, though "
                f"its process {record.pid} runs; `epochal down` stops it{_last_lines(record)}"
            )
        time.sleep(_POLL_S)


def _last_lines(record: ServerRecord) -> str:
    try:
        lines = Path(record.log).read_text(errors="replace").splitlines()
    except OSError as error:
        return f"; its log {record.log} cannot be read: {error}"
    shown = "\n".join(f"    {line}" for line in lines[-_LOG_LINES:])
    return f"; the end of its log {record.log}:\n{shown or '    (empty)'}"


def _family(record: ServerRecord, home: ServerHome) -> set[int]:
    """Pids of the server and of everything that it started."""
    if not _has_proc():
        return {record.pid} if is_alive(record) else set()
    family = {record.pid} if is_alive(record) else set()
    for pid in _own_pids():
        marker = _marker(pid)
        if marker and marker["name"] == record.name and marker["home"] == str(home.folder):
            family.add(pid)
    return family - {os.getpid()}


def _signal(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            if _has_proc():
                os.kill(pid, number)
            else:
                os.killpg(pid, number)  # it leads its session and therefore its group
        except ProcessLookupError:
            continue


def _own_pids() -> list[int]:
    if not _has_proc():
        return []
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal()]


def _marker(pid: int) -> dict[str, object] | None:
    """What `start_detached` put into the environment that this process began with."""
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    prefix = f"{MARKER}=".encode()
    for entry in environment.split(b"\0"):
        if entry.startswith(prefix):
            value = json.loads(entry[len(prefix) :])
            return value if isinstance(value, dict) else None
    return None


def _stat(pid: int) -> list[str] | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


@cache
def _boot_id() -> str:
    """Tells boots, and machines that share a home, apart."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


@cache
def _has_proc() -> bool:
    return (_PROC / "self/environ").exists()


def _start_mark_by_ps(pid: int) -> str | None:
    shown = subprocess.run(  # noqa: S603
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)],  # noqa: S607 - ps is where the system has it
        capture_output=True,
        text=True,
        check=False,
        env={"LC_ALL": "C", "PATH": os.environ.get("PATH", "/bin:/usr/bin")},
    ).stdout.split(maxsplit=1)
    return None if not shown or shown[0].startswith("Z") else " ".join(shown[1].split())
