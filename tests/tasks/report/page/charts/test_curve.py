"""A curve of a bounded number of points: means, and between low and high all values."""

import numpy as np
import pytest

from epochal.tasks.report.page.charts.curve import Curve


def test_a_long_curve_has_means_and_between_low_and_high_all_values():
    curve, values = Curve("x"), np.random.default_rng(0).normal(size=5000)
    values[17] = np.nan
    curve.extend(np.arange(1, 5001), values, buckets=2000)
    assert len(curve.x) == 2000
    assert (min(curve.low), max(curve.high)) == (np.nanmin(values), np.nanmax(values))
    assert curve.has_band
    assert np.average(curve.mean, weights=curve.count) == pytest.approx(np.nanmean(values))


def test_a_point_of_several_updates_lies_in_their_middle():
    curve = Curve("x")
    curve.extend(np.array([1, 2, 3, 4, 5, 6]), np.arange(6.0), buckets=2)
    assert (curve.x, curve.mean, curve.count) == ([2.0, 5.0], [1.0, 4.0], [3, 3])
    assert (curve.low, curve.high) == ([0.0, 3.0], [2.0, 5.0])


def test_points_that_are_thinned_keep_the_extremes_and_the_mean_of_all_values():
    curve = Curve(
        "x", [1.0, 4.0, 8.0], [1.0, 4.0, 2.0], [1.0, -9.0, 2.0], [1.0, 5.0, 7.0], [1, 5, 2]
    )
    one = curve.thinned(1)
    assert (one.low, one.high, one.count) == ([-9.0], [7.0], [8])
    assert one.mean == pytest.approx([(1 + 5 * 4 + 2 * 2) / 8])
    assert one.x == pytest.approx([(1 + 5 * 4 + 2 * 8) / 8])
    assert curve.thinned(3) is curve


def test_what_is_not_finite_is_left_out_of_a_curve():
    curve = Curve("y")
    curve.extend(np.array([4, 5]), np.array([1.0, np.inf]), buckets=10)
    assert (curve.x, curve.mean, curve.has_band) == ([4.0], [1.0], False)
