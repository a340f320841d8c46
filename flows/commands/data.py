"""`epochal data check`: what a run's data sets hold, before anything is trained on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import typer

from epochal.data.errors import InputError
from epochal.flows import console
from epochal.flows.commands.options import AsJson, ConfigPath, Debug, Overrides
from epochal.tasks.config.load import load_config

MAX_SHOWN = 20

data = typer.Typer(
    help="Look at the data sets of a config.", no_args_is_help=True, add_completion=False
)


@data.callback()
def _group() -> None:
    """Look at the data sets of a config."""


@data.command()
def check(
    config: ConfigPath,
    overrides: Overrides = None,
    as_json: AsJson = False,  # noqa: FBT002 - typer's way of a flag
    _debug: Debug = False,  # noqa: FBT002 - likewise
) -> None:
    """List classes, duplicates and mistakes of the data sets; starts and writes nothing."""
    from epochal.tasks.preflight.data_check import check_data

    loaded = load_config(config, overrides=overrides or ())
    found = check_data(loaded)
    for note in found.notes:
        console.say_note(note)
    for text in found.refused:
        console.say_error(text)
    if as_json:
        console.print_json(
            {
                "run": loaded.name,
                "data": dict(found.data),
                "notes": list(found.notes),
                "refused": list(found.refused),
            }
        )
    else:
        rows = [row for field, one in found.data.items() for row in _rows(field, one)]
        console.print_whole(console.plain_table(("data", "what", "count", "positions"), rows))
    if found.refused:
        raise typer.Exit(InputError.exit_code)


def _rows(field: str, one: Mapping[str, Any]) -> Iterator[list[str]]:
    yield [field, "samples", f"{one['num_samples']:,}", ""]
    if one["classes"] is None:
        yield ["", "classes", "–", "not every label is known and one whole number"]
    else:
        yield ["", "classes", f"{one['num_classes']:,}", ""]
        for entry in one["classes"][:MAX_SHOWN]:
            name = "" if entry["class"] is None else f" {entry['class']}"
            yield ["", f"  {entry['label']}{name}", f"{entry['count']:,}", ""]
        if one["num_classes"] > MAX_SHOWN:
            yield ["", "  others", f"{one['num_classes'] - MAX_SHOWN:,} classes", ""]
        if one["ignored"]:
            yield ["", "ignored by the loss", f"{one['ignored']:,}", ""]
    if one["unequal_at"] is not None:
        yield ["", "another form than item 0", "", f"first {one['unequal_at']}"]
    yield from _repeated("input came before", one["repeats"])
    if "in_train_data" in one:
        yield from _repeated("input is in train_data", one["in_train_data"])


def _repeated(what: str, found: Mapping[str, Any] | None) -> Iterator[list[str]]:
    if found is None:
        yield ["", what, "–", "the inputs were not read: the data set has a fingerprint()"]
        return
    samples = found["samples"][:MAX_SHOWN]
    shown = ", ".join(f"{one['position']} as {one['first']}" for one in samples)
    more = "" if found["count"] <= len(samples) else ", …"
    yield ["", what, f"{found['count']:,}", f"{shown}{more}"]
    if found["other_labels"]:
        yield ["", "  with another label", f"{found['other_labels']:,}", "those are first"]
