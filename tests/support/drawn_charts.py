"""Charts of a page without a run: curves at made-up places, and what was drawn, by its tags."""

import numpy as np

from epochal.tasks.report.page.charts.curve import AXES, Curve
from epochal.tasks.report.page.charts.lines import Line
from epochal.tasks.report.page.charts.plot import Charts

ENDS = {"update": 30.0, "epoch": 3.0, "time": 6.0, "samples": 300.0}


def charts(*runs):
    """Charts of a page of three epochs, 30 updates, six seconds."""
    return Charts({axis: (0.0, ENDS[axis]) for axis in AXES}, runs or ("a@1",))


def places(epochs):
    return {axis: np.asarray(epochs, dtype=float) * ENDS[axis] / 3 for axis in AXES}


def curve(name, values, low=None, high=None):
    x = [10.0 * (number + 1) for number in range(len(values))]
    return Curve(name, x, values, low or values, high or values, [1] * len(values))


def line(name, values, *, run=0, kind=0, **band):
    found = curve(name, values, **band)
    return Line(found, places([one / 10 for one in found.x]), run, kind)


def drawn(made, number=0):
    """Renderers of a chart by the tags that say what they are."""
    plot = made._roots[number][1]
    return {tuple(renderer.tags): renderer for renderer in plot.renderers}


def values(renderer, name):
    return renderer.data_source.data[name].tolist()
