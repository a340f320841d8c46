"""Arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML config of the run.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Another value for one field: optimizer.args.lr=0.01"
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")
]
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
OfAverage = Annotated[
    bool, typer.Option("--ema", help="The average of the weights instead of the weights.")
]
