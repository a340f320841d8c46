"""Bars of runs, samples on a map, the tree of epochs: where each of them lies."""

import numpy as np
import pytest
from support.drawn_charts import charts, drawn, values

from epochal.tasks.report.page.charts.own_axes import (
    TreeNode,
    draw_bars,
    draw_points,
    draw_tree,
)


def test_bars_of_runs_lie_behind_each_other():
    made = charts("a@1", "b@1")
    chart = draw_bars(made, "Seconds", {"data": [1.0, 2.0], "lost": [3.0, 0.0]})
    data, lost = made._roots[0][1].renderers
    assert values(lost, lost.glyph.left) == values(data, data.glyph.right) == [1.0, 2.0]
    assert values(lost, lost.glyph.right) == [4.0, 2.0]
    assert chart.label == "Seconds: a@1: 4.0 s; b@1: 2.0 s"


def test_samples_of_a_state_are_points_of_their_own():
    made = charts()
    columns = {"x": np.array([0.1, 0.2]), "y": np.array([0.9, 0.3]), "sample": ["7", "8"]}
    chart = draw_points(
        made, "Map", {"kept": np.array([1]), "lost": np.array([0])}, columns, [3, 1]
    )
    found = drawn(made)
    assert values(found["kind-0", "colour-0", "area"], "y") == pytest.approx([0.3])
    assert found["kind-0", "colour-0", "area"].data_source.data["sample"] == ["8"]
    assert [kind.values for kind in chart.kinds] == [["3 · 75.0%"], ["1 · 25.0%"]]


def test_a_tree_has_a_dot_for_each_epoch_and_an_edge_to_the_one_before():
    nodes = [
        TreeNode(0, 0, None, 0, done=True, key="k0", runs="a@1, a@2", shared=True),
        TreeNode(1, 0, (0, 0), 0, done=True, key="k1", runs="a@1", shared=False),
        TreeNode(1, 1, (0, 0), None, done=False, key="k2", runs="a@2", shared=False),
    ]
    made = charts()
    chart = draw_tree(made, "Lineage", nodes, ["a@1", "a@2"])
    found = drawn(made)
    edges = found["colour-soft", "line"].data_source.data
    assert [edges[name] for name in ("x0", "y0", "x1", "y1")] == [[0], [0], [1], [1]]
    done, planned = found["colour-0", "marks"], found["colour-soft", "ring"]
    assert done.data_source.data["key"] == ["k0", "k1"]
    sizes = done.data_source.data["size"]
    assert sizes[0] > sizes[1]
    assert planned.data_source.data["state"] == ["not done yet"]
    assert chart.label == "Lineage: a tree of 3 epochs of a@1, a@2; 1 of them are shared"
