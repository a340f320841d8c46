"""The pool: who may be left out at all, and the highest of a column with equal ones by lot."""

import numpy as np
import pytest

from epochal.data.policies.shared.pool import PlanContext, highest, make_pool


def test_who_was_never_seen_has_no_finite_loss_or_score_or_is_due_is_not_in_it():
    columns = {
        "sample_id": np.arange(6),
        "epoch_seen": np.array([-1, 0, 0, 0, 0, 0]),
        "loss": np.array([1, np.nan, 1, 1, 1, 1], np.float32),
    }
    pool = make_pool(
        columns,
        PlanContext(epoch=1, full=False, seed=7, budget=0.5),
        score_N=np.array([1, 1, np.nan, 1, 1, 1], np.float32),
        due_N=np.arange(6) == 3,
        suspect_N=np.arange(6) == 4,
    )
    assert pool.rows_R.tolist() == [5]
    assert (pool.total, pool.forced, pool.picks) == (6, 4, 0)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]])
def test_equal_ones_are_chosen_by_lot_whatever_the_order_of_rows(order):
    score, lot = np.array([1.0, 1.0, 2.0, 1.0]), np.array([9, 4, 8, 6], np.uint64)
    chosen = highest(score[order], lot[order], count=3)
    assert sorted(np.array(order)[chosen].tolist()) == [1, 2, 3]
