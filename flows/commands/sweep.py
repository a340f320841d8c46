"""`epochal sweep`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from epochal.data.errors import EpochalError, InputError, TrainingFailed, Unavailable
from epochal.flows import console
from epochal.flows.commands.options import AsJson, Debug, Overrides
from epochal.flows.environment import check_environment, importing
from epochal.flows.flow_run.client import begun_patiently, quiet_console, talking_to
from epochal.flows.servers import begin_prefect_server, touch_servers
from epochal.flows.sweeps.view import SweepView, results_table
from epochal.flows.termination import told_of_termination
from epochal.tasks.sweeps.members import load_sweep
from epochal.tasks.sweeps.work import SweepWork

SweepPath = Annotated[
    Path, typer.Argument(metavar="SWEEP", help="The YAML file of the sweep: docs/sweeps.md.")
]


def sweep(
    config: SweepPath,
    overrides: Overrides = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency",
            "-j",
            metavar="N",
            min=1,
            help="Runs at the same time; else the file's.",
        ),
    ] = None,
    as_json: AsJson = False,  # noqa: FBT002 - typer's way of a flag
    _debug: Debug = False,  # noqa: FBT002 - likewise
) -> None:
    """Train the runs of a sweep, or go on with them: epochs that several share are trained once."""
    work = SweepWork.prepared(
        load_sweep(config, overrides=overrides or (), concurrency=concurrency)
    )
    result = run_sweep(work)
    console.out.print()
    console.print_whole(results_table(work))
    console.out.print()
    console.out.print(epochs_line(result))
    if as_json:
        console.print_json(result)
    if (failed := failure_of(work)) is not None:
        raise failed


def epochs_line(result: Mapping[str, Any]) -> str:
    """How many epochs were needed, and how many were computed."""
    epochs = result["epochs"]
    return (
        f"{epochs['distinct']} epochs for {len(result['runs'])} runs that have {epochs['sum']}; "
        f"{epochs['computed']} computed now"
    )


def run_sweep(work: SweepWork) -> dict[str, Any]:
    """Runs the sweep's flow on a Prefect server, which is started if there is none."""
    check_environment()
    with told_of_termination():
        server = begin_prefect_server().wait()
        if server.started:
            console.say_note(f"started a Prefect server in the background; its UI: {server.ui_url}")
        touch_servers()
        with SweepView(work, bar=not work.inline) as view:
            return _call_flow(work, view, api_url=server.api_url)


def _call_flow(work: SweepWork, view: SweepView, *, api_url: str) -> dict[str, Any]:
    with talking_to(api_url), quiet_console():
        with importing():
            from prefect.client.orchestration import get_client

            from epochal.flows.flow_run.dead_runs import end_left_running
            from epochal.flows.flow_run.liveness import own_heartbeat
            from epochal.flows.sweeps.flow import ActiveSweep, sweep, working_on_sweep

        def call() -> dict[str, Any]:
            with get_client(sync_client=True) as client:
                end_left_running(client)
            working_on_sweep(ActiveSweep(work, view, api_url))
            named = work.sweep.config.model_copy(update={"name": work.sweep.name})
            given: Any = named.model_dump(mode="json")
            with own_heartbeat():
                result: dict[str, Any] = sweep(given)
            return result

        return begun_patiently(call, begun=lambda: bool(work.told), notice=view.notice)


def failure_of(work: SweepWork) -> EpochalError | None:
    """What the command ends with; None where all runs are done, or stopped as was asked for."""
    if not work.failures:
        return None
    failed = {name: one for name, one in work.failures.items() if one.code != Unavailable.exit_code}
    left = [name for name in work.failures if name not in failed]
    lines = [f"{name}: {one.text}" for name, one in work.failures.items()]
    count = len(work.tree.runs)
    if {one.code for one in work.failures.values()} == {InputError.exit_code} and not work.computed:
        return InputError("nothing was trained\n" + "\n".join(lines))
    if failed:
        others = {state for name, state in work.states.items() if name not in failed}
        rest = "; the others are done" if others and others <= {"done", "stopped"} else ""
        return TrainingFailed(f"{len(failed)} of {count} runs failed{rest}\n" + "\n".join(lines))
    return Unavailable(
        f"{len(left)} of {count} runs were not finished; what was committed is intact, run the "
        "same command to go on\n" + "\n".join(lines)
    )
