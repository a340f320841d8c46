"""A page as HTML: its parts, its templates, its two scripts and their digests. Knows no run."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from epochal.tasks.printable import printable
from epochal.tasks.report.page.charts.plot import Chart


def _finalize(value: object) -> object:
    is_text = isinstance(value, str) and not isinstance(value, Markup)
    return printable(str(value)) if is_text else value


_TEMPLATES = Environment(
    loader=PackageLoader("epochal.tasks.report.page"),
    autoescape=True,
    finalize=_finalize,
    undefined=StrictUndefined,
    trim_blocks=True,
)


@dataclass(frozen=True)
class Tile:
    """A sample's picture. source: with the picture in it. small: whose pixels are to be seen."""

    source: str
    width: int
    height: int
    caption: Sequence[str]
    small: bool


@dataclass(frozen=True)
class Table:
    """Rows of text under their heads. words: whether they are read, not compared as numbers."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the page: a chart, pictures or a table, with a note below; or only a note.

    wide: over all columns of the page. folded: shown instead of it until it is clicked. of_run: the
    run whose sections are folded together. problem: why nothing can be shown.
    """

    title: str
    note: str = ""
    chart: Chart | None = None
    tiles: Sequence[Tile] = ()
    table: Table | None = None
    wide: bool = False
    folded: str = ""
    of_run: str = ""
    problem: str = ""


def render(*, charts: Mapping[str, Any], **values: object) -> str:
    """templates/page.html with these values, each escaped. charts: the document of `Charts`."""
    library, script = _scripts()
    # A text in it can end no script and begin none: `<` is written otherwise.
    body = json.dumps(charts, separators=(",", ":")).replace("<", "\\u003c")
    return _TEMPLATES.get_template("page.html").render(
        **values,
        charts=Markup(body) if charts["roots"] else None,  # noqa: S704 - as it was escaped above
        library=Markup(library),  # noqa: S704 - Bokeh's own
        script=Markup(script),  # noqa: S704 - ours
        script_digests=Markup(" ".join(map(_digest, (library, script)))),  # noqa: S704 - base64
    )


@cache
def _scripts() -> tuple[str, str]:
    from bokeh.resources import Resources

    # Without widgets, tables, WebGL and MathJax: a third of all that Bokeh has.
    library = Resources(mode="inline", components=["bokeh"], minified=True).js_raw[0]
    own = files("epochal.tasks.report.page") / "templates" / "report.js"
    return library, own.read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
