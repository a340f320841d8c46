"""Arguments and options that several commands take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from epochal.flows.terminal import completion


@dataclass
class ErrorsShown:
    """How errors of the present command are shown. all_frames: those of libraries too."""

    all_frames: bool = False


def show_all_frames(context: typer.Context, value: bool) -> bool:  # noqa: FBT001 - typer's way
    """What `--debug` does: errors are shown with all frames. Gives the option's value."""
    shown = context.find_object(ErrorsShown)
    if shown is not None:  # None where the command is not called by `cli.run`
        shown.all_frames = value
    return value


ConfigPath = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG", help="The YAML config of the run.", autocompletion=completion.configs
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Another value for one field: optimizer.args.lr=0.01"
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")
]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug",
        callback=show_all_frames,
        help="On an error show all frames, not only those of your own files.",
    ),
]
RunName = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        autocompletion=completion.runs,
        help="A config's path, which means the run that it describes, a run's name (NAME, the "
        "last that was planned, or NAME@GENERATION), or STORE/NAME.",
    ),
]
OfConfig = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Where RUN is a config: the run that it describes with another value for one field.",
    ),
]
StoreName = Annotated[
    str,
    typer.Argument(
        metavar="STORE",
        help="Where stages are kept; a config's path means the store of it.",
        autocompletion=completion.stores,
    ),
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="STORE",
        help="The store that holds the run.",
        autocompletion=completion.stores,
    ),
]
OfAverage = Annotated[
    bool, typer.Option("--ema", help="The average of the weights instead of the weights.")
]
