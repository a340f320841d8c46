"""`epochal report`: a run as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epochal.data.errors import EpochalError
from epochal.flows import console
from epochal.flows.commands.read import AsJson, RunName, StoreOption
from epochal.tasks.out_file import check_out, whole_file
from epochal.tasks.runs.find_run import FoundRun, find_run

if TYPE_CHECKING:
    from epochal.tasks.report.page import Images


def report(
    run: RunName,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The page, one file with all in it.")
    ] = Path("report.html"),
    store: StoreOption = None,
    as_json: AsJson = False,  # noqa: FBT002 - typer's way of a flag
) -> None:
    """Write a run's curves, kept samples, data map and hardest samples as one HTML page."""
    from epochal.tasks.report.page import report_html

    check_out(out, option="--out", ends=(".html", ".htm"))
    found = find_run(run, store=store)
    data = report_html(found, images=_images(found)).encode()
    with whole_file(out, option="--out") as file:
        file.write_bytes(data)
    if as_json:
        console.print_json({"run": found.plan.run, "file": str(out), "bytes": len(data)})
        return
    console.out.print(f"{out}  {console.size(len(data))}")


def _images(found: FoundRun) -> Images | str:
    from epochal.tasks.run_data.sample_images import open_images, read_images

    try:
        data = open_images(found, notice=console.say_note)
    except EpochalError as error:
        return str(error)
    return lambda sample_ids: read_images(data, sample_ids)
