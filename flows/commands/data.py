"""`epochal data`: what a run's data sets hold, and shards of what can only be iterated over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from epochal.data.errors import EpochalError, InputError
from epochal.flows import console
from epochal.flows.commands.options import AsJson, ConfigPath, Debug, Overrides
from epochal.flows.progress import Counting, ProgressReporter
from epochal.flows.terminal.fitting import Column
from epochal.tasks.config.load import load_config
from epochal.tasks.out_file import check_out, whole_file

MAX_SHOWN = 20

data = typer.Typer(
    help="Look at data sets, and index them.", no_args_is_help=True, add_completion=False
)


@data.callback()
def _group() -> None:
    """Look at data sets, and index them."""


@data.command()
def check(
    config: ConfigPath,
    overrides: Overrides = None,
    as_json: AsJson = False,  # noqa: FBT002 - typer's way of a flag
    _debug: Debug = False,  # noqa: FBT002 - likewise
) -> None:
    """Read every sample: list bad ones, classes, duplicates; starts and writes nothing."""
    from epochal.tasks.preflight.data_check import check_data

    loaded = load_config(config, overrides=overrides or ())
    with ProgressReporter() as progress:
        found = check_data(loaded, progress=progress.reading)
    for note in found.notes:
        console.say_note(note)
    for text in found.refused:
        console.say_error(text)
    if as_json:
        console.print_json(
            {
                "run": loaded.name,
                **found.data,
                "notes": list(found.notes),
                "refused": list(found.refused),
            }
        )
    else:
        rows = [row for field, one in found.data.items() for row in _rows(field, one)]
        titles = ("data", "count", "details")
        data, count, details = ([row[place] for row in rows] for place in range(len(titles)))
        columns = (
            Column(titles[0], data),
            Column(titles[1], count),
            Column(titles[2], details, 1, folds=True),
        )
        console.print_whole(console.fitted_table(columns))
        for field, one in found.data.items():
            _say_bad(field, one["bad"])
    if any(one["bad"] for one in found.data.values()):
        raise typer.Exit(EpochalError.exit_code)
    if found.refused:
        raise typer.Exit(InputError.exit_code)


@data.command()
def show(
    config: ConfigPath,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE.png",
            help="The picture, where the batch holds images; else NAME-batch.png, here.",
        ),
    ] = None,
    epoch: Annotated[int, typer.Option(metavar="EPOCH", min=0, help="Of that epoch, from 0.")] = 0,
    batch: Annotated[
        int, typer.Option(metavar="N", min=0, help="Which of its batches, from 0.")
    ] = 0,
    overrides: Overrides = None,
    as_json: AsJson = False,  # noqa: FBT002 - typer's way of a flag
    _debug: Debug = False,  # noqa: FBT002 - likewise
) -> None:
    """Draw a batch as training sees it, augmented and mixed; starts nothing, no store is needed."""
    loaded = load_config(config, overrides=overrides or ())
    file = Path(f"{loaded.name}-batch.png") if out is None else out
    check_out(file, option="--out", ends=(".png",))
    from epochal.tasks.report.batch import show_batch

    with ProgressReporter() as progress:
        shown = show_batch(
            loaded,
            epoch=epoch,
            number=batch,
            notice=console.say_note,
            progress=partial(progress.reading, "train_data"),
        )
    if shown.png is not None:
        with whole_file(file, option="--out") as temporary:
            temporary.write_bytes(shown.png)
    elif out is not None:
        console.say_note(f"--out {out}: the batch holds no images, so there is no picture")
    if as_json:
        console.print_json(
            {
                "run": loaded.name,
                "epoch": epoch,
                "batch": batch,
                "batches": shown.num_batches,
                "input": shown.inputs,
                "samples": list(shown.samples),
                "out": None if shown.png is None else str(file),
            }
        )
        return
    console.out.print(
        f"epoch {epoch}, batch {batch} of {shown.num_batches}: {len(shown.samples)} samples, "
        f"input {shown.inputs}",
        markup=False,
    )
    if shown.png is None:
        heading, rows = shown.table
        console.print_whole(console.text_table(heading, rows))
        if len(shown.samples) > len(rows):
            console.out.print(f"and {len(shown.samples) - len(rows)} more")
    else:
        console.out.print(f"drawn in {file}", markup=False)


Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="Tar shards: a folder, a pattern such as shard-{000..127}.tar, or an address; or what "
        "is to be written as shards: a config (CONFIG.yaml), or a target (module:attribute).",
    ),
]


@data.command()
def index(
    source: Source,
    field: Annotated[
        str, typer.Option("--field", metavar="FIELD", help="Of a config: which data set.")
    ] = "train_data",
    overrides: Overrides = None,
    args: Annotated[
        str | None,
        typer.Option("--args", metavar="JSON", help="Of a target: what it is called with."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="URL",
            help="Where shards are written to; of an index: where, if not beside its shards.",
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Write at most so many items: some never end."),
    ] = None,
    shard_mb: Annotated[
        int, typer.Option(min=1, max=1 << 20, metavar="MB", help="Size of a written shard.")
    ] = 256,
    as_json: AsJson = False,  # noqa: FBT002 - typer's way of a flag
    _debug: Debug = False,  # noqa: FBT002 - likewise
) -> None:
    """Write the index of tar shards, or a data set that only iterates as shards with an index.

    The same command goes on after an end in the middle: finished shards are kept.
    """
    from epochal.tasks.run_data.index_data import Request, index_data

    request = Request(
        source=source,
        field=field,
        overrides=overrides or (),
        args=args,
        out=out,
        samples=samples,
        shard_bytes=shard_mb << 20,
    )
    with Counting("reading") as counting:
        found = index_data(request, told=counting.told)
    if as_json:
        console.print_json(asdict(found))
        return
    rows = [
        ["samples", f"{found.samples:,}"],
        ["shards", f"{found.shards:,}"],
        ["index", found.index],
    ]
    if found.size is not None:
        rows.insert(2, ["written", console.size(found.size)])
    if found.kept:
        rows.insert(2, ["there before", f"{found.kept:,} shards"])
    console.print_whole(console.text_table(("what", "found"), rows, folds="found"))


def _say_bad(field: str, bad: Sequence[Mapping[str, Any]]) -> None:
    """Which samples of a data set cannot be trained on, and why: as many as a person reads."""
    if not bad:
        return
    console.out.print()
    console.out.print(f"{field}, bad:")
    for one in bad[:MAX_SHOWN]:
        known = one["path"] is None or one["path"] in one["error"]
        where = "" if known else f"{one['path']}: "
        console.out.print(f"  {one['sample_id']}  {where}{one['error']}")
    if len(bad) > MAX_SHOWN:
        console.out.print(f"  and {len(bad) - MAX_SHOWN} more; --json has all")


def _rows(field: str, one: Mapping[str, Any]) -> Iterator[list[str]]:
    yield [field, f"{one['samples']:,}", "samples"]
    if one["bad"]:
        yield ["  bad", f"{len(one['bad']):,}", "cannot be trained on"]
    if one["classes"] is None:
        yield ["  classes", console.NOTHING, "not every label is known and one whole number"]
    else:
        yield ["  classes", f"{one['num_classes']:,}", ""]
        for entry in one["classes"][:MAX_SHOWN]:
            name = "" if entry["class"] is None else f" {entry['class']}"
            yield [f"    {entry['label']}{name}", f"{entry['count']:,}", ""]
        if one["num_classes"] > MAX_SHOWN:
            yield ["    others", "", f"{one['num_classes'] - MAX_SHOWN:,} classes"]
        if one["ignored"]:
            yield ["  ignored by the loss", f"{one['ignored']:,}", ""]
    yield from _repeated("input came before", one["repeats"])
    if "in_train_data" in one:
        yield from _repeated("input is in train_data", one["in_train_data"])


def _repeated(what: str, found: Mapping[str, Any] | None) -> Iterator[list[str]]:
    if found is None:
        none = "the inputs were not read: the data set has a fingerprint()"
        yield [f"  {what}", console.NOTHING, none]
        return
    samples = found["samples"][:MAX_SHOWN]
    shown = ", ".join(f"{one['position']} as {one['first']}" for one in samples)
    more = "" if found["count"] <= len(samples) else ", …"
    yield [f"  {what}", f"{found['count']:,}", f"positions {shown}{more}" if shown else ""]
    if found["other_labels"]:
        yield ["    with another label", f"{found['other_labels']:,}", "those are first"]
