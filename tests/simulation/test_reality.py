"""The model is held to reality: the same histories here and by forked processes on real files."""

import pytest
from support.histories.draw import FAULTS, SEEDS_OF_A_CONFIG, drawn, drawn_config
from support.histories.forked import Forked
from support.histories.history import History
from support.simulator import run

COMMON = {"store": FAULTS["store"], "process": FAULTS["process"]}
"""Kinds that both know: others are of the simulator alone, or below its store."""


def _left_by_both(number, folder):
    """What an unbroken run leaves: by forked processes, and here."""
    config = drawn_config(number)
    real = Forked(folder).unbroken(config).found
    simulated = run.unbroken_of(History(0, config, ())).left
    return [
        {name: left[name] for name in ("digests", "records", "objects")}
        for left in (real, simulated)
    ]


def test_an_unbroken_run_leaves_the_same_bytes(tmp_path):
    real, simulated = _left_by_both(1, tmp_path)
    assert simulated == real


@pytest.mark.slow
@pytest.mark.parametrize("number", range(2, 8))
def test_unbroken_runs_of_more_configs_leave_the_same_bytes(number, tmp_path):
    real, simulated = _left_by_both(number, tmp_path)
    assert simulated == real


@pytest.mark.slow
@pytest.mark.parametrize("number", range(4))
def test_the_same_faults_end_alike(number, tmp_path):
    forked = Forked(tmp_path)
    first = number * SEEDS_OF_A_CONFIG
    for seed in range(first, first + 3):
        history = drawn(seed, faults=COMMON)
        real, simulated = forked.ended(history), run.ended(history)
        assert (real.right, simulated.right) == (True, True), (history.dump(), real, simulated)
