"""`epochal train` and `epochal plan`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from epochal.flows import console
from epochal.tasks.config.load import load_config
from epochal.tasks.config.run import RunConfig
from epochal.tasks.runs.plan import PlanReport, make_plan
from epochal.tasks.runs.summary import stopping_line

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML config of the run.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Another value for one field: optimizer.args.lr=0.01"
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")
]


def train(config: ConfigPath, overrides: Overrides = None, as_json: AsJson = False) -> None:  # noqa: FBT002 - typer's way of a flag
    """Run or resume: what the store has is not computed again."""
    from epochal.flows.commands.train_command import run_training

    loaded = load_config(config, overrides=overrides or ())
    with console.ProgressReporter(epochs=loaded.epochs) as reporter:
        given = shlex.join([str(config), *(f"--set={one}" for one in overrides or ())])
        finished = run_training(loaded, reporter=reporter, given=given)
    if as_json:
        console.print_json(finished.result)
        return
    console.out.print()
    console.print_whole(console.epochs_table(finished.rows, title=f"run {loaded.name}"))
    console.out.print()
    for line in finished.where_to_look:
        console.out.print(line)


def plan(config: ConfigPath, overrides: Overrides = None, as_json: AsJson = False) -> None:  # noqa: FBT002 - typer's way of a flag
    """Print every stage: done, or would run and why. Starts nothing."""
    report = make_plan(load_config(config, overrides=overrides or ()))
    if as_json:
        console.print_json(plan_object(report))
        return
    console.out.print(console.plan_table(report))
    console.out.print()
    total = report.num_needed
    console.out.print(
        f"{report.num_done} of {total} stages done, {total - report.num_done} would run"
    )
    if report.stopping is not None:
        console.out.print(report.stopping)
    for name in report.unread:
        console.out.print(f"{name}: data not yet read; `epochal train` reads it")
    if not report.bitwise:
        console.out.print("bitwise: false (stages from several environments or other parents)")


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
                "stage": one.stage.kind,
                "epoch": one.stage.epoch,
                "key": one.stage.key,
                "done": one.done,
                "why": list(one.why),
                **({} if config.early_stopping is None else {"needed": one.needed}),
            }
            for one in report.reports
        ],
        **stopping_line(config, report.stopped_after),
    }
