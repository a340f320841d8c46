"""`epochal join`."""

from __future__ import annotations

from typing import Annotated

import typer

from epochal.flows.commands.options import Debug


def join(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="Where the run listens: HOST:PORT, epochal://HOST:PORT; its launch.address.",
            show_default=False,
        ),
    ],
    wait: Annotated[
        float,
        typer.Option(
            "--wait",
            metavar="SECONDS",
            min=1,
            help="For how long it is tried, while nobody answers there.",
        ),
    ] = 600.0,
    _debug: Debug = False,  # noqa: FBT002 - typer's way of a flag
) -> None:
    """Let this machine train in a run of another: launch.kind: elastic, with launch.nodes."""
    from epochal.tasks.joining.join import join_run

    join_run(url, wait_s=wait)
