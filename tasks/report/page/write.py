"""Runs as one HTML page: what they are, their curves, their samples. Reads the store alone.

This file says what is on the page and in which order; the files of sections beside it make its
parts, `html.py` writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from epochal.data.errors import EpochalError, InputError
from epochal.data.secrets import masked
from epochal.data.types import from_json
from epochal.tasks.out_file import whole_file
from epochal.tasks.report.page import curve_sections, run_sections, sample_sections
from epochal.tasks.report.page.charts.curve import AXES
from epochal.tasks.report.page.facts import moment_text
from epochal.tasks.report.page.html import Section, render
from epochal.tasks.report.page.shown_run import Page, ReadRun, ShownRun
from epochal.tasks.report.samples import SHEETS

MAX_RUNS = 32


def write_page(
    runs: Sequence[ShownRun], out: Path, *, option: str = "--out", live_s: float | None = None
) -> int:
    """Writes `report_html` to `out`, whole or not at all, in the place of a file that is there.

    Returns its bytes. Raises InputError if it cannot be written, or for more than 32 runs.
    """
    data = report_html(runs, live_s=live_s).encode()
    with whole_file(out, option=option) as file:
        file.write_bytes(data)
    return len(data)


def report_html(runs: Sequence[ShownRun], *, live_s: float | None = None) -> str:
    """The page; the same stages always give the same text.

    live_s: after how many seconds the page loads itself again, None where it stays as it is. What
    cannot be read is reported in its place on the page.
    """
    if not 0 < len(runs) <= MAX_RUNS:
        raise InputError(f"found {len(runs)} runs; a page shows 1 to {MAX_RUNS}")
    page = Page(runs)
    sections = list(_sections(page))
    first, single = runs[0].run.plan, page.single
    return render(
        title=first.reference if single else f"{len(runs)} runs",
        heading=first.run if single else f"{len(runs)} runs",
        generation=first.generation if single else None,
        runs=[run.name for run in page.runs],
        facts=list(page.runs[0].facts.items()) if single else [],
        configs=[(run.name, _yaml(run.found.plan.config)) for run in page.runs],
        axes=[(axis, f"{page.labels[axis]}") for axis in AXES],
        sections=sections,
        charts=page.charts.document() | {"labels": page.labels},
        live_s=live_s,
        at_work=_at_work(page),
    )


def _sections(page: Page) -> Iterator[Section]:
    """All parts that the runs have something for, in the page's order."""
    for title, make in (
        ("What differs", run_sections.comparison),
        ("Curves of updates", curve_sections.read_updates),
        ("Loss", curve_sections.losses),
        ("Metrics", curve_sections.metrics),
        ("Learning rate", curve_sections.rates),
        ("Gradient norm", curve_sections.gradients),
        ("Parts of the loss", curve_sections.parts),
        ("Kept samples", sample_sections.kept_samples),
        ("Goodput", run_sections.seconds),
        ("Lineage", run_sections.lineage_tree),
    ):
        yield from _or_problem(title, make, page)
    for run in page.runs:
        own = "" if page.single else run.name
        yield from (replace(section, of_run=own) for section in _of_run(page, run))


def _of_run(page: Page, run: ReadRun) -> Iterator[Section]:
    yield from _or_problem("Data map", sample_sections.samples_map, page, run)
    for order, title in SHEETS.items():
        yield from _or_problem(title, sample_sections.sheet, run, order, title)
    yield from _or_problem("Samples left out", sample_sections.left_out, run)
    yield from run_sections.epochs(run)


def _or_problem(title: str, make: Callable[..., Iterator[Section]], *args: Any) -> list[Section]:
    sections = []
    try:
        for section in make(*args):
            sections.append(section)  # noqa: PERF402 - those before an error stay
    except EpochalError as error:
        sections.append(Section(title, problem=str(error)))
    return sections


def _at_work(page: Page) -> list[str]:
    """What the page has of epochs that are not done, a sentence or two for each run."""
    told = []
    for run in page.runs:
        open_, whose = run.open, "" if page.single else f"{run.name}: "
        if run.unread:
            told.append(f"{whose}What is committed of the epoch at work is left out: {run.unread}")
        if open_ is None:
            continue
        text = f"{open_.text[0].upper()}{open_.text[1:]}"
        moment = moment_text(open_.times[-1][1])
        when = "" if moment is None else f" of {moment}"
        told.append(f"{whose}{text}, as of its last commit{when}.")
        if open_.unread_bytes:
            told.append(
                f"{whose}Its curves are drawn when it is done: a commit of it has "
                f"{open_.unread_bytes / 1e9:,.1f} GB, too many to be read for them."
            )
    return told


def _yaml(config: Mapping[str, Any]) -> str:
    """The config as text; a password in an address is left out."""
    text = yaml.safe_dump(from_json(config), sort_keys=False, allow_unicode=True, width=100)
    return masked(text)
