"""Revisit: nobody is unseen for longer than that, and returns are spread over the epochs."""

import numpy as np
import pytest

from epochal.data.policies.shared.revisit import is_due, may_rest

IDS = np.arange(4000)


def resting(epoch, *, seen, revisit=3):
    return may_rest(IDS, np.full(len(IDS), seen, np.int32), epoch=epoch, revisit=revisit, seed=7)


def test_who_was_unseen_for_so_many_epochs_does_not_rest():
    assert resting(10, seen=7).any()  # unseen in 8 and 9
    assert not resting(10, seen=6).any()  # in 7, 8 and 9


@pytest.mark.parametrize("revisit", [1, 3])
def test_in_each_epoch_another_part_comes_back_and_each_sample_once_in_turn(revisit):
    back = np.array(
        [~resting(epoch, seen=epoch - 1, revisit=revisit) for epoch in range(4, 5 + revisit)]
    )
    assert (back.sum(0) == 1).all()
    assert np.allclose(back.mean(1), 1 / (revisit + 1), atol=0.05)


def test_without_phases_only_those_are_due_whose_time_is_over():
    seen = np.array([5, 6, 7, 9], np.int32)
    due = is_due(np.arange(4), seen, epoch=10, revisit=3, seed=7, phases=False)
    assert due.tolist() == [True, True, False, False]
