"""`epochal train` behind the command: server, session, flow, and where to look afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from epochal.flows import console
from epochal.flows.environment import importing
from epochal.flows.flow_log import FlowLog
from epochal.flows.servers import begin_prefect_server, mlflow_ui_of, touch_servers
from epochal.tasks.config import RunConfig
from epochal.tasks.lifecycle import prepare
from epochal.tasks.locate import remember_store
from epochal.tasks.reporting import reporting_to
from epochal.tasks.result import EpochRow, epoch_rows


@dataclass(frozen=True)
class FinishedRun:
    """What the command prints."""

    result: dict[str, Any]
    rows: list[EpochRow]
    where_to_look: list[str]


def run_training(config: RunConfig, *, reporter: console.ProgressReporter) -> FinishedRun:
    """Runs the flow on a Prefect server, which is started in the background if there is none.

    Raises InputError before the flow starts if something that was given is wrong.
    """
    told = FlowLog(reporter)
    session = prepare(config, reporter=told)  # nothing has started if it finds a mistake
    remember_store(session.store.url)
    server = begin_prefect_server().wait()
    if server.started:
        reporter.notice(f"started a Prefect server in the background; its UI: {server.ui_url}")
    touch_servers()
    with reporting_to(told):
        result = _call_flow(config, api_url=server.api_url)
    reporter.done()
    return FinishedRun(
        result=result,
        rows=epoch_rows(session.stages, session.records, session.outcomes),
        where_to_look=_where_to_look(config, result, server.ui_url, store=session.store.url),
    )


def _call_flow(config: RunConfig, *, api_url: str) -> dict[str, Any]:
    from epochal.flows.heartbeat import own_heartbeat
    from epochal.flows.prefect_client import quiet_console, talking_to

    with talking_to(api_url), quiet_console():
        with importing():
            from epochal.flows.train import train
        with own_heartbeat():
            result: dict[str, Any] = train(config)
    return result


def _where_to_look(
    config: RunConfig, result: dict[str, Any], ui_url: str, *, store: str
) -> list[str]:
    mlflow_ui = mlflow_ui_of(result["mlflow_tracking_uri"])
    mlflow = mlflow_ui or f"{result['mlflow_tracking_uri']} (`epochal up` shows it in a browser)"
    longer = f"`epochal plan … --set epochs={config.epochs + 4}`"
    hardest = f"`epochal samples {config.name} --hardest 10`"
    return [
        f"Prefect  {ui_url}",
        f"MLflow   {mlflow}",
        f"store    {store}",
        f"weights  sha256 {result['weights_sha256']}",
        "",
        f"Next: the same command again (everything is cached) · {longer} · {hardest}",
    ]
