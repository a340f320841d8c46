"""Background processes: start one that outlives us, recognise it again, stop it.

A process is recognised by its pid and start time, and by a marker in its environment that its
children inherit; so a recycled pid is never signalled, and a child whose parent was killed is
still found. Knows neither Prefect nor MLflow.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from http import HTTPStatus
from pathlib import Path

import psutil
from pydantic import ValidationError

from epochal.data.errors import InputError, ServerUnavailable
from epochal.flows.servers.home import NoteDamagedError, Server, ServerHome, ServerRecord
from epochal.tasks.http import ask
from epochal.tasks.private_files import private_file

GRACE_S = 20.0
MARKER = "EPOCHAL_SERVER"

_POLL_S = 0.05
_LOG_LINES = 20
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class _Marker(Server):
    """What `MARKER` holds in the environment of a server's process and of all that it starts."""

    home: str


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
    owner_only: bool = False,
) -> ServerRecord:
    """Starts `command` in a session of its own, its output in a log file.

    It inherits no descriptor but `listening`, whose number replaces the word `{fd}`.
    owner_only: whether its files are to be read by nobody else; else by whom the umask lets.
    """
    server = Server(
        name=name,
        port=port,
        log=str(home.log(name)),
        stops_when_idle=stops_when_idle,
        serves=serves,
    )
    marker = _Marker(**server.model_dump(), home=str(home.folder))
    handed = () if listening is None else (listening.fileno(),)
    with private_file(home.log(name)).open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [str(*handed) if part == "{fd}" else part for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=home.folder,
            env={**environment, MARKER: marker.model_dump_json()},
            start_new_session=True,
            pass_fds=handed,
            umask=0o077 if owner_only else -1,
        )
    # If it ends before we do, we must wait for it: else its pid stays taken (a zombie).
    threading.Thread(target=process.wait, name=f"reaps-{name}", daemon=True).start()
    return ServerRecord(
        **server.model_dump(), pid=process.pid, started=start_mark(process.pid) or "gone"
    )


def find_or_start(
    name: str,
    *,
    home: ServerHome,
    port: int | None,
    start: Callable[[], ServerRecord],
    serves: str | None = None,
) -> tuple[ServerRecord, bool]:
    """The server of this name and whether this call started it. Call it under the home's lock.

    port: where it must be, or None. serves: what it must serve; one that serves something else is
    stopped. Raises InputError if it runs at another port.
    """
    records = read_note(home)
    record = records.get(name)
    if record is not None and is_alive(record) and serves in (None, record.serves):
        if port not in (None, record.port):
            raise InputError(
                f"port {port}: the {name} server already runs at {record.url}; leave the port out, "
                "or run `epochal down` first"
            )
        return record, False
    leftover = record or surviving(home).get(name)
    if leftover is not None:
        stop(leftover, home=home)
    record = start()
    home.write({**records, name: record})
    return record, True


def read_note(home: ServerHome) -> dict[str, ServerRecord]:
    """The servers that the note names; if it is damaged, those found by their markers."""
    try:
        return home.read()
    except NoteDamagedError:
        return surviving(home)


def is_alive(record: ServerRecord) -> bool:
    """Whether exactly the process of this record still runs."""
    return start_mark(record.pid) == record.started


def start_mark(pid: int) -> str | None:
    """When the process began, as one word per boot of the machine; None if it does not run.

    On Linux in clock ticks since the boot: the time of day at which it began is computed from the
    system's clock, and changes when that is set.
    """
    try:
        process = psutil.Process(pid)
        if process.status() in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}:
            return None
        began_s = process.create_time()
    except psutil.NoSuchProcess:
        return None
    boot_id = _boot_id()
    if boot_id is None:
        return str(began_s)
    return f"{boot_id}/{round((began_s - psutil.boot_time()) * os.sysconf('SC_CLK_TCK'))}"


def surviving(home: ServerHome) -> dict[str, ServerRecord]:
    """The servers of this home that run, found without its note: by their markers."""
    servers: dict[str, ServerRecord] = {}
    for process in psutil.process_iter():
        marker = _marker(process)
        if marker is None or marker.home != str(home.folder) or not _leads_session(process.pid):
            continue
        started = start_mark(process.pid)
        if started is not None:
            known = marker.model_dump(exclude={"home"})
            servers[marker.name] = ServerRecord(**known, pid=process.pid, started=started)
    return servers


def stop(
    record: ServerRecord, *, home: ServerHome, grace_s: float = GRACE_S, started_first: bool = False
) -> bool:
    """Ends the record's process and all that it started: SIGTERM, and SIGKILL after `grace_s`.

    started_first: what it started is given as long before it is told itself, since it would end
    that at once: a worker its runs, before they have committed. Returns whether there was anything
    to stop.
    """
    if not _family(record, home):
        return False

    def started() -> list[psutil.Process]:
        return [process for process in _family(record, home) if process.pid != record.pid]

    if started_first:
        _end(started, grace_s=grace_s)
    family = _end(lambda: _family(record, home), grace_s=grace_s)
    while family:
        _signal(family, signal.SIGKILL)
        psutil.wait_procs(family, timeout=_POLL_S)
        family = _family(record, home)
    return True


def _end(running: Callable[[], list[psutil.Process]], *, grace_s: float) -> list[psutil.Process]:
    """Sends SIGTERM to those that run, and gives those that still do after `grace_s`."""
    left = running()
    _signal(left, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while left and time.monotonic() < deadline:
        # In short waits: an ended process counts as running until its parent has waited for it.
        psutil.wait_procs(left, timeout=_POLL_S)
        left = running()
    return left


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
    """Whether a GET of `path` on loopback is answered with 200."""
    try:
        answer = ask(f"http://127.0.0.1:{port}{path}", timeout_s=timeout_s)
    except OSError:
        return False
    return answer.status == HTTPStatus.OK


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
                f"its process {record.pid} runs; `epochal down --force` stops it"
                f"{_last_lines(record)}"
            )
        time.sleep(_POLL_S)


def _last_lines(record: ServerRecord) -> str:
    try:
        lines = Path(record.log).read_text(errors="replace").splitlines()
    except OSError as error:
        return f"; its log {record.log} cannot be read: {error}"
    shown = "\n".join(f"    {line}" for line in lines[-_LOG_LINES:])
    return f"; the end of its log {record.log}:\n{shown or '    (empty)'}"


def _family(record: ServerRecord, home: ServerHome) -> list[psutil.Process]:
    """The server and everything that it started, but never this process itself."""
    own = record.pid if is_alive(record) else None
    others = [process for process in psutil.process_iter() if process.pid != os.getpid()]
    return [process for process in others if process.pid == own or _is_of(process, record, home)]


def _is_of(process: psutil.Process, record: ServerRecord, home: ServerHome) -> bool:
    marker = _marker(process)
    return marker is not None and (marker.name, marker.home) == (record.name, str(home.folder))


def _signal(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # also if its pid belongs to another process now
            process.send_signal(number)


def _marker(process: psutil.Process) -> _Marker | None:
    """The marker that `start_detached` put into that process's environment, or None."""
    try:
        text = process.environ().get(MARKER)
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # gone, or somebody else's
        return None
    try:
        return None if text is None else _Marker.model_validate_json(text)
    except ValidationError:  # a variable of that name which is not ours
        return None


def _leads_session(pid: int) -> bool:
    try:
        return os.getsid(pid) == pid
    except ProcessLookupError:
        return False


@cache
def _boot_id() -> str | None:
    """The system's id of this boot, different on each machine; None where there is none."""
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else None
