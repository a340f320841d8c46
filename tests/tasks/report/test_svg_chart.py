"""A line chart, by what its SVG shows: points read back by the ticks of its axes."""

import math
import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from epochal.tasks.report.curves import Curve
from epochal.tasks.report.page import render
from epochal.tasks.report.svg_chart import HEIGHT, WIDTH, line_chart, short, ticks


def curve(name, x, values, low=None, high=None):
    return Curve(name, list(map(float, x)), values, low or values, high or values)


class Shown:
    """The SVG read again: places as values, by two ticks of each axis."""

    def __init__(self, curves, *, x_label="epoch", logarithmic=False, **options):
        chart = line_chart(curves, x_label=x_label, **options)
        self.svg = ET.fromstring(render("line_chart.svg", chart=chart))
        self.logarithmic = logarithmic
        *self.x_ticks, self.x_label = self.texts("x")
        self.y_ticks = self.texts("y")

    def texts(self, name):
        return [
            (float(text.get("x")), float(text.get("y")), text.text)
            for text in self.svg.iter("text")
            if text.get("class") == name
        ]

    def paths(self, name):
        return [one for one in self.svg.iter("path") if one.get("class").split()[0] == name]

    def values(self, path):
        """The points of a path as (x, y) in the units of the curves."""
        number = r"(-?[\d.]+)"
        places = re.findall(f"{number} {number}", path.get("d"))
        return [(self.x_of(float(x)), self.y_of(float(y))) for x, y in places]

    def x_of(self, place):
        known = [(x, float(text)) for x, _, text in self.x_ticks]
        return _between(known[0], known[-1], place)

    def y_of(self, place):
        known = [(y, float(text)) for _, y, text in self.y_ticks]
        if not self.logarithmic:
            return _between(known[0], known[-1], place)
        known = [(y, math.log10(value)) for y, value in known]
        return 10 ** _between(known[0], known[-1], place)


def _between(first, last, place):
    share = (place - first[0]) / (last[0] - first[0])
    return first[1] + share * (last[1] - first[1])


@pytest.mark.parametrize(
    ("values", "logarithmic", "linear"),
    [
        ([1.0, 4.0, 2.0, 3.0], False, False),
        ([-3.0, 4.0, 0.0, 1.0], False, False),
        ([8.0, 0.5, 0.02, 0.001], True, False),
        ([8.0, 0.5, 0.02, 0.001], False, True),
    ],
)
def test_each_point_lies_where_the_axes_say_its_value_is(values, logarithmic, linear):
    shown = Shown([curve("loss", range(4), values)], logarithmic=logarithmic, linear=linear)
    (line,) = shown.paths("line")
    tolerance = {"rel": 0.02} if logarithmic else {"abs": 0.01 * max(map(abs, values))}
    assert [x for x, _ in shown.values(line)] == pytest.approx([0, 1, 2, 3], abs=0.01)
    assert [y for _, y in shown.values(line)] == pytest.approx(values, **tolerance)
    heights = [y for _, y, _ in shown.y_ticks]
    assert heights == sorted(heights, reverse=True)  # larger values are higher up
    places = [x for x, _, _ in shown.x_ticks]
    assert places == sorted(places)


def test_the_axis_of_x_says_what_it_counts_and_has_whole_numbers():
    shown = Shown([curve("loss", range(3), [1.0, 2.0, 3.0])], x_label="update")
    assert [text for _, _, text in shown.x_ticks] == ["0", "1", "2"]
    assert shown.x_label[2] == "update"
    assert shown.x_label[1] > max(y for _, y, _ in shown.x_ticks)
    assert shown.svg.get("viewBox") == f"0 0 {WIDTH} {HEIGHT}"
    assert shown.svg.get("aria-label") == "loss"


def test_a_point_tells_its_curve_where_it_is_and_its_value():
    shown = Shown([curve("a <loss>", [10, 20], [0.123456789, 3.0])])
    circles = list(shown.svg.iter("circle"))
    assert [circle[0].text for circle in circles] == [
        "a <loss> at 10: 0.123457", "a <loss> at 20: 3"
    ]  # fmt: skip
    (line,) = shown.paths("line")
    for circle, (x, y) in zip(circles, shown.values(line), strict=True):
        assert shown.x_of(float(circle.get("cx"))) == pytest.approx(x)
        assert shown.y_of(float(circle.get("cy"))) == pytest.approx(y)
    many = Shown([curve("loss", range(61), [float(x) for x in range(61)])])
    assert not list(many.svg.iter("circle"))


def test_a_band_goes_along_the_highest_values_and_back_along_the_lowest():
    mean, low, high = [2.0, 3.0, 2.5], [1.0, 2.0, 2.4], [4.0, 3.5, 2.6]
    shown = Shown([curve("loss", range(3), mean, low, high), curve("other", range(3), mean)])
    (band,) = shown.paths("band")
    x_values, y_values = zip(*shown.values(band), strict=True)
    assert x_values == pytest.approx((0, 1, 2, 2, 1, 0), abs=0.01)
    assert y_values == pytest.approx([*high, *reversed(low)], abs=0.02)
    assert band.get("d").endswith("Z")
    line, other = shown.paths("line")
    assert [y for _, y in shown.values(line)] == pytest.approx(mean, abs=0.02)
    assert band.get("class").split()[1] == line.get("class").split()[1] != other.get("class")


def test_curves_share_one_frame_and_have_a_colour_each():
    curves = [curve(f"c{number}", [number, 9], [float(number), 5.0]) for number in range(9)]
    shown = Shown([*curves, Curve("without points")])
    lines = shown.paths("line")
    colours = [line.get("class").split()[1] for line in lines]
    assert colours == [*(f"c{number}" for number in range(8)), "c0"]
    for number, line in enumerate(lines):
        first, last = shown.values(line)
        assert first == pytest.approx((number, number), abs=0.05)
        assert last == pytest.approx((9, 5), abs=0.05)


@pytest.mark.parametrize(
    "values", [[1.0], [0.0, 0.0], [1e-9, 1e9], [-1e300, 1e300], [-3.0, 4.0], [5e-324, 1.0]]
)
def test_every_range_of_values_has_a_chart(values):
    same = [curve(name, range(len(values)), values) for name in ("x", "y")]
    svg = render("line_chart.svg", chart=line_chart(same, x_label="update"))
    assert "nan" not in svg
    assert "inf" not in svg
    assert line_chart([Curve("none")], x_label="update") is None


def test_ticks_are_round_numbers_within_the_range():
    assert ticks(0, 10, most=6) == [0, 2, 4, 6, 8, 10]
    assert ticks(0.13, 0.94, most=6) == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert ticks(2, 2, most=6) == []
    written = [short(value) for value in (1e-5, 0.25, 12345, 1e12)]
    assert written == ["1e-5", "0.25", "1.234e4", "1e12"]
    assert np.allclose(ticks(0, 3e-7, most=6), [0, 1e-7, 2e-7, 3e-7])
