"""Curves, by their models: where they lie, with their bands, in which colours and dashes."""

import pytest
from support.drawn_charts import ENDS, charts, drawn, line, places, values

from epochal.tasks.report.page.charts.curve import AXES, Curve
from epochal.tasks.report.page.charts.lines import SPREAD_FOR_LOG, Line, draw_lines


def test_a_curve_lies_at_its_places_on_every_axis_with_its_band():
    made = charts()
    chart = draw_lines(
        made,
        "Loss",
        [line("loss", [3.0, 1.0, 2.0], low=[2.0, 0.5, 2.0], high=[4.0, 1.0, 2.5])],
        names=["loss"],
    )
    found = drawn(made)
    line_of, band = (found["kind-0", "run-0", "colour-0", what] for what in ("line", "band"))
    for axis in AXES:
        assert values(line_of, axis) == [ENDS[axis] * part / 3 for part in (1, 2, 3)]
    assert values(line_of, line_of.glyph.y) == [3.0, 1.0, 2.0]
    assert values(band, band.glyph.y1) == [2.0, 0.5, 2.0]
    assert values(band, band.glyph.y2) == [4.0, 1.0, 2.5]
    assert {line_of.glyph.x, band.glyph.x} == {"epoch"}
    assert chart.rows == [["loss", "3", "2", "0.5", "20", "4", "10", "3"]]
    assert chart.label == "Loss: loss from 3 to 2"


def test_runs_have_a_colour_and_curves_a_dash_and_of_one_run_curves_have_the_colour():
    lines = [
        line("loss", [1.0, 2.0], run=0, kind=0),
        line("loss", [2.0, 3.0], run=1, kind=0),
        line("other", [3.0, 4.0], run=1, kind=1),
    ]
    made = charts("a@1", "a@2")
    chart = draw_lines(made, "Loss", lines, names=["loss", "other"])
    found = {tags[:3]: one.glyph for tags, one in drawn(made).items() if tags[-1] == "line"}
    dashes = {tags: glyph.line_dash for tags, glyph in found.items()}
    assert dashes == {
        ("kind-0", "run-0", "colour-0"): [],
        ("kind-0", "run-1", "colour-1"): [],
        ("kind-1", "run-1", "colour-1"): [6],
    }
    assert [(kind.name, kind.colour, kind.values) for kind in chart.kinds] == [
        ("loss", None, ["2", "3"]), ("other", None, ["–", "4"])
    ]  # fmt: skip
    alone = charts()
    chart = draw_lines(
        alone, "Loss", [lines[0], line("other", [3.0], kind=1)], names=["loss", "other"]
    )
    assert [(kind.colour, kind.dash) for kind in chart.kinds] == [(0, "solid"), (1, "solid")]


@pytest.mark.parametrize(
    ("found", "linear", "logarithmic"),
    [
        ([1.0, 1.0 / SPREAD_FOR_LOG], False, True),
        ([1.0, 0.5], False, False),
        ([1.0, 0.0], False, False),
        ([8.0, 0.001], True, None),
    ],
)
def test_values_over_decades_have_a_logarithmic_axis(found, linear, logarithmic):
    made = charts()
    chart = draw_lines(made, "Loss", [line("loss", found)], names=["loss"], linear=linear)
    assert chart.logarithmic is logarithmic
    scale = type(made._roots[0][1].y_scale).__name__
    assert scale == ("LogScale" if logarithmic else "LinearScale")


@pytest.mark.parametrize("found", [[1.0], [0.0, 0.0], [1e-9, 1e9], [-1e300, 1e300], [5e-324, 1.0]])
def test_every_range_of_values_has_a_chart_that_holds_them(found):
    made = charts()
    draw_lines(made, "x", [line("x", found)], names=["x"])
    held = drawn(made)["kind-0", "run-0", "colour-0", "line"]
    assert values(held, held.glyph.y) == pytest.approx(found, rel=1e-6, abs=0)
    assert draw_lines(made, "x", [Line(Curve("none"), places([]))], names=["none"]) is None
