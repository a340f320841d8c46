"""A process that holds the others up is named with its host."""

import pytest

from epochal.tasks.computing import stragglers
from epochal.tasks.computing.stragglers import RankClock, RankTime, straggler


def times(*seconds, samples=100, data_s=1.0):
    return [RankTime(f"host-{rank}", one, data_s, samples) for rank, one in enumerate(seconds)]


def test_the_slowest_is_named_with_its_host_and_share_of_data():
    text = straggler(times(10, 20, 9, data_s=15))
    assert text.startswith("rank 1 on host-1 takes 2.1 times")
    assert "75% of it waiting for data" in text


@pytest.mark.parametrize(
    "told",
    [
        times(10, 14),  # less than half as much again
        times(1, 4),  # too short to tell
        [*times(10), RankTime("b", 20, 0, 200)],  # as quick, with twice the samples
        [*times(10), RankTime("b", 0.0, 0, 0)],  # one that had no part of the epoch
    ],
)
def test_nobody_is_named_where_all_are_alike(told):
    assert straggler(told) is None


def test_the_time_in_which_others_are_waited_for_is_nobodys(monkeypatch):
    now, words = [0.0], []
    monkeypatch.setattr(stragglers.time, "perf_counter", lambda: now[0])
    clock = RankClock(words.append)
    for phase, seconds in (("data", 1), ("forward_backward", 2), ("optimizer", 4), ("data", 8)):
        clock(phase)
        now[0] += seconds
    clock("forward_backward")
    assert clock.seconds == {"data": 9, "forward_backward": 2}
    assert words == ["data", "forward_backward", "optimizer", "data", "forward_backward"]
