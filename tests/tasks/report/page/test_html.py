"""Every text of a page is text; a value that is missing is an error."""

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError
from support.page_reader import HOSTILE, Reader, checked

from epochal.tasks.printable import printable
from epochal.tasks.report.page import html as pages
from epochal.tasks.report.page.charts.curve import AXES, Curve
from epochal.tasks.report.page.charts.lines import Line, draw_lines
from epochal.tasks.report.page.charts.plot import Charts
from epochal.tasks.report.page.html import Section, Table, Tile, render

NOTHING = {"document": {}, "roots": {}}
PLAIN = {
    "generation": 1,
    "live_s": None,
    "facts": [],
    "configs": [],
    "sections": [],
    "axes": [],
    "at_work": [],
}


def test_a_value_that_the_template_asks_for_and_nobody_gave_is_an_error():
    with pytest.raises(UndefinedError, match="is undefined"):
        render(charts=NOTHING)


TEXTS = st.text(
    alphabet=st.one_of(st.sampled_from("<>&\"'{}%#/=;!-[]$@"), st.characters()), max_size=20
)


@settings(max_examples=20, deadline=None)  # each is a page
@given(TEXTS)
@example(HOSTILE)
@example("{{ 7 * 7 }}{% raw %}")
@example("</title></style></script>-->")
@example("\x1b]0;x\x07\u202e\ud800\x00")
def test_every_text_on_the_page_is_text_and_nothing_else(text):
    words = f"a{text}z"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "_scripts", lambda: ("library", "script"))  # a megabyte less to read
        page = _page_of(words)
        plain = _page_of("b")
    page.encode()
    found = checked(page)
    assert found.tags == Reader(plain).tags
    shown = printable(words)
    assert "".join(found.text).count(shown) >= 20
    labels = [value for name, value in found.attributes if name == "aria-label"]
    assert sum(shown in label for label in labels) >= 5
    assert shown in [value for name, value in found.attributes if name == "alt"]
    assert json.dumps(shown)[1:-1] in json.dumps(found.charts)


def _page_of(words):
    """A page with this text in every place that a text can have."""
    charts = Charts(dict.fromkeys(AXES, (0.0, 1.0)), [words, words])
    places = dict.fromkeys(AXES, np.array([0.0, 1.0]))
    curves = [Curve(words, [0, 1], *([1.0, 2.0] for _ in range(3)), [1, 1]) for _ in range(2)]
    lines = [Line(curve, places, run) for run, curve in enumerate(curves)]
    section = Section(
        words, note=words, chart=draw_lines(charts, words, lines, names=[words]), folded=words,
        problem=words, table=Table([words], [[words]]), of_run="run",
        tiles=[Tile("data:image/png;base64,", 1, 1, [words], small=True)],
    )  # fmt: skip
    texts = {"title": words, "heading": words, "runs": [words, words]}
    given = {"facts": [(words, words)], "configs": [(words, words)], "axes": [("epoch", words)]}
    return render(
        **{**PLAIN, **texts, **given, "sections": [section]},
        charts=charts.document() | {"labels": {"epoch": words}},
    )
