"""Curves of epochs and of updates: where their points are, and how many."""

import numpy as np
import pytest

from epochal.tasks.report.curves import MAX_BUCKETS, Curve, _extend, epoch_curves
from epochal.tasks.runs.summary import EpochRow


def test_a_long_curve_has_means_and_between_low_and_high_all_values():
    curve, values = Curve("x"), np.random.default_rng(0).normal(size=5000)
    values[17] = np.nan
    _extend(curve, np.arange(1, 5001), values, buckets=MAX_BUCKETS)
    assert len(curve.x) == MAX_BUCKETS
    assert (min(curve.low), max(curve.high)) == (np.nanmin(values), np.nanmax(values))
    assert curve.has_band
    assert np.mean(curve.mean) == pytest.approx(np.nanmean(values), abs=0.01)


def test_a_point_of_several_updates_lies_in_their_middle():
    curve = Curve("x")
    _extend(curve, np.array([1, 2, 3, 4, 5, 6]), np.arange(6.0), buckets=2)
    assert (curve.x, curve.mean) == ([2.0, 5.0], [1.0, 4.0])
    assert (curve.low, curve.high) == ([0.0, 3.0], [2.0, 5.0])


def test_what_is_not_finite_is_left_out_of_a_curve():
    curve = Curve("y")
    _extend(curve, np.array([4, 5]), np.array([1.0, np.inf]), buckets=10)
    assert (curve.x, curve.mean, curve.has_band) == ([4.0], [1.0], False)


def test_curves_of_epochs_have_a_point_for_each_epoch_that_has_the_value():
    rows = [
        EpochRow(epoch, loss, metrics, *[None] * 6)
        for epoch, loss, metrics in (
            (0, 2.0, {"accuracy": 0.5}),
            (1, None, {"accuracy": 0.75, "top5": None}),
            (2, 1.0, {}),
        )
    ]
    curves = epoch_curves(rows)
    points = {name: (curve.x, curve.mean) for name, curve in curves.items()}
    assert points == {
        "train/loss": ([0.0, 2.0], [2.0, 1.0]),
        "validation/accuracy": ([0.0, 1.0], [0.5, 0.75]),
    }
    assert not any(curve.has_band for curve in curves.values())
