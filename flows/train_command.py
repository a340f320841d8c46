"""`epochal train` behind the command: server, session, flow, and where to look afterwards."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from epochal.data.errors import EpochalError, ServerUnavailable
from epochal.flows import console
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
    # The server takes seconds to start: data is read and the first checks are made meanwhile.
    starting = begin_prefect_server()
    session = prepare(config, reporter=reporter)
    remember_store(session.store.url)
    server = starting.wait()
    if server.started:
        reporter.notice(f"started a Prefect server in the background; its UI: {server.ui_url}")
    os.environ["PREFECT_API_URL"] = server.api_url
    touch_servers()
    with reporting_to(reporter):
        result = _call_flow(config)
    reporter.done()
    return FinishedRun(
        result=result,
        rows=epoch_rows(session.stages, session.records, session.outcomes),
        where_to_look=_where_to_look(config, result, server.ui_url, store=session.store.url),
    )


def _call_flow(config: RunConfig) -> dict[str, Any]:
    from epochal.flows.prefect_client import quiet_console, server_errors

    with quiet_console():
        from epochal.flows.train import train

        try:
            result: dict[str, Any] = train(config)
        except EpochalError:
            raise
        except server_errors() as error:
            raise ServerUnavailable(
                f"Prefect's server at {os.environ['PREFECT_API_URL']} failed: "
                f"{type(error).__name__}: {error}; what was committed is intact, run the same "
                "command to go on"
            ) from error
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
