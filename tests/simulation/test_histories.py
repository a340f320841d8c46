"""Histories in the simulator: a sample, each of which must end in the bytes of an unbroken run."""

import pytest
from support.histories.draw import drawn
from support.histories.history import Fault, History, Life
from support.simulator import run

MANY = Life(
    2,
    (Fault("store", "lost_answer", 0.4), Fault("channel", "delay", 0.5)),
    (("second", 0.2), ("gc", 0.5), ("verify", 0.7)),
)
"""Two ranks, another command, `gc` and `verify` at the same time."""
POWER = Life(faults=(Fault("disk", "power", 0.5),))
CONFIG = {
    "seed": 5,
    "epochs": 2,
    "loader": {"batch_size": 4},
    "gradients": {"accumulate": 2, "shards": 2},
    "sampling": {"policy": "easy_skip", "confidence": 0.5, "final_full": 0},
}


def _ended(seed, *lives):
    return run.ended(History(seed, CONFIG, lives))


def test_one_history_is_one_story():
    first, again = _ended(7, MANY), _ended(7, MANY)
    assert first.right, first
    assert first == again
    assert _ended(8, MANY).trace != first.trace


@pytest.mark.slow
def test_so_it_is_after_a_loss_of_power():
    first, again = _ended(7, POWER, MANY), _ended(7, POWER, MANY)
    assert first.right, first
    assert first == again


@pytest.mark.slow
def test_every_kind_of_fault_can_be_met_and_leaves_the_same_bytes():
    not_met = []
    for where, kinds in run.FAULTS.items():
        for kind in kinds:
            ending = _ended(1, Life(faults=(Fault(where, kind, 0.3),)))
            assert ending.right, (where, kind, ending)
            if not all(ending.reached):
                not_met.append((where, kind))
    assert not_met == []


def test_an_unknown_kind_is_refused():
    with pytest.raises(RuntimeError, match="the simulator itself failed"):
        _ended(1, Life(faults=(Fault("store", "moonlight", 0.3),)))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 200, 20))
def test_drawn_histories_end_right(first):
    for seed in range(first, first + 20):
        ending = run.ended(drawn(seed, faults=run.FAULTS))
        assert ending.right, ending
