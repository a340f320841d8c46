"""`epochal plan`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from epochal.flows import console
from epochal.flows.commands.options import AsJson, Debug, Overrides
from epochal.flows.sweeps.view import plan_lines, plan_table
from epochal.flows.terminal import completion
from epochal.tasks.config.load import load_config
from epochal.tasks.config.run import RunConfig
from epochal.tasks.runs.plan import PlanReport, make_plan
from epochal.tasks.sweeps.cost import cost_of, plan_of_sweep
from epochal.tasks.sweeps.members import is_sweep, load_sweep
from epochal.tasks.sweeps.work import SweepWork

Planned = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG",
        help="The YAML config of a run, or the file of a sweep.",
        autocompletion=completion.configs,
    ),
]


def plan(
    config: Planned,
    overrides: Overrides = None,
    as_json: AsJson = False,  # noqa: FBT002 - typer's way of a flag
    _debug: Debug = False,  # noqa: FBT002 - likewise
) -> None:
    """Print every stage: done, or would run and why; of a sweep what its runs share. No start."""
    if is_sweep(config):
        _plan_sweep(config, overrides or (), as_json=as_json)
        return
    report = make_plan(load_config(config, overrides=overrides or ()))
    if as_json:
        console.print_json(plan_object(report))
        return
    console.print_whole(console.plan_table(report))
    console.out.print()
    total = report.num_needed
    console.out.print(
        f"{report.num_done} of {total} stages done, {total - report.num_done} would run"
    )
    if report.stopping is not None:
        console.out.print(report.stopping)
    if report.rates is not None:
        console.out.print(report.rates)
    for name in report.unread:
        console.out.print(f"{name}: data not yet read; `epochal train` reads it")
    for note in report.notes:
        console.say_note(note)
    if not report.bitwise:
        console.out.print("bitwise: false (stages from several environments or other parents)")


def _plan_sweep(path: Path, overrides: Sequence[str], *, as_json: bool) -> None:
    work = SweepWork.prepared(load_sweep(path, overrides=overrides))
    cost = cost_of(work.tree)
    if as_json:
        console.print_json(plan_of_sweep(work.tree, cost, to_come=work.proposals_left))
        return
    console.print_whole(plan_table(work))
    console.out.print()
    for line in plan_lines(work, cost):
        console.out.print(line)


def plan_object(report: PlanReport) -> dict[str, Any]:
    """The plan as `--json` prints it."""
    config: RunConfig = report.config
    return {
        "run": config.name,
        "done": report.num_done,
        "would_run": report.num_needed - report.num_done,
        "bitwise": report.bitwise,
        "data_not_read": list(report.unread),
        "stages": [
            {
                "stage": stage_report.stage.kind,
                "epoch": stage_report.stage.epoch,
                "key": stage_report.stage.key,
                "done": stage_report.done,
                "why": list(stage_report.why),
                **({} if config.early_stopping is None else {"needed": stage_report.needed}),
            }
            for stage_report in report.reports
        ],
        **({} if config.early_stopping is None else {"stopped_early": report.stopped_after}),
        **({} if report.rates is None else {"schedule_factors": list(report.factors)}),
    }
