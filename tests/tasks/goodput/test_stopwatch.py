"""Whatever is entered, left, broken off or switched: the causes add up to the time that went by."""

from contextlib import suppress
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from epochal.engine.loop.phases import Phase
from epochal.tasks.goodput.stopwatch import CAUSES, LOOP, PRODUCTIVE, Stopwatch


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        return self.now


causes = st.sampled_from(CAUSES)
moves = st.integers(0, 10**15)
leaves = st.one_of(
    st.tuples(st.just("wait"), moves),
    st.tuples(st.just("switch"), causes),
    st.tuples(st.just("raise"), st.none()),
)
scripts = st.recursive(
    st.lists(leaves, max_size=5),
    lambda inner: st.lists(
        st.one_of(leaves, st.tuples(st.just("phase"), st.tuples(causes, inner))), max_size=5
    ),
    max_leaves=40,
)


class Model:
    """What the watch must say, told by a stack of causes."""

    def __init__(self, cause):
        self.stack, self.spent = [cause], dict.fromkeys(CAUSES, 0)


def play(script, watch, clock, model):
    for what, value in script:
        if what == "wait":
            clock.now += value
            model.spent[model.stack[-1]] += value
        elif what == "switch":
            watch.switch(value)
            model.stack[-1] = value
        elif what == "raise":
            raise KeyError
        else:
            cause, inner = value
            model.stack.append(cause)
            try:
                with watch.phase(cause):
                    play(inner, watch, clock, model)
            finally:
                model.stack.pop()


@given(causes, scripts)
def test_causes_add_up_to_the_wall_time_whatever_is_nested_or_raised(cause, script):
    clock = Clock()
    watch, model = Stopwatch(cause, clock=clock), Model(cause)
    with suppress(KeyError):
        play(script, watch, clock, model)
    assert watch.cause == model.stack[0]
    assert watch.spent_ns() == model.spent
    assert sum(watch.spent_ns().values()) == clock.now


@given(causes, moves, moves)
def test_a_restart_counts_from_zero_for_the_same_cause_and_loses_nothing(cause, before, after):
    clock = Clock()
    watch = Stopwatch(cause, clock=clock)
    clock.now += before
    first = watch.restart()
    clock.now += after
    assert watch.cause == cause
    assert first[cause] == before
    assert watch.spent_ns() == {**dict.fromkeys(CAUSES, 0), cause: after}


def test_a_phase_may_be_entered_again_and_ends_in_what_was_before_each_time():
    watch = Stopwatch("data", clock=Clock())
    committing = watch.phase("commit")
    for cause in ("data", "optimizer"):
        watch.switch(cause)
        with committing:
            assert watch.cause == "commit"
        assert watch.cause == cause


def test_every_phase_of_the_loop_is_a_cause_and_what_is_productive_is_in_the_loop():
    assert set(get_args(Phase)) < set(CAUSES)
    assert PRODUCTIVE < LOOP < set(CAUSES)


def test_the_clock_of_a_stopwatch_never_runs_backwards():
    watch = Stopwatch("data")
    for _ in range(1000):
        watch.switch("optimizer")
        watch.switch("data")
    assert all(spent >= 0 for spent in watch.spent_ns().values())
