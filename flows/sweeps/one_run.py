"""One run of a sweep, in the process that calls: opened, called as a flow, and told of by events.

An event is a small JSON object with its kind under `event`: `opened`, `stage`, `live`, `started`,
`notice`, and at last `finished` or `failed`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from epochal.data.errors import EpochalError, Interrupted, StoreUnavailable, TrainingFailed
from epochal.data.traces import failure_text, in_one_line
from epochal.flows.environment import importing
from epochal.flows.flow_run.client import begun_patiently, quiet_console, talking_to
from epochal.flows.flow_run.imports import import_mlflow_beside, import_prefect
from epochal.flows.flow_run.log import FlowLog
from epochal.flows.servers import local_mlflow_uri
from epochal.tasks.config.parts import SweepPart
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.stage import Stage
from epochal.tasks.reporting import Live, Outcome, SilentReporter, reporting_to
from epochal.tasks.running.lifecycle import prepare
from epochal.tasks.running.run import Run, working_on
from epochal.tasks.stages.registry import KINDS

Tell = Callable[[Mapping[str, Any]], None]
LIVE_EVERY_S = 0.25


@dataclass(frozen=True)
class Order:
    """What is to be run: a config, and what the sweep asks of it.

    flow_run: Prefect's id of the sweep's own flow run, below which the run's is shown.
    """

    config: RunConfig
    part: SweepPart
    flow_run: str | None = None

    def on(self, device: str) -> Order:
        """The same on that device."""
        return replace(self, config=self.config.model_copy(update={"device": device}))

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {**self.parameters(), "flow_run": self.flow_run}

    def parameters(self) -> dict[str, Any]:
        """Of the flow, as plain JSON."""
        return {
            "config": self.config.model_dump(mode="json"),
            "part": self.part.model_dump(mode="json"),
        }

    @classmethod
    def of_document(cls, body: Mapping[str, Any]) -> Order:
        """From JSON."""
        return cls(
            RunConfig.model_validate(body["config"]),
            SweepPart.model_validate(body["part"]),
            body["flow_run"],
        )


class Teller(SilentReporter):
    """Tells what a run reports as events."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._told_s = 0.0
        self.stage: str | None = None

    def reading(self, field: str, done: int, count: int) -> None:
        """Now and then."""
        self._now_and_then({"event": "reading", "field": field, "done": done, "count": count})

    def started(self, stage: Stage) -> None:
        """A stage begins."""
        self.stage = stage.key
        self._tell({"event": "started", "kind": stage.kind, "epoch": stage.epoch})

    def live(self, live: Live) -> None:
        """Now and then."""
        self._now_and_then(
            {
                "event": "live",
                "epoch": live.epoch,
                "update": live.update,
                "num_updates": live.num_updates,
                "loss": live.loss,
            }
        )

    def ended(self, outcome: Outcome) -> None:
        """A stage is there."""
        stage, self.stage = outcome.stage, None
        self._tell(
            {
                "event": "stage",
                "kind": stage.kind,
                "epoch": stage.epoch,
                "key": stage.key,
                "cached": outcome.cached,
                "seconds": outcome.seconds,
                "line": KINDS[stage.kind].line(stage, outcome.record),
            }
        )

    def notice(self, text: str) -> None:
        """As it is."""
        self._tell({"event": "notice", "text": text})

    def _now_and_then(self, event: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if now - self._told_s >= LIVE_EVERY_S:
            self._told_s = now
            self._tell(event)


def run_one(
    order: Order, *, api_url: str, tell: Tell, call: Callable[[Order], dict[str, Any]]
) -> None:
    """Runs it, and tells how; `call` runs the flow. Raises nothing but what ends the process."""
    teller = Teller(tell)

    def calls(run: Run) -> dict[str, Any]:
        with talking_to(api_url):
            return begun_patiently(
                partial(call, order), begun=lambda: run.tracker is not None, notice=teller.notice
            )

    try:
        result = _result(order, teller, tell, calls)
    except Exception as error:  # noqa: BLE001 - a run's failure is told, and ends no other run
        tell(_failed(error, teller.stage))
    else:
        tell({"event": "finished", "mlflow_run_id": result["mlflow_run_id"]})


def _result(
    order: Order, teller: Teller, tell: Tell, call: Callable[[Run], dict[str, Any]]
) -> dict[str, Any]:
    told, local_mlflow = FlowLog(teller), local_mlflow_uri()

    def meanwhile() -> None:
        import_prefect()
        import_mlflow_beside(order.config, local_mlflow=local_mlflow)

    run: Run = prepare(order.config, reporter=told, local_mlflow=local_mlflow, meanwhile=meanwhile)
    with closing(run):
        tell({"event": "opened", "reference": run.plan.reference})
        with reporting_to(told), working_on(run):
            return call(run)


def _failed(error: Exception, stage: str | None) -> dict[str, Any]:
    known = isinstance(error, EpochalError)
    code = error.exit_code if isinstance(error, EpochalError) else TrainingFailed.exit_code
    return {
        "event": "failed",
        "text": str(error) if known else in_one_line(error),
        "code": code,
        "stage": stage,
        "interrupted": isinstance(error, Interrupted),
        "halts": code == StoreUnavailable.exit_code and not isinstance(error, Interrupted),
        "trace": failure_text(error),
    }


def call_below(order: Order) -> dict[str, Any]:
    """Calls the flow in this process as a part of the sweep's flow run, which another one has."""
    with importing():
        from prefect.client.orchestration import get_client
        from prefect.flow_engine import run_flow_sync
        from prefect.states import Pending

        from epochal.flows.flow_run.liveness import own_heartbeat
        from epochal.flows.train import train
    given = order.parameters()
    with get_client(sync_client=True) as client:
        flow_run = client.create_flow_run(
            train,
            name=order.config.name,
            parameters=given,
            parent_task_run_id=place_in(client, order),
            tags=["sweep", order.part.sweep],
            state=Pending(),
        )
    with quiet_console(), own_heartbeat():
        result: dict[str, Any] = run_flow_sync(train, flow_run=flow_run, parameters=given)  # type: ignore[assignment]  # as it is called
    return result


def place_in(client: Any, order: Order) -> Any:
    """The task run in the sweep's flow run that stands for this run; None where there is none."""
    if order.flow_run is None:
        return None
    from uuid import UUID, uuid4

    from prefect.states import Pending
    from prefect.tasks import Task

    stands_for = Task(name=order.config.name, fn=lambda: None)
    return client.create_task_run(
        task=stands_for,
        flow_run_id=UUID(order.flow_run),
        dynamic_key=uuid4().hex[:12],
        name=order.config.name,
        state=Pending(),
    ).id
