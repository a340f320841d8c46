"""What charts of a page share: one axis, one cursor, one document that is always the same."""

import numpy as np
from bokeh.models import HoverTool
from support.drawn_charts import charts, line, places

from epochal.tasks.report.page.charts.lines import draw_lines
from epochal.tasks.report.page.charts.own_axes import draw_points
from epochal.tasks.report.page.charts.plot import unit_of
from epochal.tasks.report.page.charts.spans import draw_heat


def test_most_charts_share_one_axis_and_its_cursor():
    made = charts()
    for number in range(2):
        draw_lines(made, f"{number}", [line("x", [1.0, 2.0])], names=["x"])
    draw_points(made, "Map", {"all": np.arange(2)}, {"x": np.zeros(2), "y": np.ones(2)}, [2])
    ranges = [plot.x_range for _, plot in made._roots]
    assert ranges[0] is ranges[1] is not ranges[2]
    shared = [("shared" in plot.tags, plot.select({"tags": "cursor"})) for _, plot in made._roots]
    assert [(found, len(list(spans))) for found, spans in shared] == [
        (True, 1), (True, 1), (False, 0)
    ]  # fmt: skip
    assert all(plot.select_one(HoverTool) for _, plot in made._roots)


def test_the_same_charts_are_the_same_document_however_many_there_were_before():
    def document():
        made = charts()
        draw_lines(made, "x", [line("x", [1.0, 2.0])], names=["x"])
        draw_heat(made, "y", ["y"], np.ones((1, 1)), left=places([0]), right=places([1]))
        return made.document()

    assert document() == document()
    assert list(document()["roots"].values()) == ["chart-0", "chart-1"]


def test_a_time_is_counted_in_the_largest_unit_of_which_there_are_two():
    found = [unit_of(seconds)[1] for seconds in (0, 119, 120, 7199, 7200, 2 * 86400)]
    assert found == ["seconds", "seconds", "minutes", "minutes", "hours", "days"]
