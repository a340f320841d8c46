"""`epochal report`: a run as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from epochal.data.errors import EpochalError, InputError, NotFound
from epochal.flows import console
from epochal.flows.commands.options import (
    AsJson,
    Debug,
    OfAverage,
    OfConfig,
    RunName,
    StoreOption,
)
from epochal.tasks.out_file import check_out, whole_file
from epochal.tasks.runs.find_run import FoundRun, find_run
from epochal.tasks.stages.commit import number

if TYPE_CHECKING:
    from epochal.data.inspection.dataset import OpenDataset
    from epochal.tasks.report.page import Images


def report(
    run: RunName,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The page, one file with all in it.")
    ] = Path("report.html"),
    overrides: OfConfig = None,
    store: StoreOption = None,
    as_json: AsJson = False,  # noqa: FBT002 - typer's way of a flag
    _debug: Debug = False,  # noqa: FBT002 - likewise
) -> None:
    """Write a run's curves, kept samples, data map and hardest samples as one HTML page."""
    from epochal.tasks.report.page import report_html
    from epochal.tasks.run_data.sample_names import sample_names

    check_out(out, option="--out", ends=(".html", ".htm"))
    stored_run = find_run(run, store=store, overrides=overrides or (), notice=console.say_note)
    names = sample_names(stored_run, notice=console.say_note)
    data = report_html(stored_run, images=_images(stored_run, names.data), names=names).encode()
    with whole_file(out, option="--out") as file:
        file.write_bytes(data)
    if as_json:
        console.print_json({"run": stored_run.plan.run, "file": str(out), "bytes": len(data)})
        return
    console.out.print(f"{out}  {stored_run.plan.reference}  {console.size(len(data))}")


def _images(run: FoundRun, opened: OpenDataset | None) -> Images | str:
    from epochal.tasks.run_data.sample_images import open_images, read_images

    try:
        data = opened or open_images(run, notice=console.say_note)
    except EpochalError as error:
        return str(error)
    return lambda sample_ids: read_images(data, sample_ids)


MAX_POINTS = 1001


def landscape(
    run: RunName,
    epoch: Annotated[int | None, typer.Option(min=0, help="An epoch; none: the last one.")] = None,
    points: Annotated[
        int, typer.Option(min=3, max=MAX_POINTS, help="Points along each axis, an odd number.")
    ] = 21,
    extent: Annotated[
        float,
        typer.Option("--range", help="How far it goes each way, in units of the filters' norms."),
    ] = 1.0,
    samples: Annotated[
        int, typer.Option(min=1, help="Validation samples that each loss is the mean of, at most.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the directions and the samples.")] = 0,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The picture; its numbers go beside it.")
    ] = Path("landscape.png"),
    ema: OfAverage = False,  # noqa: FBT002 - typer's way of a flag
    overrides: OfConfig = None,
    store: StoreOption = None,
    as_json: AsJson = False,  # noqa: FBT002 - typer's way of a flag
    _debug: Debug = False,  # noqa: FBT002 - likewise
) -> None:
    """Draw the validation loss around a checkpoint, along two random directions."""
    from epochal.tasks.report.landscape import Asked, compute_landscape, write_grid
    from epochal.tasks.report.landscape_figure import draw

    if points % 2 == 0:
        raise InputError(f"--points: found {points}; expected an odd number: one is the checkpoint")
    if not 0 < extent <= 1e6:  # noqa: PLR2004 - beyond it float32 has nothing left
        raise InputError(f"--range: found {extent}; expected a number above 0, up to 1e6")
    check_out(out, option="--out", ends=(".png",))
    stored_run = find_run(run, store=store, overrides=overrides or (), notice=console.say_note)
    newest = stored_run.newest_epoch("train")
    if epoch is None and newest is None:
        raise NotFound(f"{stored_run.plan.reference} has no trained epoch yet")
    asked = Asked(
        epoch=epoch if epoch is not None else newest or 0,
        artifact="ema" if ema else "model",
        points=points,
        extent=extent,
        samples=samples,
        seed=seed,
    )
    with _bar() as bar:
        task = bar.add_task("loss landscape", total=points * points)
        computed = compute_landscape(
            stored_run, asked, notice=console.say_note, on_point=lambda: bar.advance(task)
        )
    grid = write_grid(computed, out)
    draw(computed, out)
    if as_json:
        console.print_json(
            {
                "run": stored_run.plan.run,
                "generation": stored_run.plan.generation,
                "epoch": asked.epoch,
                "weights": asked.artifact,
                "picture": str(out),
                "grid": str(grid),
                "samples": computed.landscape.num_samples,
                "centre": number(computed.landscape.centre),
                "min": computed.lowest,
                "max": computed.highest,
                "not_finite": computed.gaps,
            }
        )
        return
    console.out.print(
        f"{out}  {stored_run.plan.reference}  epoch {asked.epoch}  "
        f"loss {console.number(computed.landscape.centre)} at the checkpoint, "
        f"{console.number(computed.lowest)} to {console.number(computed.highest)} around it"
    )
    if computed.gaps:
        console.out.print(f"{computed.gaps} points are not finite and left out")
    console.out.print(f"{grid}  the numbers")


def _bar() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        console=console.err,
        transient=True,
        disable=not console.err.is_terminal,
    )
