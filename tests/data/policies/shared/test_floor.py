"""The floor: of each class so many at least, rounded up, and the hardest of it come back first."""

import numpy as np
import pytest

from epochal.data.policies.shared.floor import raise_to_floor


@pytest.mark.parametrize(
    ("floor", "kept_C", "expected_C"),
    [(0.1, [0, 0, 0], [3, 4, 1]), (1.0, [3, 0, 1], [30, 31, 1]), (0.1, [5, 0, 1], [5, 4, 1])],
)
def test_a_class_needs_its_share_rounded_up_but_for_the_last_bit_of_a_float(
    floor, kept_C, expected_C
):
    sizes_C = [30, 31, 1]
    label_N = np.repeat(np.arange(3), sizes_C)
    keep_N = np.concatenate(
        [np.arange(size) < kept for size, kept in zip(sizes_C, kept_C, strict=True)]
    )
    columns = {"sample_id": np.arange(62), "label": label_N, "loss": np.ones(62, np.float32)}
    raised = raise_to_floor(
        columns, keep_N, floor=floor, epoch=1, seed=7, last_N=np.zeros(62, bool)
    )
    assert np.bincount(label_N[raised], minlength=3).tolist() == expected_C


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
