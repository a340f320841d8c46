"""`epochal runs`, `show`, `samples` and `export`: they read a store and change nothing in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from epochal.data.errors import InputError, NotFound
from epochal.flows import console
from epochal.tasks.runs.find_run import FoundRun, find_run
from epochal.tasks.runs.summary import epoch_rows, flat_metrics, stopping_line
from epochal.tasks.stages.average import average_text

RunName = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A config's path, a run's name (NAME or NAME@GENERATION), or STORE/NAME.",
    ),
]
StoreOption = Annotated[
    str | None, typer.Option("--store", metavar="STORE", help="The store that holds the run.")
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")
]
OfAverage = Annotated[
    bool, typer.Option("--ema", help="The average of the weights instead of the weights.")
]
OfCheckpoints = Annotated[
    bool, typer.Option("--average", help="The mean of the checkpoints, of `averaging:`.")
]
SHORT = 12


def runs(
    store: Annotated[str, typer.Argument(metavar="STORE", help="Where stages are kept.")],
    as_json: AsJson = False,  # noqa: FBT002 - typer's way of a flag
) -> None:
    """List the runs of a store with their epochs and metrics."""
    from epochal.data.store.open import open_store
    from epochal.tasks.runs.run_plans import generations, run_names

    opened = open_store(store, folder=Path.cwd())
    found = [
        find_run(reference, store=opened.url)
        for name in run_names(opened.listing("runs"))
        for reference in generations(opened, name)
    ]
    if as_json:
        console.print_json({"store": opened.url, "runs": [_summary(run) for run in found]})
        return
    if not found:
        console.out.print(f"{opened.url} has no run yet")
        return
    rows = [
        [
            run.plan.reference,
            f"{len(epoch_rows(run))} of {run.config.epochs}"
            + (", stopped early" if run.stopped_after is not None else ""),
            _best(run),
            (run.weights_sha256 or console.NOTHING)[:SHORT],
            run.plan.branched_from or console.NOTHING,
        ]
        for run in found
    ]
    columns = ["run", "epochs", "best", "weights sha256", "branched from"]
    console.print_whole(console.plain_table(columns, rows))


def show(run: RunName, store: StoreOption = None, as_json: AsJson = False) -> None:  # noqa: FBT002 - typer's way of a flag
    """Show a run: its epochs, metrics and checkpoints."""
    found = find_run(run, store=store)
    if as_json:
        console.print_json(_whole(found))
        return
    rows = epoch_rows(found)
    if not rows:
        console.out.print(f"run {found.plan.reference}: no epoch yet")
        return
    console.print_whole(console.epochs_table(rows, title=f"run {found.plan.reference}"))
    console.out.print()
    console.out.print(f"best     {_best(found)}")
    console.out.print(f"store    {found.store.url}")
    console.out.print(
        f"weights  sha256 {found.weights_sha256 or 'the last epoch is not trained yet'}"
    )
    if (average := average_text(found)) is not None:
        console.out.print(f"average  {average}")
    if found.stopped_after is not None:
        console.out.print(f"stopped  early, with epoch {found.stopped_after}")
    if found.plan.branched_from is not None:
        console.out.print(
            f"branched from {found.plan.branched_from}, sharing {found.plan.shared_epochs} epochs"
        )


def samples(
    run: RunName,
    easiest: Annotated[int | None, typer.Option(min=1, help="The N of highest confidence.")] = None,
    hardest: Annotated[int | None, typer.Option(min=1, help="The N of highest loss.")] = None,
    suspects: Annotated[
        int | None, typer.Option(min=1, help="The N of lowest mean margin: perhaps mislabelled.")
    ] = None,
    forgotten: Annotated[
        int | None, typer.Option(min=1, help="The N that were right and then wrong most often.")
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw them there as PNG, if the data set has images."),
    ] = None,
    store: StoreOption = None,
    as_json: AsJson = False,  # noqa: FBT002 - typer's way of a flag
) -> None:
    """Show what training saw of the samples, and where the tables are."""
    from epochal.tasks.report.contact_sheet import check_pictures, draw_samples
    from epochal.tasks.report.samples import view_samples

    order, count = _order(easiest=easiest, hardest=hardest, suspects=suspects, forgotten=forgotten)
    if pictures is not None:
        check_pictures(pictures, count=count)
    found = find_run(run, store=store)
    view = view_samples(found, order=order, count=count)
    if pictures is not None:
        draw_samples(found, view, pictures, notice=console.say_note)
    if as_json:
        console.print_json(view.as_object())
        return
    console.print_whole(console.plain_table(view.columns, view.rows()))
    console.out.print()
    for line in (view.caption, *view.notes):
        console.out.print(line)
    for table in view.tables:
        if table.epoch == view.epoch:
            for name, url in (("observations", table.observations), ("samples", table.samples)):
                if url is not None:
                    console.out.print(f"{name:<12} {url}")
    if pictures is not None:
        console.out.print(f"{'pictures':<12} {pictures}")


def _order(**asked: int | None) -> tuple[str | None, int | None]:
    given = {name: count for name, count in asked.items() if count is not None}
    if len(given) > 1:
        raise InputError(f"--{' and --'.join(given)}: ask for one order at a time")
    return next(iter(given.items()), (None, None))


def export(
    run: RunName,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write the weights.")],
    epoch: Annotated[
        str | None, typer.Option(help="An epoch, or `best`; none: the last one.")
    ] = None,
    ema: OfAverage = False,  # noqa: FBT002 - typer's way of a flag
    average: OfCheckpoints = False,  # noqa: FBT002 - typer's way of a flag
    store: StoreOption = None,
    as_json: AsJson = False,  # noqa: FBT002 - typer's way of a flag
) -> None:
    """Write a run's weights to a file that `safetensors.torch.load_file` reads."""
    from epochal.tasks.export import export_weights

    if average and (ema or epoch is not None):
        raise InputError("--average: it is of several epochs; leave --epoch and --ema out")
    found = find_run(run, store=store)
    if average:
        _export_average(found, out, as_json=as_json)
        return
    number = _epoch_number(found, epoch, ema=ema)
    artifact = "ema" if ema else "model"
    written = export_weights(found, epoch=number, out=out, artifact=artifact)
    if as_json:
        console.print_json(
            {"run": found.plan.run, "epoch": number, "file": str(out), "weights_sha256": written}
        )
        return
    console.out.print(f"{out}  epoch {number}  sha256 {written}")


def _export_average(found: FoundRun, out: Path, *, as_json: bool) -> None:
    from epochal.tasks.export import export_average

    record = export_average(found, out=out)
    epochs, sha256 = record.values["epochs"], record.artifacts["model"].sha256
    if as_json:
        console.print_json(
            {
                "run": found.plan.run,
                "epoch": None,
                "epochs": epochs,
                "file": str(out),
                "weights_sha256": sha256,
            }
        )
        return
    console.out.print(f"{out}  mean of epochs {', '.join(map(str, epochs))}  sha256 {sha256}")


def _epoch_number(found: FoundRun, epoch: str | None, *, ema: bool) -> int:
    if epoch == "best":
        of_ema = ema and found.config.ema is not None
        best = found.best_of_ema if of_ema else found.best
        if best is None:
            raise NotFound(f"{found.plan.reference} has no validated epoch yet")
        return best.epoch
    if epoch is not None and not epoch.isdigit():
        raise InputError(f"--epoch: found {epoch!r}; expected a number from 0, or `best`")
    newest = found.newest_epoch("train") if epoch is None else int(epoch)
    if newest is None:
        raise NotFound(f"{found.plan.reference} has no trained epoch yet")
    return newest


def _best(found: FoundRun) -> str:
    best = found.best
    if best is None:
        return console.NOTHING
    return f"{best.metric} {console.number(best.value)} in epoch {best.epoch}"


def _summary(found: FoundRun) -> dict[str, Any]:
    return {
        "run": found.plan.run,
        "generation": found.plan.generation,
        "branched_from": found.plan.branched_from,
        "shared_epochs": found.plan.shared_epochs,
        "epochs": found.config.epochs,
        "epochs_done": len(epoch_rows(found)),
        "weights_sha256": found.weights_sha256,
        "metrics": flat_metrics(found),
        **stopping_line(found),
    }


def _whole(found: FoundRun) -> dict[str, Any]:
    return {
        **_summary(found),
        "store": found.store.url,
        "stages": [
            {
                "stage": stage.kind,
                "epoch": stage.epoch,
                "key": stage.key,
                "done": found.is_done(stage),
                "values": found.record_of(stage).values if found.is_done(stage) else None,
            }
            for stage in found.stages
        ],
    }
