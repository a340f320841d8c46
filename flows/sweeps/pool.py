"""Runs of a sweep as flow runs of a deployment: the workers of a pool take them, wherever they are.

What the runs have done is read from their store, which they and the sweep must both reach; how they
ended, from Prefect.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling

from epochal.flows.deployment.deployment import put_deployment
from epochal.flows.flow_run.deployed_code import allowed_targets
from epochal.flows.sweeps.lanes import Event
from epochal.flows.sweeps.one_run import Order, place_in
from epochal.flows.sweeps.process import GRACE_S
from epochal.tasks.config.run import RunConfig
from epochal.tasks.stages.registry import KINDS
from epochal.tasks.sweeps.work import SweepWork

ASK_EVERY_S = 2.0
_FAILED, _CRASHED = 3, 75


class PoolLanes:
    """As many runs at a time as the sweep's `concurrency` says, in the pool."""

    def __init__(self, work: SweepWork, *, pool: str, count: int) -> None:
        self._work, self._count = work, count
        self._deployment = put_deployment(
            _deployed(work),
            name=f"sweep {work.sweep.name}",
            source=Path(work.sweep.path),
            schedule=None,
            paused=False,
            pool=pool,
            at_once=count,
        )
        self._runs: dict[str, UUID] = {}
        self._pause = threading.Event()

    @property
    def workers(self) -> tuple[str, ...]:
        """Those that have asked the pool for work in the last minutes."""
        return self._deployment.workers

    @property
    def room(self) -> bool:
        """Whether fewer runs than that are in the pool."""
        return len(self._runs) < self._count

    def start(self, order: Order) -> None:
        """Gives it to the pool."""
        with get_client(sync_client=True) as client:
            run = client.create_flow_run_from_deployment(
                self._deployment.deployment_id,
                name=order.config.name,
                parameters=order.parameters(),
                parent_task_run_id=place_in(client, order),
                tags=["sweep", order.part.sweep],
            )
        self._runs[order.config.name] = run.id

    def events(self) -> Iterator[Event]:
        """What has come into the store, and which runs have ended."""
        self._pause.wait(ASK_EVERY_S)
        with get_client(sync_client=True) as client:
            for name, run_id in list(self._runs.items()):
                state = client.read_flow_run(run_id).state
                yield from self._stages(name)
                if state is not None and state.is_final():
                    del self._runs[name]
                    yield name, self._ended(name, state.type.value, state.message or "")

    def _stages(self, name: str) -> Iterator[Event]:
        run = self._work.tree.runs[name]
        if run.unread:
            yield name, {"event": "opened"}
            run = self._work.tree.runs[name]
        goal = self._work.at_work[name]
        missing = run.missing(goal)
        self._work.tree.refresh(name)
        for stage in missing:
            if run.view.is_done(stage):
                line = KINDS[stage.kind].line(stage, run.view.record_of(stage))
                yield name, {"event": "stage", "kind": stage.kind, "epoch": stage.epoch,
                             "key": stage.key, "cached": False, "seconds": None,
                             "line": line}  # fmt: skip

    def _ended(self, name: str, state: str, message: str) -> dict[str, Any]:
        if state == "COMPLETED":
            return {"event": "finished", "mlflow_run_id": None}
        missing = self._work.tree.runs[name].missing(self._work.at_work[name])
        cancelled = state == "CANCELLED"
        text = f"its flow run ended as {state.lower()}: {message}"
        return {
            "event": "failed",
            "text": text,
            "code": _FAILED if state == "FAILED" else _CRASHED,
            "stage": missing[0].key if missing and state == "FAILED" else None,
            "interrupted": cancelled,
            "halts": False,
            "trace": text,
        }

    def close(self) -> None:
        """Cancels what is still at work, which commits, and waits for its end for a while."""
        deadline = time.monotonic() + GRACE_S
        with get_client(sync_client=True) as client:
            for run_id in self._runs.values():
                with suppress(ObjectNotFound):
                    client.set_flow_run_state(run_id, Cancelling(), force=True)
            while self._runs and time.monotonic() < deadline:
                for name, run_id in list(self._runs.items()):
                    state = client.read_flow_run(run_id).state
                    if state is None or state.is_final():
                        del self._runs[name]
                self._pause.wait(ASK_EVERY_S if self._runs else 0)


def _deployed(work: SweepWork) -> RunConfig:
    """What the pool's workers may run: the code of all runs of the sweep."""
    configs = [run.member.config for run in work.tree.runs.values()]
    targets = {target for config in configs for target in allowed_targets(config)}
    named = {"name": work.sweep.name, "targets_allowed": tuple(sorted(targets))}
    return configs[0].model_copy(update=named)
