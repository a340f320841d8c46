"""`epochal verify`, `gc` and `sync`: looking after a store, and what it owes to MLflow."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from epochal.data.errors import CorruptObject, ServerUnavailable
from epochal.data.store.store import Store
from epochal.flows import console
from epochal.flows.commands.options import AsJson, OfConfig, RunName, StoreName, StoreOption
from epochal.flows.environment import check_environment
from epochal.flows.terminal.style import BAD, GOOD
from epochal.tasks.runs.find_run import find_run, named_store
from epochal.tasks.upkeep import Garbage, VerifyReport, find_garbage, remove_garbage, verify_store

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
    opened = named_store(store)
    report = verify_store(opened, set_aside=set_aside)
    if as_json:
        console.print_json(
            {
                "store": opened.url,
                "objects": report.objects,
                "bytes": report.bytes,
                "stages": report.stages,
                "problems": list(report.problems),
                "moved": list(report.moved),
            }
        )
    else:
        console.out.print(
            f"{opened.url}: {report.stages} stages, {report.objects} objects, "
            f"{console.size(report.bytes)}"
        )
        for problem in report.problems:
            console.out.print(console.line(("✗", BAD), f" {problem}"))
    for kept in report.kept:
        console.say_note(f"not moved to damaged/: {kept}")
    if report.problems:
        raise CorruptObject(
            f"found damaged or missing: {len(report.problems)}; {_what_now(report)}"
            if set_aside
            else f"found damaged: {len(report.problems)}; nothing was changed: with --set-aside "
            "`epochal train` computes them again"
        )
    if not as_json:
        console.out.print(console.line(("✓", GOOD), " every digest is right"))


def _what_now(report: VerifyReport) -> str:
    """What `--set-aside` has done, and what is left to do."""
    lines = [f"moved to damaged/: {len(report.moved)}"]
    if report.kept:
        lines.append(f"could not be moved: {len(report.kept)}, which are named above")
    lines.append("`epochal train` computes again the stages of what was moved or is missing")
    return "; ".join(lines)


def gc(
    store: StoreName,
    yes: Annotated[bool, typer.Option("--yes", help="Delete what is shown.")] = False,  # noqa: FBT002 - typer's way of a flag
    as_json: AsJson = False,  # noqa: FBT002 - typer's way of a flag
) -> None:
    """Show what nothing needs in a store, and delete it with --yes."""
    opened = named_store(store)
    garbage = find_garbage(opened)
    if yes or garbage.problem is not None:
        remove_garbage(opened, garbage)
    for note in _notes(opened, garbage):
        console.say_note(note)
    if as_json:
        body: dict[str, Any] = {
            "store": opened.url,
            "deleted": yes,
            "bytes": garbage.bytes,
            "objects": dict(garbage.objects),
            "uploads": [
                {"path": upload.path, "id": upload.id, "bytes": upload.bytes}
                for upload in garbage.uploads
            ],
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
        console.out.print(f"{path}  {console.size(number)}")
    if len(garbage.objects) > MAX_SHOWN:
        console.out.print(f"… and {len(garbage.objects) - MAX_SHOWN} more objects")
    for upload in garbage.uploads:
        console.out.print(
            f"upload of {upload.path}  {console.size(upload.bytes)}  "
            f"not completed, nothing has come for {upload.quiet_s / 3600:.0f} h"
        )
    if not garbage.bytes and not garbage.objects and not garbage.uploads:
        console.out.print(f"{opened.url}: everything is needed")
        return
    command = f"epochal gc {shlex.quote(store)} --yes"
    what = "deleted" if yes else f"can be deleted; `{command}` does it"
    console.out.print(f"{console.size(garbage.bytes)} {what}")


def _notes(store: Store, garbage: Garbage) -> Iterator[str]:
    """What is kept or not looked at, and why."""
    for path in garbage.lost_plans:
        yield (
            f"{store.address(path)} is a damaged plan: stages that no other plan has are kept "
            "while that file is there"
        )
    for reason in garbage.unread:
        yield f"all stages of this run are kept: {reason}"
    if garbage.no_uploads is not None:
        yield f"unfinished uploads are not looked at: {garbage.no_uploads}"


def sync(
    run: RunName,
    overrides: OfConfig = None,
    store: StoreOption = None,
    as_json: AsJson = False,  # noqa: FBT002 - typer's way of a flag
) -> None:
    """Deliver to MLflow what it does not have of a run; compute nothing."""
    check_environment()
    from epochal.flows.servers import local_mlflow_uri
    from epochal.tasks.running.tracked_run import sync_run

    stored_run = find_run(run, store=store, overrides=overrides or (), notice=console.say_note)
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
