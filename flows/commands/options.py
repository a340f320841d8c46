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
        metavar="STORE", help="Where stages are kept; a config's path means the store of it."
    ),
]
StoreOption = Annotated[
    str | None, typer.Option("--store", metavar="STORE", help="The store that holds the run.")
]
OfAverage = Annotated[
    bool, typer.Option("--ema", help="The average of the weights instead of the weights.")
]
