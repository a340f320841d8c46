"""What lies over spans of the shared axis: rows of a heat map, values that add up."""

import numpy as np
from bokeh.models import Range1d
from support.drawn_charts import charts, places, values

from epochal.tasks.report.page.charts.spans import draw_heat, draw_stack


def test_a_heat_map_has_a_row_for_each_name_the_first_at_the_top():
    made = charts()
    chart = draw_heat(
        made,
        "Norms",
        ["body", "{head}"],
        np.array([[1.0, 4.0, np.nan], [0.0, 2.0, 8.0]]),
        left=places([0, 1, 2]),
        right=places([1, 2, 3]),
    )
    plot = made._roots[0][1]
    assert isinstance(plot.y_range, Range1d)
    assert (plot.y_range.start, plot.y_range.end) == (2, 0)
    rows = [(one.name, one.glyph.bottom, one.glyph.top) for one in plot.renderers]
    assert rows == [("body", 0, 1), ("(head)", 1, 2)]
    cells = values(plot.renderers[1], "(head)")
    assert (np.isnan(cells[0]), cells[1:]) == (True, [2.0, 8.0])  # 0 has no logarithm
    assert values(plot.renderers[0], "left_update") == [0, 10, 20]
    assert values(plot.renderers[0], "right_time") == [2, 4, 6]
    mapper = plot.renderers[0].glyph.fill_color.transform
    assert (mapper.low, mapper.high) == (1.0, 8.0)
    assert chart.rows == [["body", "1", "4", "1", "4"], ["{head}", "2", "8", "2", "8"]]
    nothing = draw_heat(
        made, "Norms", ["x"], np.array([[np.nan]]), left=places([0]), right=places([1])
    )
    assert nothing is None


def test_what_adds_up_is_stacked():
    made = charts()
    chart = draw_stack(made,
        "Seconds", {"data": [1.0, 2.0], "lost": [3.0, 0.0]}, left=places([0, 1]),
        right=places([1, 2]),
    )  # fmt: skip
    data, lost = made._roots[0][1].renderers
    ends = [values(one, one.glyph.top) for one in (data, lost)]
    assert ends == [[1.0, 2.0], [4.0, 2.0]]
    assert values(lost, lost.glyph.bottom) == [1.0, 2.0]
    assert chart.rows == [["data", "3.00", "50.0%"], ["lost", "3.00", "50.0%"]]
