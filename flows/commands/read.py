"""`epochal runs`, `show`, `samples` and `export`: they read a store and change nothing in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from epochal.data.errors import InputError, NotFound
from epochal.data.store.store import Store
from epochal.flows import console
from epochal.flows.commands.options import (
    AsJson,
    Debug,
    OfAverage,
    OfConfig,
    RunName,
    StoreName,
    StoreOption,
)
from epochal.flows.terminal.fitting import Column
from epochal.tasks.goodput.run import run_goodput
from epochal.tasks.planning.run_view import BestEpoch
from epochal.tasks.runs.explain import changes_since
from epochal.tasks.runs.find_run import FoundRun, find_run, named_store, stored_runs
from epochal.tasks.runs.summary import epoch_rows, flat_metrics, last_attempts, stopping_line
from epochal.tasks.stages.average import average_text

OfCheckpoints = Annotated[
    bool, typer.Option("--average", help="The mean of the checkpoints, of `averaging:`.")
]
SHORT = 12
_RANKS = {
    **dict.fromkeys(("sample_id", "label"), 0),
    **dict.fromkeys(("weight", "n_seen", "epoch_seen", "variability"), 3),
    **dict.fromkeys(("p_true", "confidence", "keep"), 2),
}
"""Which columns of samples make room first where there is too little."""
MAX_LEFT_OUT = 20  # samples that are shown; `--json` and the report have all


def runs(
    store: StoreName,
    as_json: AsJson = False,  # noqa: FBT002 - typer's way of a flag
) -> None:
    """List the runs of a store with their epochs and metrics."""
    opened = named_store(store)
    found = stored_runs(opened, notice=console.say_note)
    if as_json:
        console.print_json(runs_object(opened, found))
        return
    if not found:
        console.out.print(f"{opened.url} has no run yet")
        return
    began = _began(opened, found)
    rows = [
        [
            run.plan.reference,
            f"{len(epoch_rows(run))} of {run.config.epochs}"
            + (", stopped early" if run.stopped_after is not None else ""),
            console.NOTHING if run.best is None else _value(run.best),
            _when(began.get(run.plan.reference)),
            (run.weights_sha256 or console.NOTHING)[:SHORT],
            _difference(run, found),
        ]
        for run in found
    ]
    cells = [list(column) for column in zip(*rows, strict=True)]
    columns = [
        Column("run", cells[0]),
        Column("epochs", cells[1]),
        Column("best", cells[2], 1),
        Column("trained", cells[3], 2),
        Column("weights sha256", cells[4], 3),
        Column("what differs", cells[5], 1, folds=True),
    ]
    console.print_whole(console.fitted_table(columns))


def runs_object(store: Store, found: Sequence[FoundRun]) -> dict[str, Any]:
    """The runs of a store as `--json` prints them."""
    return {"store": store.url, "runs": [_summary(run) for run in found]}


def _began(store: Store, found: Sequence[FoundRun]) -> dict[str, int]:
    """`name@generation` → when the last command for it began, ms since 1970."""
    names = dict.fromkeys(run.plan.run for run in found)
    return {reference: at for name in names for reference, at in last_attempts(store, name).items()}


def _when(ms: int | None) -> str:
    """A moment as the clock on the wall has it."""
    if ms is None:
        return console.NOTHING
    return datetime.fromtimestamp(ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M")


def _difference(run: FoundRun, among: Sequence[FoundRun]) -> str:
    """What has made a generation of its own of it: where it branched, and what is another there."""
    origin = run.plan.branched_from
    if origin is None:
        return console.NOTHING
    parent = next((one for one in among if one.plan.reference == origin), None)
    changes: list[str] = []
    if parent is not None:
        changes = changes_since(
            run.config, run.stages, parent.plan, definitions=run.plan.definitions
        )
    after = f"{origin} after {_epochs(run.plan.shared_epochs or 0)}"
    return f"{after}: {'; '.join(changes)}" if changes else after


def _epochs(count: int) -> str:
    return f"{count} epoch{'s' * (count != 1)}"


def show(
    run: RunName,
    overrides: OfConfig = None,
    store: StoreOption = None,
    as_json: AsJson = False,  # noqa: FBT002 - typer's way of a flag
) -> None:
    """Show a run: its epochs, metrics and checkpoints."""
    stored_run = find_run(run, store=store, overrides=overrides or (), notice=console.say_note)
    if as_json:
        console.print_json(_whole(stored_run))
        return
    rows = epoch_rows(stored_run)
    if not rows:
        console.out.print(f"run {stored_run.plan.reference}: no epoch yet")
        return
    console.print_whole(console.epochs_table(rows, title=f"run {stored_run.plan.reference}"))
    console.out.print()
    console.out.print(f"best     {_best(stored_run)}")
    console.out.print(f"store    {stored_run.store.url}")
    console.out.print(
        f"weights  sha256 {stored_run.weights_sha256 or 'the last epoch is not trained yet'}"
    )
    if (average := average_text(stored_run)) is not None:
        console.out.print(f"average  {average}")
    if stored_run.stopped_after is not None:
        console.out.print(f"stopped  early, with epoch {stored_run.stopped_after}")
    if stored_run.plan.branched_from is not None:
        console.out.print(
            f"branched from {stored_run.plan.branched_from}, "
            f"sharing {stored_run.plan.shared_epochs} "
            f"epoch{'s' * (stored_run.plan.shared_epochs != 1)}"
        )
    goodput = run_goodput(stored_run, stored_run.stage_store)
    if goodput is not None:
        console.out.print()
        console.print_whole(console.goodput_table(goodput))
        for line in console.goodput_lines(goodput):
            console.out.print(line)


def samples(
    run: RunName,
    easiest: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="The N of highest confidence.")
    ] = None,
    hardest: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="The N of highest loss.")
    ] = None,
    suspects: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="The N of lowest mean margin: perhaps mislabelled."),
    ] = None,
    forgotten: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="The N that were right and then wrong most often."),
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw them there as PNG, if the data set has images."),
    ] = None,
    overrides: OfConfig = None,
    store: StoreOption = None,
    as_json: AsJson = False,  # noqa: FBT002 - typer's way of a flag
    _debug: Debug = False,  # noqa: FBT002 - likewise
) -> None:
    """Show what training saw of the samples, and where the tables are."""
    from epochal.tasks.report.contact_sheet import check_pictures, draw_samples
    from epochal.tasks.report.samples import view_samples
    from epochal.tasks.run_data.sample_names import sample_names

    order, count = _order(easiest=easiest, hardest=hardest, suspects=suspects, forgotten=forgotten)
    if pictures is not None:
        check_pictures(pictures, count=count)
    stored_run = find_run(run, store=store, overrides=overrides or (), notice=console.say_note)
    names = sample_names(stored_run, notice=console.say_note)
    view = view_samples(stored_run, order=order, count=count, names=names)
    if pictures is not None:
        draw_samples(stored_run, view, pictures, notice=console.say_note, data=names.data)
    if as_json:
        console.print_json(view.as_object())
        return
    cells = [list(column) for column in zip(*view.rows(), strict=True)]
    columns = [
        Column(name, cells[place] if cells else [], _RANKS.get(name, 1))
        for place, name in enumerate(view.columns)
    ]
    console.print_whole(console.fitted_table(columns))
    console.out.print()
    for line in (view.caption, *view.notes):
        console.out.print(line)
    _say_left_out(view.left_out)
    for table in view.tables:
        if table.epoch == view.epoch:
            for name, url in (("observations", table.observations), ("samples", table.samples)):
                if url is not None:
                    console.out.print(f"{name:<12} {url}")
    if pictures is not None:
        console.out.print(f"{'pictures':<12} {pictures}")


def _say_left_out(left_out: Sequence[Mapping[str, Any]]) -> None:
    if left_out:
        console.out.print(f"{len(left_out)} left out, for they cannot be trained on:")
        rows = [
            [
                one["data"],
                str(one["position"]),
                one["error"]
                if one["path"] is None or one["path"] in one["error"]
                else f"{one['path']}: {one['error']}",
            ]
            for one in left_out[:MAX_LEFT_OUT]
        ]
        columns = ["data", "position", "cause"]
        console.print_whole(console.text_table(columns, rows, folds="cause"))
        console.out.print()


def _order(**asked: int | None) -> tuple[str | None, int | None]:
    given = {name: count for name, count in asked.items() if count is not None}
    if len(given) > 1:
        raise InputError(f"--{' and --'.join(given)}: ask for one order at a time")
    return next(iter(given.items()), (None, None))


def export(
    run: RunName,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write the weights.")],
    epoch: Annotated[
        str | None, typer.Option(metavar="EPOCH", help="An epoch, or `best`; none: the last one.")
    ] = None,
    ema: OfAverage = False,  # noqa: FBT002 - typer's way of a flag
    average: OfCheckpoints = False,  # noqa: FBT002 - typer's way of a flag
    overrides: OfConfig = None,
    store: StoreOption = None,
    as_json: AsJson = False,  # noqa: FBT002 - typer's way of a flag
) -> None:
    """Write a run's weights to a file that `safetensors.torch.load_file` reads."""
    from epochal.tasks.export import export_weights

    if average and (ema or epoch is not None):
        raise InputError("--average: it is of several epochs; leave --epoch and --ema out")
    stored_run = find_run(run, store=store, overrides=overrides or (), notice=console.say_note)
    if average:
        _export_average(stored_run, out, as_json=as_json)
        return
    number = _epoch_number(stored_run, epoch, ema=ema)
    artifact = "ema" if ema else "model"
    written = export_weights(stored_run, epoch=number, out=out, artifact=artifact)
    if as_json:
        console.print_json(
            {
                "run": stored_run.plan.run,
                "generation": stored_run.plan.generation,
                "epoch": number,
                "file": str(out),
                "weights_sha256": written,
            }
        )
        return
    console.out.print(f"{out}  {stored_run.plan.reference}  epoch {number}  sha256 {written}")


def _export_average(run: FoundRun, out: Path, *, as_json: bool) -> None:
    from epochal.tasks.export import export_average

    record = export_average(run, out=out)
    epochs, sha256 = record.values["epochs"], record.artifacts["model"].sha256
    if as_json:
        console.print_json(
            {
                "run": run.plan.run,
                "generation": run.plan.generation,
                "epoch": None,
                "epochs": epochs,
                "file": str(out),
                "weights_sha256": sha256,
            }
        )
        return
    console.out.print(
        f"{out}  {run.plan.reference}  mean of epochs {', '.join(map(str, epochs))}  "
        f"sha256 {sha256}"
    )


def _epoch_number(run: FoundRun, epoch: str | None, *, ema: bool) -> int:
    if epoch == "best":
        of_ema = ema and run.config.ema is not None
        best = run.best_of_ema if of_ema else run.best
        if best is None:
            why = run.why_no_best(run.metrics_of_ema if of_ema else None)
            raise NotFound(f"{run.plan.reference} has no best epoch: {why}")
        return best.epoch
    if epoch is not None and not epoch.isdigit():
        raise InputError(f"--epoch: found {epoch!r}; expected a number from 0, or `best`")
    newest = run.newest_epoch("train") if epoch is None else int(epoch)
    if newest is None:
        raise NotFound(f"{run.plan.reference} has no trained epoch yet")
    return newest


def _best(run: FoundRun) -> str:
    best = run.best
    return console.NOTHING if best is None else f"{_value(best)} in epoch {best.epoch}"


def _value(best: BestEpoch) -> str:
    return f"{best.metric} {console.number(best.value)}"


def _summary(run: FoundRun) -> dict[str, Any]:
    return {
        "run": run.plan.run,
        "generation": run.plan.generation,
        "branched_from": run.plan.branched_from,
        "shared_epochs": run.plan.shared_epochs,
        "epochs": run.config.epochs,
        "epochs_done": len(epoch_rows(run)),
        "weights_sha256": run.weights_sha256,
        "metrics": flat_metrics(run),
        **stopping_line(run),
    }


def _whole(run: FoundRun) -> dict[str, Any]:
    goodput = run_goodput(run, run.stage_store)
    return {
        **_summary(run),
        "store": run.store.url,
        "stages": [
            {
                "stage": stage.kind,
                "epoch": stage.epoch,
                "key": stage.key,
                "done": run.is_done(stage),
                "values": run.record_of(stage).values if run.is_done(stage) else None,
            }
            for stage in run.stages
        ],
        "goodput": None if goodput is None else goodput.as_object(),
    }
