"""Wrong labels: the share among the most confident, and those of lowest margin."""

import numpy as np
import pytest

from epochal.data.policies.shared.label_noise import noise_rate, suspects
from epochal.data.samples.table import FLAG_SUSPECT


def table(**columns):
    """Ten samples that were seen twice; the three most confident are 7, 8 and 9."""
    count = 10
    return {
        "sample_id": np.arange(count),
        "label": np.zeros(count, np.int64),
        "epoch_seen": np.zeros(count, np.int32),
        "n_seen": np.full(count, 2, np.int32),
        "confidence": np.linspace(0.1, 1, count, dtype=np.float32),
        "correct": np.ones(count, bool),
        "margin_sum": np.arange(count, dtype=np.float32),
        "flags": np.zeros(count, np.uint8),
        **columns,
    }


@pytest.mark.parametrize(
    ("wrong", "rate"), [([9], 1 / 3), ([7, 8, 9], 1.0), ([0, 1, 2, 3], 0.0), ([], 0.0)]
)
def test_the_rate_is_that_of_the_most_confident(wrong, rate):
    correct = ~np.isin(np.arange(10), wrong)
    assert noise_rate(table(correct=correct)) == pytest.approx(rate)


def test_where_nothing_with_a_class_was_seen_there_is_no_rate():
    assert noise_rate(table(label=np.full(10, -1))) is None
    assert noise_rate(table(epoch_seen=np.full(10, -1))) is None


def test_suspects_are_those_of_lowest_mean_margin_as_many_as_the_rate_says():
    found = suspects(table(correct=np.arange(10) != 9), noise="estimate", seed=7)
    assert np.flatnonzero(found).tolist() == [0, 1, 2]


def test_frozen_suspects_are_as_many_as_were_flagged_and_go_by_the_mean():
    often = np.array([2, 2, 40] + [2] * 7, np.int32)
    flags = np.where(np.arange(10) < 2, FLAG_SUSPECT, 0).astype(np.uint8)
    found = suspects(table(n_seen=often, flags=flags), noise="frozen", seed=7)
    assert np.flatnonzero(found).tolist() == [0, 2]
