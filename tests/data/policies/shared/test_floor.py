"""The floor: of each class so many at least, rounded up, and the hardest of it come back first."""

import numpy as np

from epochal.data.policies.shared.floor import needed, raise_to_floor


def test_a_class_needs_its_share_rounded_up_but_for_the_last_bit_of_a_float():
    total = np.array([30, 31, 1, 0])
    assert needed(total, np.zeros(4, np.int64), floor=0.1).tolist() == [3, 4, 1, 0]
    assert needed(total, np.array([3, 0, 1, 0]), floor=1.0).tolist() == [27, 31, 0, 0]


def test_the_hardest_of_a_class_come_back_and_suspects_only_after_all_others():
    columns = {
        "sample_id": np.arange(8),
        "label": np.array([0, 0, 0, 0, 1, 1, 1, 1]),
        "loss": np.array([1, 4, 3, 2, 1, 4, 3, 2], np.float32),
    }
    raised = raise_to_floor(
        columns, np.zeros(8, bool), floor=0.5, epoch=1, seed=7, last_N=np.arange(8) == 5
    )
    assert np.flatnonzero(raised).tolist() == [1, 2, 6, 7]
