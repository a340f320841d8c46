"""Flow runs by the process that each names: those at work, and those that a dead one left.

Prefect itself never ends the latter: they could not be retried, and would keep the place of the
next run of their deployment. Touches no run whose process is alive, is on another machine or is
unknown.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psutil

from epochal.flows.flow_run.client import current_flow_run
from epochal.flows.servers import ServerHome, is_alive, read_note, start_mark
from epochal.tasks.http import ask

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, State

FLOWS = ("train", "sweep")
# Labels of a flow run. A pid means something in its namespace only, and names one process only
# together with the moment when it began.
_HOST, _SPACE, _PID, _STARTED, _TRY = (
    f"epochal.{name}" for name in ("host", "pid_namespace", "pid", "started", "try")
)
_PAGE = 200
_UNFINISHED = ("RUNNING", "CANCELLING")
_WORKING = ["RUNNING", "PENDING", "CANCELLING"]
_ANSWER_S = 10.0
# A try that has not noted its process after this time died before it could.
_NAMED_WITHIN = timedelta(minutes=5)


@contextmanager
def noting_process() -> Iterator[None]:
    """Inside a flow: its run names this process; ends tasks that dead tries left `Running`."""
    from prefect.client.orchestration import get_client

    run = current_flow_run()
    if run is None:
        raise RuntimeError("noting_process() is for the inside of a flow")
    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(run.id, {**process_labels(), _TRY: run.run_count})
        # No task of this try has begun. What resumes a paused run counts as the same try.
        _end_tasks(client, run.id, before=run.run_count + 1)
    yield


def process_labels() -> dict[str, Any]:
    """The labels that name this process."""
    pid = os.getpid()
    return {**_here(), _PID: pid, _STARTED: start_mark(pid) or ""}


def _here() -> dict[str, str]:
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not Linux: one namespace
        space = ""
    return {_HOST: socket.gethostname(), _SPACE: space}


def is_dead(labels: Mapping[str, Any]) -> bool:
    """Whether the process that the labels name is known to have ended; False if it cannot be."""
    if any(labels.get(name) != value for name, value in _here().items()):
        return False
    pid, started = labels.get(_PID), labels.get(_STARTED)
    if not isinstance(pid, int) or pid <= 0 or not isinstance(started, str) or not started:
        return False
    return start_mark(pid) != started


def end_left_running(client: SyncPrefectClient) -> list[FlowRun]:
    """Sets runs whose process is dead to Crashed, or to Cancelled where that was asked for.

    Returns them as they were.
    """
    from prefect.client.schemas.filters import FlowFilter, FlowRunFilter
    from prefect.client.schemas.sorting import FlowRunSort

    states = {"type": {"any_": list(_UNFINISHED)}}
    unfinished = client.read_flow_runs(
        flow_filter=FlowFilter.model_validate({"name": {"any_": list(FLOWS)}}),
        flow_run_filter=FlowRunFilter.model_validate({"state": states}),
        sort=FlowRunSort.START_TIME_DESC,
        limit=_PAGE,
    )
    return [run for run in unfinished if _is_left(run) and _end(client, run)]


def _is_left(run: FlowRun) -> bool:
    """Whether the process of its present try is dead.

    A new try is `Running` for a moment before it writes down its process; until then the run still
    names the process of the try before.
    """
    if not is_dead(run.labels):
        return False
    if run.labels.get(_TRY, run.run_count) == run.run_count:
        return True
    return run.state is not None and datetime.now(UTC) - run.state.timestamp > _NAMED_WITHIN


def _end(client: SyncPrefectClient, run: FlowRun) -> bool:
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Cancelled, Crashed

    with suppress(ObjectNotFound):  # somebody deleted it
        # Asked again: since the list was made it may have reported its end, or a new try begun.
        run = client.read_flow_run(run.id)
        state = run.state
        if state is None or state.type.value not in _UNFINISHED or not _is_left(run):
            return False
        message = (
            f"Process {run.labels[_PID]} on {run.labels[_HOST]} ended without a word. What it had "
            "committed is intact: Retry, or the same command, goes on from there."
        )
        end: State[Any] = (
            Cancelled(message=message) if state.is_cancelling() else Crashed(message=message)
        )
        client.set_flow_run_state(run.id, end)
        _end_tasks(client, run.id, before=run.run_count + 1)
        return True
    return False


def _end_tasks(client: SyncPrefectClient, run_id: UUID, *, before: int) -> None:
    """Ends the tasks of tries before `before`, the first try that may be alive."""
    from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter
    from prefect.states import Crashed

    left = client.read_task_runs(
        flow_run_filter=FlowRunFilter.model_validate({"id": {"any_": [run_id]}}),
        task_run_filter=TaskRunFilter.model_validate({"state": {"type": {"any_": ["RUNNING"]}}}),
    )
    for task in left:
        if task.flow_run_run_count < before:
            ended: State[Any] = Crashed(message="The process that ran it ended without a word.")
            client.set_task_run_state(task.id, ended, force=True)


def runs_at_work() -> list[str]:
    """The runs that would lose their server or their worker, as a person names them.

    Of a Prefect server that does not answer nothing is known: then what the worker has started.
    A run whose process is known to have ended is none.
    """
    servers = {name: one for name, one in read_note(ServerHome.current()).items() if is_alive(one)}
    found: list[str] | None = None
    if "prefect" in servers:
        found = _of_prefect(servers["prefect"].port)
    if found is None and "worker" in servers:
        children = psutil.Process(servers["worker"].pid).children(recursive=True)
        return [f"process {child.pid} of the worker" for child in children]
    return found or []


def _of_prefect(port: int) -> list[str] | None:
    """Names of the unfinished runs that live; None if the server does not say."""
    states = {"state": {"type": {"any_": _WORKING}}}
    try:
        answer = ask(
            f"http://127.0.0.1:{port}/api/flow_runs/filter",
            posted={"flow_runs": states, "limit": _PAGE},
            timeout_s=_ANSWER_S,
        )
    except OSError:
        return None
    if answer.status != HTTPStatus.OK:
        return None
    runs: list[dict[str, Any]] = json.loads(answer.body)
    return [f"{run['name']} ({run['id']})" for run in runs if not is_dead(run.get("labels") or {})]
