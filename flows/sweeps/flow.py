"""The flow of a sweep: its runs begin as those they need epochs of have gone far enough.

A run is a flow run of its own below the sweep's: in a process of this machine, in this process
(`launch.kind: inline`), or wherever a worker of a pool takes it.
"""

from __future__ import annotations

from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

from prefect.flows import flow

from epochal.flows.flow_run.client import current_flow_run
from epochal.flows.flow_run.dead_runs import noting_process
from epochal.flows.flow_run.liveness import beating
from epochal.flows.servers import local_mlflow_uri
from epochal.flows.sweeps.lanes import InlineLane, Lanes, LocalLanes
from epochal.flows.sweeps.one_run import Order
from epochal.flows.sweeps.view import SweepView
from epochal.flows.train import train
from epochal.tasks.config.parts import SweepPart
from epochal.tasks.sweeps.config import SweepConfig
from epochal.tasks.sweeps.parent_run import ParentRun
from epochal.tasks.sweeps.work import Failure, Job, SweepWork


@dataclass
class ActiveSweep:
    """A sweep that was prepared by the command, and where it is to be worked on."""

    work: SweepWork
    view: SweepView
    api_url: str


_active: ContextVar[ActiveSweep] = ContextVar("epochal_sweep")
working_on_sweep = _active.set


@flow(name="sweep", flow_run_name="{config.name}")
def sweep(config: SweepConfig) -> dict[str, Any]:
    """Trains the runs of a sweep; epochs that several share are trained once.

    Args:
        config: What varies between the runs.
    """
    active = _active.get()
    with noting_process(), beating():
        return _run(active, config)


def _run(active: ActiveSweep, config: SweepConfig) -> dict[str, Any]:
    work, view = active.work, active.view
    first = next(iter(work.tree.runs.values())).member.config
    flow_run = current_flow_run()
    assert flow_run is not None
    with ExitStack() as stack:
        parent = ParentRun(
            first.tracking,
            sweep=work.sweep.name,
            store=work.tree.stage_store.store.url,
            local_mlflow=local_mlflow_uri(),
            notice=view.notice,
        )
        status = "KILLED"
        stack.callback(lambda: _end(parent, work, status))
        lanes = _lanes(active, config)
        stack.callback(lanes.close)
        _skip_whole(work, parent)
        while True:
            while lanes.room and (job := work.next_job()) is not None:
                lanes.start(_order(job, work, parent, str(flow_run.id)))
            if not work.at_work:
                if not work.propose():
                    break
                _skip_whole(work, parent)
                continue
            for name, event in lanes.events():
                _told(work, view, name, event)
        for name, run in work.tree.runs.items():
            if name not in work.tracked:
                work.tracked[name] = parent.found(run, work.tree)
        status = "FAILED" if work.failures else "FINISHED"
    return work.result()


def _lanes(active: ActiveSweep, config: SweepConfig) -> Lanes:
    """Where the runs are worked on, by what the sweep and its runs say."""
    work, view, api_url = active.work, active.view, active.api_url
    if config.work_pool is not None:
        from epochal.flows.sweeps.pool import PoolLanes

        pool = PoolLanes(work, pool=config.work_pool, count=config.concurrency)
        if not pool.workers:
            view.notice(f"work pool {config.work_pool!r} has no worker yet: its runs wait for one")
        return pool
    if work.inline:
        told = partial(_told, work, view)
        return InlineLane(api_url=api_url, told=told, call=_subflow)
    return LocalLanes(
        sweep=work.sweep.name,
        api_url=api_url,
        count=config.concurrency,
        devices=config.devices,
    )


def _skip_whole(work: SweepWork, parent: ParentRun) -> None:
    """Runs that are done and delivered need no process to say so."""
    for name, run in work.tree.runs.items():
        if name not in work.tracked and not run.unread and run.view.is_whole:
            found = parent.delivered(run, work.tree)
            if found is not None or parent.run_id is None:
                work.skipped.add(name)
                work.tracked[name] = found


def _order(job: Job, work: SweepWork, parent: ParentRun, flow_run: str) -> Order:
    part = SweepPart(sweep=work.sweep.name, parent=parent.run_id, until=job.until)
    return Order(job.config, part, flow_run)


def _subflow(order: Order) -> dict[str, Any]:
    given: Any = order.config.model_dump(mode="json")
    part: Any = order.part.model_dump(mode="json")
    result: dict[str, Any] = train(given, part)
    return result


def _told(work: SweepWork, view: SweepView, name: str, event: dict[str, Any]) -> None:
    told = work.told[name]
    match event["event"]:
        case "opened":
            told.doing, told.live = "checked", {}
            work.opened(name)
        case "reading":
            told.doing = f"reads {event['field']} {event['done']}/{event['count']}"
        case "started":
            told.doing, told.live = event["kind"], {}
        case "live":
            told.live = event
        case "stage":
            told.live = {}
            work.ended_stage(name, event["key"], cached=event["cached"], kind=event["kind"])
        case "finished":
            work.ended(name, tracked=event["mlflow_run_id"])
        case "failed":
            failure = Failure(event["text"], event["code"], event["stage"], event["interrupted"])
            work.ended(name, failure=failure)
            if event["halts"]:
                work.halting = event["text"]
    view.said(name, event)


def _end(parent: ParentRun, work: SweepWork, status: str) -> None:
    ranked = work.ranked
    best = work.best
    states = work.states
    tags = {
        "epochal.epochs": f"{work.tree.epochs_distinct} distinct of {work.tree.epochs_sum}",
        **({} if best is None else {"epochal.best_run": best}),
    }
    body = {
        "metric": work.measure.metric,
        "runs": [
            {
                "run": name,
                "state": states[name],
                "value": work.value(name),
                "set": dict(work.tree.runs[name].member.set),
            }
            for name in ranked
        ],
    }
    varied = {name: str(values) for name, values in (work.sweep.config.vary or {}).items()}
    parent.end(status, params=varied, tags=tags, body=body)
