"""A stage notes the signals that end a run, and hands them on once it has committed."""

import signal

import pytest
from support.runs.forked_runs import signal_that_ends_a_fork

from epochal.data.errors import Interrupted
from epochal.tasks.trainer.interruption import SIGNALS, Interruption


@pytest.fixture(autouse=True)
def handlers():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_waits_until_it_is_obeyed(number):
    signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    interruption, seen = Interruption(), []

    def work():
        with interruption.noted():
            signal.raise_signal(number)
            seen.append((interruption.came, interruption.obeyed))

    with pytest.raises(Interrupted, match=number.name):
        work()
    assert seen == [(True, False)]
    assert interruption.obeyed


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1], ids=lambda one: one.name)
def test_what_means_sigterm_goes_to_its_handler_with_its_own_number(number):
    came = []
    signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    signal.signal(number, signal.SIG_DFL)
    with pytest.raises(Interrupted), Interruption().noted():
        signal.raise_signal(number)
    assert came == [number]


def test_a_signal_with_a_handler_of_its_own_goes_there():
    came = []
    signal.signal(signal.SIGTERM, lambda *_: came.append("SIGTERM"))
    signal.signal(signal.SIGUSR1, lambda *_: came.append("SIGUSR1"))
    with pytest.raises(Interrupted), Interruption().noted():
        signal.raise_signal(signal.SIGUSR1)
    assert came == ["SIGUSR1"]


def test_a_process_forked_in_a_stage_ends_by_the_signal():
    with Interruption().noted():
        ended_by = signal_that_ends_a_fork(signal.SIGTERM)
    assert ended_by == signal.SIGTERM
