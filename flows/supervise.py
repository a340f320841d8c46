"""Prefect's server in this process, ended when nobody needs it any more.

One process, so that there is none to forget: what ends it, by whatever signal, ends the server.
Run as `python -m epochal.flows.supervise`; the commands of Epochal start it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

from epochal.flows.environment import importing
from epochal.flows.flow_run.dead_runs import end_left_running
from epochal.flows.servers import ServerHome, own_pages_only, prefect_answers, read_note
from epochal.tasks.http import ask

# A run that was killed stays `Running` in Prefect for ever. One that lives sends a heartbeat at
# least every 180 s, Prefect's default.
SIGN_OF_LIFE_S = 900.0
_LOOK_AGAIN_S = 60.0
_ANSWER_S = 30.0
_PAGE = 200
_UNFINISHED = ["SCHEDULED", "PENDING", "RUNNING", "CANCELLING"]


def main() -> None:
    """Serves until SIGTERM, or until nothing has happened for the idle time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--descriptor", type=int, required=True, help="a listening socket")
    parser.add_argument("--idle-seconds", type=float, required=True)
    given = parser.parse_args()
    listening = socket.socket(fileno=given.descriptor)
    port = listening.getsockname()[1]
    watch = {"port": port, "idle_s": given.idle_seconds}
    cpus = _stay_on_one_cpu()
    threading.Thread(target=_watch, kwargs=watch, name="idle-watch", daemon=True).start()
    dead = {"port": port}
    threading.Thread(target=_end_left_running, kwargs=dead, name="dead-runs", daemon=True).start()
    if cpus:
        again = {"port": port, "cpus": cpus}
        threading.Thread(target=_use_all_cpus, kwargs=again, name="cpus", daemon=True).start()
    _serve(listening)


def _serve(listening: socket.socket) -> None:
    with importing():
        import uvicorn
        from prefect.server.api.server import create_app
        from prefect.settings import get_current_settings

    server = get_current_settings().server
    uvicorn.Server(
        uvicorn.Config(
            own_pages_only(create_app(final=True)),
            timeout_keep_alive=server.api.keepalive_timeout,
            log_level=server.logging_level.lower(),
        )
    ).run(sockets=[listening])


def _stay_on_one_cpu() -> set[int]:
    """Keeps all threads on one CPU; gives the CPUs it had before, none where that is impossible.

    A first start is a quarter faster so (14 to 11 s on two cores): its migrations hand some
    30 000 statements to the database's thread and back, and waking another CPU takes longer.
    """
    if not hasattr(os, "sched_setaffinity"):
        return set()
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(cpus)[os.getpid() % len(cpus)]})
    return cpus


def _use_all_cpus(*, port: int, cpus: set[int]) -> None:
    """Lifts the restriction of all threads as soon as the server answers."""
    while not prefect_answers(port, timeout_s=_LOOK_AGAIN_S):
        pass
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(int(thread.name), cpus)


def _end_left_running(*, port: int) -> None:
    """At the start and once a minute: runs that a dead process left `Running` can be retried."""
    while not prefect_answers(port, timeout_s=_LOOK_AGAIN_S):
        pass
    import httpx
    from prefect.client.orchestration import get_client

    never = threading.Event()
    while True:
        try:
            with get_client(sync_client=True) as client:
                for run in end_left_running(client):
                    print(f"{run.name} ({run.id}): its process is gone; ended", flush=True)  # noqa: T201 - the log
        except (httpx.HTTPError, RuntimeError) as error:  # busy, or about to end
            print(f"runs of dead processes: {type(error).__name__}: {error}", flush=True)  # noqa: T201
        never.wait(_LOOK_AGAIN_S)


def _watch(*, port: int, idle_s: float) -> None:
    """Sleeps to the moment when the server could be idle, and looks then."""
    home, never = ServerHome.current(), threading.Event()
    while True:
        left_s = home.last_touch() + idle_s - time.time()
        if left_s > 0:
            never.wait(left_s)
        elif home.folder.is_dir() and is_busy(port, window_s=max(idle_s, SIGN_OF_LIFE_S)):
            never.wait(min(idle_s, _LOOK_AGAIN_S))
        elif _end(home, idle_s=idle_s):
            return
        else:
            never.wait(min(idle_s, _LOOK_AGAIN_S))


def _end(home: ServerHome, *, idle_s: float) -> bool:
    """Ends this process, unless a command has come in between or it was asked to stay."""
    if not home.folder.is_dir():
        os.kill(os.getpid(), signal.SIGTERM)
        return True
    with home.lock():
        records = read_note(home)
        own = records.get("prefect")
        if own is not None and own.pid == os.getpid() and not own.stops_when_idle:
            return False
        if home.last_touch() + idle_s > time.time():
            return False
        if own is not None and own.pid == os.getpid():
            del records["prefect"]
            home.write(records)
        os.kill(os.getpid(), signal.SIGTERM)
        return True


def is_busy(port: int, *, window_s: float) -> bool:
    """Whether a flow run is at work or due, or a deployment has an active schedule.

    A server that does not answer counts as busy. window_s: how long an unfinished run may be
    silent before it counts as dead.
    """
    try:
        return _has_schedule(port) or _has_live_run(port, window_s=window_s)
    except (OSError, ValueError):
        return True


def _has_schedule(port: int) -> bool:
    offset = 0
    while page := _ask(port, "deployments", {"limit": _PAGE, "offset": offset}):
        for deployment in page:
            schedules = deployment.get("schedules") or []
            active = [schedule for schedule in schedules if schedule.get("active")]
            if active and not deployment.get("paused"):
                return True
        offset += len(page)
    return False


def _has_live_run(port: int, *, window_s: float) -> bool:
    states = {"state": {"type": {"any_": _UNFINISHED}}}
    unfinished = _ask(
        port, "flow_runs", {"flow_runs": states, "limit": _PAGE, "sort": "EXPECTED_START_TIME_DESC"}
    )
    if not unfinished:
        return False
    since = datetime.now(UTC) - timedelta(seconds=window_s)
    signs = [run.get(key) for run in unfinished for key in ("updated", "expected_start_time")]
    if any(datetime.fromisoformat(sign) > since for sign in signs if sign):
        return True
    heartbeat = {"name": ["prefect.flow-run.heartbeat"]}
    occurred = {"since": since.isoformat(), "until": datetime.now(UTC).isoformat()}
    page = _ask(port, "events", {"filter": {"event": heartbeat, "occurred": occurred}, "limit": 1})
    return bool(page["events"])


def _ask(port: int, what: str, query: dict[str, Any]) -> Any:
    """What `POST /api/<what>/filter` answers. Raises OSError or ValueError if it does not."""
    url = f"http://127.0.0.1:{port}/api/{what}/filter"
    answer = ask(url, posted=query, timeout_s=_ANSWER_S)
    if answer.status != HTTPStatus.OK:
        raise ValueError(f"{what}: status {answer.status}")
    return json.loads(answer.body)


if __name__ == "__main__":
    main()
