"""A stage at work by a clock of the test's own: what it cost, over kills, failures and resumes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.stores.malformed_bytes import STRANGE

from epochal.tasks.goodput.sign_of_life import Sign, SignOfLife
from epochal.tasks.goodput.stage import StageGoodput
from epochal.tasks.goodput.stopwatch import Stopwatch
from epochal.tasks.goodput.totals import checked_totals

KEY, OTHER = "a" * 64, "b" * 64
S = 1_000_000_000


class Process:
    """One process that computes stages; `spend` moves its clock."""

    def __init__(self, path=None):
        self.now = 0
        signs = None if path is None else SignOfLife(path)
        self.goodput = StageGoodput(signs, watch=Stopwatch("orchestration", clock=lambda: self.now))

    def spend(self, cause, seconds):
        self.goodput.watch.switch(cause)
        self.now += round(seconds * S)
        self.goodput._sign()  # as if each of them took a second

    def ended(self):
        return checked_totals(self.goodput.ended())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "alive.json"


def test_a_stage_has_its_causes_and_the_time_since_the_one_before():
    process = Process()
    process.now += 2 * S
    process.goodput.begin(KEY, "orchestration")
    process.spend("data", 1)
    process.spend("forward_backward", 5)
    process.spend("commit", 2)
    process.goodput.trained(60)
    first = process.ended()
    assert first.seconds == {
        "orchestration": 2, "data": 1, "forward_backward": 5, "commit": 2,
    }  # fmt: skip
    assert (first.samples, first.samples_per_second, first.resumed) == (60, 10, 0)
    assert first.peak_host_bytes > 1 << 20
    process.spend("commit", 0.5)  # the record itself
    process.spend("orchestration", 3)
    process.goodput.begin(OTHER, "validation")
    process.now += 4 * S
    second = process.ended()
    assert second.seconds == {"commit": 0.5, "orchestration": 3, "validation": 4}
    assert second.samples == 0


def test_what_a_killed_process_did_after_its_last_commit_is_lost_and_no_more(path):
    killed = Process(path)
    killed.goodput.begin(KEY, "orchestration")
    killed.spend("forward_backward", 10)
    carried = killed.goodput.carry(100)
    killed.spend("forward_backward", 7)
    killed.now += 100 * S  # of these it could not tell any more
    after = Process(path)
    after.goodput.begin(KEY, "orchestration")
    after.goodput.go_on(carried, rows=100)
    after.spend("forward_backward", 10)
    after.goodput.trained(200)
    found = after.ended()
    assert found.seconds == {"forward_backward": 20, "lost": 7}
    assert (found.samples, found.resumed, found.unknown_losses) == (200, 1, 0)
    assert not path.exists()


def test_a_process_that_commits_because_it_is_told_to_stop_loses_nothing(path):
    stopped = Process(path)
    stopped.goodput.begin(KEY, "orchestration")
    stopped.spend("commit", 1)
    stopped.spend("forward_backward", 10)
    carried = stopped.goodput.carry(100)
    stopped.spend("commit", 20)  # until it is durable
    stopped.goodput.failed()
    after = Process(path)
    after.goodput.begin(KEY, "orchestration")
    after.goodput.go_on(carried, rows=100)
    found = after.ended()
    assert found.seconds == {"forward_backward": 10, "commit": 21}
    assert (found.resumed, found.unknown_losses) == (1, 0)


def test_a_process_killed_before_any_commit_has_lost_all_that_it_had_done(path):
    for lost in (3, 8):
        killed = Process(path)
        killed.goodput.begin(KEY, "orchestration")
        killed.spend("data", lost)
    after = Process(path)
    after.goodput.begin(KEY, "orchestration")
    after.spend("data", 1)
    found = after.ended()
    assert found.seconds == {"data": 1, "lost": 11}
    assert (found.resumed, found.unknown_losses) == (2, 0)


def test_kills_one_after_the_other_from_the_same_commit_add_up(path):
    first = Process(path)
    first.goodput.begin(KEY, "orchestration")
    first.spend("data", 10)
    carried = first.goodput.carry(10)
    first.spend("data", 2)
    for seconds in (3, 4):
        again = Process(path)
        again.goodput.begin(KEY, "orchestration")
        again.goodput.go_on(carried, rows=10)
        again.spend("data", seconds)
    last = Process(path)
    last.goodput.begin(KEY, "orchestration")
    last.goodput.go_on(carried, rows=10)
    found = last.ended()
    assert found.seconds == {"data": 10, "lost": 9}
    assert (found.resumed, found.unknown_losses) == (3, 0)


def test_an_older_commit_is_gone_on_from_where_the_newest_was_not_durable(path):
    killed = Process(path)
    killed.goodput.begin(KEY, "orchestration")
    killed.spend("data", 5)
    older = killed.goodput.carry(5)
    killed.spend("data", 5)
    killed.goodput.carry(10)
    killed.spend("data", 1)
    after = Process(path)
    after.goodput.begin(KEY, "orchestration")
    after.goodput.go_on(older, rows=5)
    assert after.ended().seconds == {"data": 5, "lost": 6}


def test_of_another_machine_nothing_is_guessed(path):
    killed = Process(path)
    killed.goodput.begin(KEY, "orchestration")
    killed.spend("data", 10)
    carried = killed.goodput.carry(10)
    killed.spend("data", 50)
    elsewhere = Process()
    elsewhere.goodput.begin(KEY, "orchestration")
    elsewhere.goodput.go_on(carried, rows=10)
    elsewhere.spend("data", 1)
    later = elsewhere.goodput.carry(11)
    here = Process(path)  # its sign is of the first process, and stood on another commit
    here.goodput.begin(KEY, "orchestration")
    here.goodput.go_on(later, rows=11)
    found = here.ended()
    assert found.seconds == {"data": 11}
    assert (found.resumed, found.unknown_losses) == (2, 2)


@pytest.mark.parametrize("carried", [None, 7, {}, {"commit": 1}, {"commit": "x", "seconds": []}])
def test_samples_of_a_commit_that_tells_no_seconds_do_not_count_for_the_speed(carried):
    process = Process()
    process.goodput.begin(KEY, "orchestration")
    process.goodput.go_on(carried, rows=100)
    process.spend("data", 10)
    process.goodput.trained(150)
    found = process.ended()
    assert (found.samples, found.samples_per_second) == (50, 5)
    assert (found.resumed, found.unknown_losses) == (1, 1)


@pytest.mark.parametrize("value", STRANGE, ids=repr)
def test_a_strange_value_in_a_commit_counts_as_none_or_as_what_it_says(value):
    process = Process()
    process.goodput.begin(KEY, "orchestration")
    body = {"commit": value, "seconds": {"data": value}, "samples": value}
    process.goodput.go_on(body, rows=3)
    process.goodput.trained(5)
    assert process.ended().samples == 2


def test_a_sign_of_another_stage_says_nothing_of_this_one(path):
    SignOfLife(path).write(Sign(OTHER, 5.0))
    process = Process(path)
    process.goodput.begin(KEY, "orchestration")
    assert process.ended().seconds == {}


def test_a_failed_try_in_the_same_process_is_lost_to_the_nanosecond_and_then_waited_for():
    process = Process()
    process.goodput.begin(KEY, "orchestration")
    process.spend("data", 4)
    carried = process.goodput.carry(4)
    process.goodput.watch.switch("data")
    process.now += S // 2
    process.goodput.failed()
    process.now += 30 * S
    process.goodput.begin(KEY, "orchestration")
    process.goodput.go_on(carried, rows=4)
    found = process.ended()
    assert found.seconds == {"data": 4, "waiting": 30, "lost": 0.5}
    assert (found.resumed, found.unknown_losses) == (1, 0)


def test_operations_and_what_the_device_could_do_are_of_the_same_samples_and_seconds():
    process = Process()
    process.goodput.flops_per_sample, process.goodput.device_flops = 300, 1000.0
    process.goodput.device_bytes = lambda: 5
    process.goodput.begin(KEY, "orchestration")
    process.spend("forward_backward", 6)
    process.spend("optimizer", 2)
    process.spend("commit", 90)
    process.goodput.trained(20)
    found = process.ended()
    assert (found.flops, found.possible_flops) == (6000, 8000)
    assert found.flops_utilisation == 0.75
    assert found.peak_device_bytes == 5
    process.goodput.begin(OTHER, "validation")
    process.now += S
    assert process.ended().flops is None


pieces = st.lists(
    st.tuples(st.integers(1, 50), st.integers(0, 50), st.booleans()), min_size=1, max_size=6
)


@given(pieces)
def test_over_any_history_of_kills_the_causes_are_all_the_time_that_was_told(
    tmp_path_factory, life
):
    path = tmp_path_factory.mktemp("life") / "alive.json"
    carried, rows, told = None, 0, 0
    for committed, lost, commits in life:
        process = Process(path)
        process.goodput.begin(KEY, "orchestration")
        if carried is not None:
            process.goodput.go_on(carried, rows=rows)
        process.spend("forward_backward", committed)
        if commits:
            rows += committed
            carried = process.goodput.carry(rows)
        process.spend("forward_backward", lost)
        told += committed + lost
    last = Process(path)
    last.goodput.begin(KEY, "orchestration")
    if carried is not None:
        last.goodput.go_on(carried, rows=rows)
    found = last.ended()
    assert found.wall_seconds == told
    assert found.seconds.get("forward_backward", 0) == rows
    assert (found.resumed, found.unknown_losses) == (len(life), 0)
