"""Weights against a bias of who is kept: their mean is one, and none is above the highest."""

import numpy as np
import pytest

from epochal.data.policies.shared.difficulty import inverse_weights


def test_weights_are_inverse_probabilities_over_their_mean():
    probability = np.array([0.5, 0.25, 1.0, 0.1], np.float32)
    keep = np.array([True, True, True, False])
    found = inverse_weights(probability, keep, highest=3.0)
    assert found[:3] == pytest.approx(np.array([2, 3, 1]) / 2)
    assert found[3] == 1
    assert (inverse_weights(probability, keep, highest=1.0) == 1).all()
