"""`epochal train`."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epochal.flows import console
from epochal.flows.commands.options import AsJson, ConfigPath, Debug, Overrides
from epochal.flows.environment import check_environment, importing
from epochal.flows.flow_run.client import (
    begun_patiently,
    quiet_console,
    talking_to,
)
from epochal.flows.flow_run.imports import import_mlflow_beside, import_prefect
from epochal.flows.flow_run.log import FlowLog
from epochal.flows.progress import ProgressReporter
from epochal.flows.servers import (
    begin_prefect_server,
    local_mlflow_uri,
    mlflow_ui_of,
    touch_servers,
)
from epochal.flows.terminal.region import waiting
from epochal.flows.termination import told_of_termination
from epochal.tasks.config.load import load_config
from epochal.tasks.config.run import RunConfig
from epochal.tasks.reporting import reporting_to
from epochal.tasks.running.lifecycle import prepare
from epochal.tasks.running.run import Run, working_on
from epochal.tasks.runs.summary import EpochRow, epoch_rows
from epochal.tasks.stages.average import average_text


def train(
    config: ConfigPath,
    overrides: Overrides = None,
    as_json: AsJson = False,  # noqa: FBT002 - typer's way of a flag
    _debug: Debug = False,  # noqa: FBT002 - likewise
) -> None:
    """Run or resume: what the store has is not computed again."""
    with waiting(console.err, "reading the config"):
        loaded = load_config(config, overrides=overrides or ())
    with ProgressReporter(bar=loaded.launch.kind != "inline") as reporter:
        sets = [part for override in overrides or () for part in ("--set", override)]
        given = shlex.join([str(config), *sets])
        finished = run_training(loaded, reporter=reporter, given=given)
    if as_json:
        console.print_json(finished.result)
        return
    console.out.print()
    console.print_whole(console.epochs_table(finished.rows, title=f"run {finished.reference}"))
    console.out.print()
    for line in finished.where_to_look:
        console.out.print(line, whole=True)


@dataclass(frozen=True)
class FinishedRun:
    """What the command prints. reference: `name@generation`."""

    reference: str
    result: dict[str, Any]
    rows: list[EpochRow]
    where_to_look: list[str]


def run_training(config: RunConfig, *, reporter: ProgressReporter, given: str) -> FinishedRun:
    """Runs the flow on a Prefect server, which is started in the background if there is none.

    given: the config and the changes to it as they stand in the command, for the hints.

    Raises InputError before the flow starts if something that was given is wrong.
    """
    told, local_mlflow = FlowLog(reporter), local_mlflow_uri()

    def meanwhile() -> None:
        import_prefect()
        import_mlflow_beside(config, local_mlflow=local_mlflow)

    check_environment()
    with told_of_termination():
        # If it finds a mistake, nothing has been started.
        run = prepare(config, reporter=told, local_mlflow=local_mlflow, meanwhile=meanwhile)
        with closing(run):
            store_url = run.session.store.url
            reporter.doing("waiting for Prefect's server")
            server = begin_prefect_server().wait()
            if server.started:
                reporter.notice(
                    f"started a Prefect server in the background; its UI: {server.ui_url}"
                )
            touch_servers()
            reporter.doing("starting the flow in Prefect")
            with reporting_to(told), working_on(run):
                result = _call_flow(config, run, api_url=server.api_url, reporter=reporter)
    reporter.done()
    return FinishedRun(
        reference=run.plan.reference,
        result=result,
        rows=epoch_rows(run.view, run.outcomes),
        where_to_look=_where_to_look(
            run.view.config,
            result,
            {"Prefect": server.ui_url, **told.links},
            reference=run.plan.reference,
            store=store_url,
            given=given,
            average=average_text(run.view),
        ),
    )


def _call_flow(
    config: RunConfig, run: Run, *, api_url: str, reporter: ProgressReporter
) -> dict[str, Any]:
    from epochal.flows.flow_run.liveness import own_heartbeat

    with talking_to(api_url), quiet_console():
        with importing():
            from prefect.client.orchestration import get_client

            from epochal.flows.flow_run.cancellation import telling_of_cancellation
            from epochal.flows.flow_run.dead_runs import end_left_running
            from epochal.flows.train import train

        def call() -> dict[str, Any]:
            with get_client(sync_client=True) as client:
                for left in end_left_running(client):
                    reporter.notice(
                        f"Prefect's run {left.name!r} ({left.id}) was left {left.state_name} by a "
                        "process that is gone; it is ended there now, and can be retried"
                    )
            with own_heartbeat(), telling_of_cancellation():
                # As JSON, of which Prefect takes nothing for a reference of its own; it becomes a
                # `RunConfig` again as the flow's parameters are checked.
                given: Any = config.model_dump(mode="json")
                result: dict[str, Any] = train(given)
            reporter.doing("sending Prefect the last of the log")
            return result

        # The flow takes the run that was prepared, and gives it its tracker, before all else.
        return begun_patiently(call, begun=lambda: run.tracker is not None, notice=reporter.notice)


def _program() -> str:
    """How this command is called here: by its path where the shell would not find its name."""
    called = Path(sys.argv[0])
    by_path = called.name == "epochal" and shutil.which("epochal") is None
    return str(called) if by_path else "epochal"


def shown_store(url: str) -> str:
    """A store's address as a person types it: a local one is a path."""
    return url.removeprefix("file://")


def _without(given: str, field: str) -> str:
    """The command's words but for what it sets that field to."""
    first, *words = shlex.split(given)
    pairs = zip(words[::2], words[1::2], strict=True)
    kept = [pair for pair in pairs if pair[1].partition("=")[0].strip() != field]
    return shlex.join([first, *(word for pair in kept for word in pair)])


def _where_to_look(
    config: RunConfig,
    result: dict[str, Any],
    links: Mapping[str, str],
    *,
    reference: str,
    store: str,
    given: str,
    average: str | None,
) -> list[str]:
    mlflow_ui = mlflow_ui_of(result["mlflow_tracking_uri"])
    mlflow = (
        links.get("MLflow")
        or mlflow_ui
        or f"{result['mlflow_tracking_uri']} (`epochal up` shows it in a browser)"
    )
    program = _program()
    more = f"epochs={config.epochs + 4}"
    if config.max_updates is not None:
        more = f"max_updates={2 * config.max_updates}"
    longer = f"{program} plan {_without(given, more.partition('=')[0])} --set {more}"
    hardest = (
        f"{program} samples {reference} --store {shlex.quote(shown_store(store))} --hardest 10"
    )
    return [
        f"Prefect  {links['Prefect']}",
        f"MLflow   {mlflow}",
        f"store    {store}",
        f"weights  sha256 {result['weights_sha256']}",
        *([] if average is None else [f"average  {average}"]),
        "",
        "Next:",
        f"  {program} train {given}   # again: everything is cached",
        f"  {longer}   # what a longer run would compute",
        f"  {hardest}",
    ]
