"""`epochal query`: SQL over all runs of a store."""

from __future__ import annotations

import csv
import itertools
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from epochal.data.errors import InputError
from epochal.flows import console
from epochal.flows.commands.options import AsJson, Debug, StoreName
from epochal.tasks.out_file import check_out, whole_file
from epochal.tasks.runs.find_run import named_store

if TYPE_CHECKING:
    from epochal.tasks.query.ask import Answer, OpenViews

SHOWN_ROWS = 40
ENDS = (".csv", ".json", ".jsonl", ".parquet")


def query(
    store: StoreName,
    sql: Annotated[
        str | None,
        typer.Argument(metavar="SQL", help="One SELECT; none: list the views and their columns."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help=f"Rows at most; none: all, of which {SHOWN_ROWS} are shown."
        ),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the rows as CSV.")] = False,  # noqa: FBT002 - typer's way of a flag
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the rows there: .csv, .json, .jsonl or .parquet."),
    ] = None,
    as_json: AsJson = False,  # noqa: FBT002 - likewise
    _debug: Debug = False,  # noqa: FBT002 - likewise
) -> None:
    """Ask all runs of a store in SQL: views runs, epochs, updates, observations, samples.

    --json prints one list of the rows as objects.
    """
    from epochal.tasks.query.ask import OpenViews

    if sum((as_csv, as_json, out is not None)) > 1:
        raise InputError("--csv, --json and --out: give one of them, each is another form")
    if out is not None:
        check_out(out, option="--out", ends=ENDS)
    if sql is None and (out is not None or as_csv):
        raise InputError("query: --out and --csv are for rows; give SQL too")
    views = OpenViews.of_store(named_store(store), notice=console.say_note)
    if sql is None:
        _print_views(views, as_json=as_json)
        return
    answer = views.ask(sql)
    rows = itertools.islice(answer.rows, limit)
    if as_json:
        console.print_json([dict(zip(answer.columns, row, strict=True)) for row in rows])
    elif as_csv:
        _write_csv(answer, rows, sys.stdout)
    elif out is not None:
        with whole_file(out, option="--out") as file:
            _write(answer, rows, file, kind=out.suffix)
        console.out.print(f"{out}  {console.size(out.stat().st_size)}")
    else:
        _print_rows(answer, rows, shown=limit or SHOWN_ROWS)


def _print_views(views: OpenViews, *, as_json: bool) -> None:
    from epochal.tasks.query.views import VIEWS, columns_of

    columns = columns_of(views.views)
    if as_json:
        console.print_json(
            [
                {
                    "view": name,
                    "holds": VIEWS[name],
                    "columns": [{"name": one, "type": kind} for one, kind in columns[name]],
                }
                for name in VIEWS
            ]
        )
        return
    for name, holds in VIEWS.items():
        console.out.print(console.line((name, "bold"), f": {holds}"))
        for text in _wrapped([one for one, _ in columns[name]]):
            console.out.print(f"  {text}")


def _wrapped(names: Sequence[str]) -> Iterable[str]:
    line, width = "", min(76, console.out.width - 4)
    for name in names:
        if line and len(line) + len(name) + 2 > width:
            yield f"{line},"
            line = ""
        line += f", {name}" if line else name
    yield line


def _print_rows(answer: Answer, rows: Iterable[Sequence[Any]], *, shown: int) -> None:
    taken = list(itertools.islice(rows, shown + 1))
    table = [[_text(value) for value in row] for row in taken[:shown]]
    console.print_whole(console.text_table(answer.columns, table))
    if len(taken) > shown:
        console.out.print("and more: --limit N shows N rows; --json, --csv and --out have all")
    elif not taken:
        console.out.print("no rows")


def _text(value: Any) -> str:
    if value is None:
        return console.NOTHING
    if isinstance(value, float):
        return console.number(value, 6)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)


def _write(answer: Answer, rows: Iterable[Sequence[Any]], file: Path, *, kind: str) -> None:
    if kind == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        taken = list(rows)
        columns = [[row[place] for row in taken] for place in range(len(answer.columns))]
        arrays = [pa.array(column) for column in columns]
        parquet.write_table(pa.table(arrays, names=list(answer.columns)), file)
        return
    with file.open("w", encoding="utf-8", newline="") as stream:
        if kind == ".csv":
            _write_csv(answer, rows, stream)
            return
        objects = (dict(zip(answer.columns, row, strict=True)) for row in rows)
        if kind == ".jsonl":
            stream.writelines(f"{json.dumps(one, ensure_ascii=False)}\n" for one in objects)
        else:
            json.dump(list(objects), stream, ensure_ascii=False)


def _write_csv(answer: Answer, rows: Iterable[Sequence[Any]], stream: IO[str]) -> None:
    writer = csv.writer(stream)
    writer.writerow(answer.columns)
    for row in rows:
        writer.writerow(
            json.dumps(value) if isinstance(value, list | dict) else value for value in row
        )
