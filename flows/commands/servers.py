"""`epochal up`, `down` and `deploy`: servers, their UIs, and what these can run by themselves."""

from __future__ import annotations

import webbrowser
from typing import Annotated
from urllib.parse import urlsplit

import typer

from epochal.data.errors import InputError
from epochal.flows import console, servers
from epochal.flows.commands.options import AsJson, ConfigPath, Overrides
from epochal.flows.environment import check_environment
from epochal.flows.terminal.region import waiting

MAX_PORT = 65535

PrefectPort = Annotated[
    int | None,
    typer.Option(
        "--prefect-port",
        metavar="PORT",
        min=1,
        max=MAX_PORT,
        show_default=False,
        help=f"Port of Prefect's API and UI; else {servers.PREFECT_PORT}, or a free one.",
    ),
]
MlflowPort = Annotated[
    int | None,
    typer.Option(
        "--mlflow-port",
        metavar="PORT",
        min=1,
        max=MAX_PORT,
        show_default=False,
        help=f"Port of MLflow's API and UI; else {servers.MLFLOW_PORT}, or a free one.",
    ),
]
OpenPages = Annotated[bool, typer.Option("--open", help="Show both UIs in your browser.")]
Cron = Annotated[
    str | None,
    typer.Option(
        metavar="LINE",
        show_default=False,
        help='When it runs by itself: "0 2 * * *" is every night at two. Without it a schedule '
        "that the deployment had is removed.",
    ),
]
Timezone = Annotated[
    str | None,
    typer.Option(
        metavar="ZONE",
        show_default=False,
        help="Time zone of --cron, such as Europe/Berlin; else that of this machine.",
    ),
]
Name = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", show_default=False, help="The deployment's name; else that of the run."
    ),
]
Paused = Annotated[
    bool, typer.Option("--paused", help="The schedule waits until it is resumed in the UI.")
]


def up(
    prefect_port: PrefectPort = None,
    mlflow_port: MlflowPort = None,
    open_pages: OpenPages = False,  # noqa: FBT002 - typer's way of a flag
    as_json: AsJson = False,  # noqa: FBT002 - likewise
) -> None:
    """Start Prefect's and MLflow's servers and UIs, and a worker for deployments."""
    check_environment()
    with waiting(
        console.err, "starting Prefect, MLflow and a worker: up to half a minute the first time"
    ):
        there = servers.up(prefect_port=prefect_port, mlflow_port=mlflow_port)
    if open_pages:
        _open_pages(there.prefect_ui, there.mlflow_ui)
    if as_json:
        console.print_json(
            {
                "prefect_ui": there.prefect_ui,
                "prefect_api": there.prefect_api,
                "mlflow_ui": there.mlflow_ui,
                "work_pool": there.work_pool,
                "started": list(there.started),
                "logs": list(there.logs),
            }
        )
        return
    for title, url, asked, usual in (
        ("Prefect", there.prefect_ui, prefect_port, servers.PREFECT_PORT),
        ("MLflow", there.mlflow_ui, mlflow_port, servers.MLFLOW_PORT),
    ):
        if asked is None and title.lower() in there.started and urlsplit(url).port != usual:
            console.say_note(f"port {usual} is taken, so {title} is at {url}")
    for title, where, what in (
        ("Prefect", there.prefect_ui, "runs, logs, schedules, Retry"),
        ("MLflow", there.mlflow_ui, "curves, parameters, comparison"),
        ("worker", f"work pool {there.work_pool}", "runs what is deployed"),
    ):
        state = "started" if title.lower() in there.started else "ran already"
        console.out.print(f"{title:<9}{where:<23}{what:<32}{state}")
    console.out.print()
    for log in there.logs:
        console.out.print(f"log      {log}")
    console.out.print()
    console.out.print(
        "Next:    `epochal train CONFIG`, or `epochal deploy CONFIG` and Run in the UI"
    )
    console.out.print("         `epochal down` stops all of it")


def down(
    force: Annotated[bool, typer.Option("--force", help="Also while a run works.")] = False,  # noqa: FBT002 - typer's way of a flag
    as_json: AsJson = False,  # noqa: FBT002 - typer's way of a flag
) -> None:
    """Stop what `up`, `train` or `deploy` started in the background, unless a run works."""
    if not force:
        _check_nothing_works()
    with waiting(console.err, "stopping"):
        stopped = servers.down().stopped
    if as_json:
        console.print_json({"stopped": list(stopped)})
        return
    console.out.print(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")


def deploy(
    config: ConfigPath,
    overrides: Overrides = None,
    cron: Cron = None,
    timezone: Timezone = None,
    name: Name = None,
    paused: Paused = False,  # noqa: FBT002 - typer's way of a flag
    as_json: AsJson = False,  # noqa: FBT002 - typer's way of a flag
) -> None:
    """Make a run startable, schedulable and retryable in Prefect's UI; again: update it."""
    check_environment()
    from epochal.flows.commands.deploy import deploy_config

    with waiting(console.err, "deploying"):
        done = deploy_config(
            config,
            overrides=overrides or (),
            cron=cron,
            timezone=timezone,
            name=name,
            paused=paused,
        )
    if done.server_started:
        console.say_note(f"started a Prefect server in the background; its UI: {done.ui_url}")
    if as_json:
        console.print_json(done.as_object())
        return
    for title, text in done.lines():
        console.out.print(f"{title:<12}{text}".rstrip())


def _open_pages(*urls: str) -> None:
    """In the browser of whoever types; without one it is said where the pages are."""
    opened = [webbrowser.open(url) for url in urls]
    if not all(opened):
        console.say_note(
            f"--open: no browser could be opened here; the pages are at {' and '.join(urls)}"
        )


def _check_nothing_works() -> None:
    from epochal.flows.flow_run.dead_runs import runs_at_work

    working = runs_at_work()
    if working:
        raise InputError(
            f"at work: {', '.join(working)}; nothing was stopped: wait for the end, cancel in "
            "Prefect's UI, or `epochal down --force`, after which the same command goes on from "
            "what was committed"
        )
