"""`epochal verify`, `gc` and `sync`: looking after a store, and what it owes to MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from epochal.data.errors import CorruptObject, ServerUnavailable
from epochal.data.store.open import open_store
from epochal.flows import console
from epochal.flows.commands.options import AsJson, RunName, StoreOption
from epochal.flows.environment import check_environment
from epochal.tasks.runs.find_run import find_run
from epochal.tasks.upkeep import find_garbage, remove_garbage, verify_store

StoreName = Annotated[str, typer.Argument(metavar="STORE", help="Where stages are kept.")]
MAX_SHOWN = 20


def verify(
    store: StoreName,
    set_aside: Annotated[  # noqa: FBT002 - typer's way of a flag
        bool,
        typer.Option(
            "--set-aside",
            help="Move what is damaged to damaged/: the next `epochal train` computes it again.",
        ),
    ] = False,
    as_json: AsJson = False,  # noqa: FBT002 - typer's way of a flag
) -> None:
    """Read every object of a store and check its digest; change nothing without --set-aside."""
    opened = open_store(store, folder=Path.cwd())
    report = verify_store(opened, set_aside=set_aside)
    if as_json:
        console.print_json(
            {
                "store": opened.url,
                "objects": report.objects,
                "bytes": report.bytes,
                "stages": report.stages,
                "problems": list(report.problems),
            }
        )
    else:
        console.out.print(
            f"{opened.url}: {report.stages} stages, {report.objects} objects, "
            f"{console.size(report.bytes)}"
        )
        for problem in report.problems:
            console.out.print(f"[red]✗[/] {console.escape(problem)}")
    if report.problems:
        raise CorruptObject(
            f"found damaged: {len(report.problems)}; "
            + (
                "they were moved to damaged/, and `epochal train` computes their stages again"
                if set_aside
                else "nothing was changed: with --set-aside `epochal train` computes them again"
            )
        )
    if not as_json:
        console.out.print("[green]✓[/] every digest is right")


def gc(
    store: StoreName,
    yes: Annotated[bool, typer.Option("--yes", help="Delete what is shown.")] = False,  # noqa: FBT002 - typer's way of a flag
    as_json: AsJson = False,  # noqa: FBT002 - typer's way of a flag
) -> None:
    """Show what nothing needs in a store, and delete it with --yes."""
    opened = open_store(store, folder=Path.cwd())
    garbage = find_garbage(opened)
    if yes or garbage.problem is not None:
        remove_garbage(opened, garbage)
    for path in garbage.lost_plans:
        console.say_note(
            f"{opened.address(path)} is a damaged plan: stages that no other plan has are kept "
            "while that file is there"
        )
    if as_json:
        body: dict[str, Any] = {
            "store": opened.url,
            "deleted": yes,
            "bytes": garbage.bytes,
            "objects": dict(garbage.objects),
            "thinned": {key: dict(files) for key, files in garbage.pruned.items()},
        }
        console.print_json(body)
        return
    for key, files in garbage.pruned.items():
        console.out.print(
            f"checkpoint of stage {key[:12]}  {console.size(sum(files.values())):>9}  "
            "not kept by `checkpoint:`"
        )
    for path, number in list(garbage.objects.items())[:MAX_SHOWN]:
        console.out.print(f"{console.escape(path)}  {console.size(number)}")
    if len(garbage.objects) > MAX_SHOWN:
        console.out.print(f"… and {len(garbage.objects) - MAX_SHOWN} more objects")
    if not garbage.bytes and not garbage.objects:
        console.out.print(f"{opened.url}: everything is needed")
        return
    what = "deleted" if yes else "can be deleted; `epochal gc … --yes` does it"
    console.out.print(f"{console.size(garbage.bytes)} {what}")


def sync(run: RunName, store: StoreOption = None, as_json: AsJson = False) -> None:  # noqa: FBT002 - typer's way of a flag
    """Deliver to MLflow what it does not have of a run; compute nothing."""
    check_environment()
    from epochal.flows.servers import local_mlflow_uri
    from epochal.tasks.running.tracked_run import sync_run

    stored_run = find_run(run, store=store)
    result = sync_run(stored_run, notice=console.say_note, local_mlflow=local_mlflow_uri())
    if as_json:
        console.print_json(
            {
                "run": stored_run.plan.run,
                "generation": stored_run.plan.generation,
                "mlflow_run_id": result.run_id,
                "mlflow_tracking_uri": result.uri,
                "problem": result.problem,
            }
        )
    if result.problem is not None:
        raise ServerUnavailable(f"{result.problem}; run the same command again when it is back")
    if not as_json:
        console.out.print(f"{stored_run.plan.reference} is whole in MLflow at {result.uri}")
