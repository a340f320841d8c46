"""The picture of loss and gradient norm on Prefect's page."""

import math
import re
import xml.etree.ElementTree as ET

import pytest

from epochal.flows.flow_run.curves import MAX_POINTS, curves_svg
from epochal.tasks.runs.summary import EpochRow


def rows(losses, norms=None):
    return [
        EpochRow(
            epoch=epoch, loss=loss, metrics={"loss": loss, "accuracy": 0.5},
            gradient_norm=(norms or losses)[epoch], trained=1, kept_next=1, total=1, seconds=1.0,
            cached=False,
        )
        for epoch, loss in enumerate(losses)
    ]  # fmt: skip


def lines(svg):
    root = ET.fromstring(svg)
    return [one.get("points").split() for one in root.iter("{http://www.w3.org/2000/svg}polyline")]


def test_each_line_has_a_point_for_each_epoch_inside_the_picture():
    drawn = lines(curves_svg(rows([1.5, 0.7, 0.4, 0.3])))
    assert [len(line) for line in drawn] == [4, 4, 4]
    for line in drawn:
        heights = [float(point.partition(",")[2]) for point in line]
        assert heights == sorted(heights)  # falls
        assert all(0 < height < 260 for height in heights)


@pytest.mark.parametrize(
    "losses",
    [[1.0], [0.0, 0.0], [1e-30, 1e30], [2.0, math.inf, math.nan, 1.0], [None, None], [-3.0, 5.0]],
)
def test_any_values_give_a_picture_without_a_number_that_is_none(losses):
    svg = curves_svg(rows(losses))
    ET.fromstring(svg)
    assert not re.search(r"\b(nan|inf|None)\b", svg)


def test_thousands_of_epochs_are_thinned_and_end_with_the_last():
    drawn = lines(curves_svg(rows([1 + 1 / (epoch + 1) for epoch in range(3000)])))
    assert all(MAX_POINTS / 2 < len(line) <= MAX_POINTS + 1 for line in drawn)
    assert all(line[-1].startswith("408.0,") for line in drawn)
