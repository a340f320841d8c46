"""How fast a run goes and what is left of it, by a clock that the test turns."""

import pytest

from epochal.flows.terminal.pace import EpochPace, RunPace, clock_text


def test_the_speed_of_an_epoch_is_that_of_its_last_updates():
    pace = EpochPace(100)
    assert pace.left_s(0.0) is None
    for second in range(11):
        pace.moved(second, 32 * second, now=float(second))
    assert pace.samples_per_second == 32
    assert pace.left_s(10.0) == 90
    for second in range(11, 60):  # it has become ten times slower
        pace.moved(10 + second // 10, 320 + 3 * second, now=float(second))
    assert pace.samples_per_second == pytest.approx(3.0)
    assert pace.left_s(59.0) > 500


def test_a_second_without_a_sign_is_a_second_less():
    pace = EpochPace(10)
    pace.moved(0, 0, now=0.0)
    pace.moved(1, 8, now=2.0)
    assert pace.left_s(2.0) == 18
    assert pace.left_s(5.0) == 15
    assert pace.left_s(500.0) == 0


def epoch(run, number, *, at, trained, whole):
    run.began(number, now=at)
    run.trained(trained)
    run.ended(now=at + whole)


def test_a_run_is_told_by_its_first_epoch_and_then_by_those_that_are_done():
    run = RunPace(missing={0, 1, 2, 3})
    assert run.left_s(None, now=0.0) is None
    run.began(0, now=0.0)
    pace = EpochPace(10)
    pace.moved(0, 0, now=0.0)
    pace.moved(5, 40, now=5.0)
    assert run.left_s(pace, now=5.0) == 5 + 3 * 10
    run.trained(10.0)
    assert run.left_s(pace, now=10.0) == 30  # validation has never been seen
    run.began(1, now=14.0)  # it took 4 s
    assert run.left_s(None, now=14.0) == 3 * 14
    fresh = EpochPace(10)
    fresh.moved(0, 0, now=14.0)
    fresh.moved(5, 40, now=19.0)
    assert run.left_s(fresh, now=19.0) == 5 + 4 + 2 * 14


def test_an_epoch_that_was_half_done_before_tells_nothing_of_whole_ones():
    run = RunPace(missing={3, 4})
    run.began(3, now=0.0)
    run.resumed()
    run.trained(1.0)
    run.began(4, now=2.0)
    assert run.left_s(None, now=2.0) is None


def test_only_the_last_epochs_count():
    run = RunPace(missing=set(range(10)))
    for number, seconds in enumerate([100.0, 10.0, 10.0, 10.0]):
        epoch(run, number, at=100.0 * number, trained=seconds, whole=seconds)
    run.began(4, now=500.0)
    assert run.left_s(None, now=500.0) == 6 * 10


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(7.2, "0:07"), (59.7, "1:00"), (750, "12:30"), (11100, "3:05:00"), (183900, "2 d 03:05")],
)
def test_times_are_short(seconds, text):
    assert clock_text(seconds) == text
