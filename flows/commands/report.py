"""`epochal report`: runs as one HTML page; `epochal landscape`: the loss around a checkpoint."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import partial
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
from epochal.flows.environment import importing
from epochal.flows.terminal.style import may_move
from epochal.tasks.out_file import check_out
from epochal.tasks.runs.find_run import FoundRun, find_run
from epochal.tasks.stages.commit import number

if TYPE_CHECKING:
    from epochal.data.inspection.dataset import OpenDataset
    from epochal.tasks.report.page.shown_run import ShownRun


RELOAD_S = 5
"""How often a page that is kept fresh loads itself again."""
POLL_S = 2.0

RunNames = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN",
        help="One run or several: a config's path, which means the run that it describes, a run's "
        "name (NAME, the last that was planned, or NAME@GENERATION), or STORE/NAME.",
    ),
]


def report(
    runs: RunNames,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The page, one file with all in it.")
    ] = Path("report.html"),
    live: Annotated[  # noqa: FBT002 - typer's way of a flag
        bool,
        typer.Option(
            "--live", help="Keep the page fresh until the runs are done, or until Ctrl-C."
        ),
    ] = False,
    overrides: OfConfig = None,
    store: StoreOption = None,
    as_json: AsJson = False,  # noqa: FBT002 - likewise
    _debug: Debug = False,  # noqa: FBT002 - likewise
) -> None:
    """Write one run, or several over each other, as one HTML page that needs no network."""
    check_out(out, option="--out", ends=(".html", ".htm"))
    asked = _Asked(runs, store, overrides or ())
    if live:
        size = _keep_fresh(asked, out, tell=not as_json)
    else:
        # Half of it is imports: of Bokeh, of torch for predictions, of what the data needs.
        with importing():
            from epochal.tasks.report.page.write import write_page

            size = write_page(asked.shown(asked.found()), out)
    names = [run.plan.run for run in asked.found()] if as_json else []
    if as_json:
        named = {"run": names[0]} if len(names) == 1 else {"runs": names}
        console.print_json({**named, "file": str(out), "bytes": size})
    elif not live:
        console.out.print(f"{out}  {', '.join(asked.references)}  {console.size(size)}")


class _Asked:
    """The runs that a page was asked for, looked up again and again."""

    def __init__(self, names: Sequence[str], store: str | None, overrides: Sequence[str]) -> None:
        self._names = names
        self._store = store
        self._overrides = overrides
        self._data: dict[str, OpenDataset | str] = {}
        self.references: list[str] = []

    def found(self) -> list[FoundRun]:
        """The runs as the store has them now. Raises InputError for one that is named twice."""
        notice = (lambda _: None) if self.references else console.say_note
        runs = [
            find_run(name, store=self._store, overrides=self._overrides, notice=notice)
            for name in self._names
        ]
        places = [(run.store.url, run.plan.reference) for run in runs]
        for place, name in zip(places, self._names, strict=True):
            if places.count(place) > 1:
                raise InputError(f"RUN {name}: {place[1]} is named twice; leave one of the two out")
        self.references = [run.plan.reference for run in runs]
        return runs

    def shown(self, runs: Sequence[FoundRun]) -> list[ShownRun]:
        """The runs with what their data sets tell; those are opened once."""
        from epochal.tasks.predictions import predicted_classes
        from epochal.tasks.report.page.shown_run import ShownRun
        from epochal.tasks.run_data.sample_images import read_images
        from epochal.tasks.run_data.sample_names import sample_names

        shown = []
        for name, run in zip(self._names, runs, strict=True):
            names = sample_names(run, notice=console.say_note)
            if name not in self._data:
                self._data[name] = names.data or _opened(run)
            data = self._data[name]
            if isinstance(data, str):
                shown.append(ShownRun(run, images=data, predictions=data, names=names))
            else:
                shown.append(
                    ShownRun(
                        run,
                        images=partial(read_images, data),
                        predictions=partial(predicted_classes, run, data),
                        names=names,
                    )
                )
        return shown


def _keep_fresh(asked: _Asked, out: Path, *, tell: bool) -> int:
    """Writes the page whenever the store has more of the runs. Ends with them, or by Ctrl-C."""
    from epochal.tasks.report.page.write import write_page
    from epochal.tasks.runs.open_epoch import latest_commit

    seen, size, waiting = None, 0, threading.Event()
    runs = asked.found()
    try:
        while True:
            whole = all(run.is_whole for run in runs)
            now = [(run.plan, sorted(run.records), latest_commit(run)) for run in runs]
            began_s = time.monotonic()
            if now != seen:
                size = write_page(asked.shown(runs), out, live_s=None if whole else RELOAD_S)
                if tell and seen is None:
                    until = "" if whole else "; kept fresh, Ctrl-C ends it"
                    names = ", ".join(asked.references)
                    console.out.print(f"{out}  {names}  {console.size(size)}{until}")
            seen = now
            if whole:
                return size
            # A page costs seconds of a processor that the run may need: at most a third of them.
            waiting.wait(max(POLL_S, 2 * (time.monotonic() - began_s)))
            runs = asked.found()
    except KeyboardInterrupt:
        # As it is now, and for good: nobody writes it any more.
        return write_page(asked.shown(runs), out)


def _opened(run: FoundRun) -> OpenDataset | str:
    """The training data that the images are of, or why it cannot be opened."""
    from epochal.tasks.run_data.sample_images import open_images

    try:
        return open_images(run, notice=console.say_note)
    except EpochalError as error:
        return str(error)


MAX_POINTS = 1001


def landscape(
    run: RunName,
    epoch: Annotated[
        int | None, typer.Option(metavar="EPOCH", min=0, help="An epoch; none: the last one.")
    ] = None,
    points: Annotated[
        int,
        typer.Option(
            metavar="N", min=3, max=MAX_POINTS, help="Points along each axis, an odd number."
        ),
    ] = 21,
    extent: Annotated[
        float,
        typer.Option(
            "--range", metavar="X", help="How far it goes each way, in units of the filters' norms."
        ),
    ] = 1.0,
    samples: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Validation samples that each loss is the mean of, at most."
        ),
    ] = 1000,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="Of the directions and the samples.")
    ] = 0,
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
        disable=not may_move(console.err),
    )
