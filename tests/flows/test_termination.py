"""A signal that ends the command raises Interrupted, wherever it comes."""

import os
import signal
import subprocess
import sys

import pytest
from pydantic import BaseModel, field_serializer
from support.runs.forked_runs import signal_that_ends_a_fork

from epochal.data.errors import ConfigError, Interrupted
from epochal.flows.termination import told_of_termination

ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


@pytest.fixture(autouse=True)
def handlers():
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    assert {number: signal.getsignal(number) for number in ENDING} == before


@pytest.mark.parametrize("number", ENDING, ids=lambda number: number.name)
def test_a_signal_that_ends_the_process_raises_interrupted_with_its_name(number):
    with pytest.raises(Interrupted, match=f"{number.name} came"), told_of_termination():
        signal.raise_signal(number)


def test_code_that_catches_exceptions_does_not_swallow_it():
    def users():
        try:
            signal.raise_signal(signal.SIGTERM)
        except Exception:  # noqa: BLE001 - as careless code does
            return "went on"

    with pytest.raises(Interrupted), told_of_termination():
        users()


class Sent(BaseModel):
    number: int = 0

    @field_serializer("number")
    def send(self, number: int) -> int:
        signal.raise_signal(signal.SIGTERM)
        return number


def test_an_error_that_a_library_made_of_the_signal_is_the_signal():
    with pytest.raises(Interrupted, match="SIGTERM came"), told_of_termination():
        Sent().model_dump_json()


def test_prefects_own_signal_is_known_in_what_pydantic_makes_of_it():
    from prefect.utilities.engine import capture_sigterm

    def ends_flow(number, frame):
        raise Interrupted("by Prefect's second signal")

    before = signal.signal(signal.SIGTERM, ends_flow)
    try:
        with (
            pytest.raises(Interrupted, match="SIGTERM came"),
            told_of_termination(),
            capture_sigterm(),
        ):
            Sent().model_dump_json()
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1], ids=lambda one: one.name)
def test_other_signals_end_a_flow_as_sigterm_does(number):
    from prefect.utilities.engine import capture_sigterm

    with (
        pytest.raises(Interrupted, match=f"{number.name} came") as caught,
        told_of_termination(),
        capture_sigterm(),
    ):
        signal.raise_signal(number)
    kinds = []
    error = caught.value
    while error is not None:
        kinds.append(type(error).__module__.partition(".")[0])
        error = error.__cause__ or error.__context__
    assert "prefect" in kinds


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with told_of_termination():
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_errors_go_through():
    with pytest.raises(ConfigError), told_of_termination():
        raise ConfigError("epochs: found 0")


def test_a_process_that_the_users_code_has_forked_ends_by_the_signal():
    with told_of_termination():
        ended_by = signal_that_ends_a_fork(signal.SIGTERM)
    assert ended_by == signal.SIGTERM


ENDING_QUICKLY = """
import atexit, os, sys, threading
from epochal.flows.termination import quick_end

class Loud:
    def __del__(self):
        os.write(1, b"taken apart\\n")

loud = Loud()
tell = quick_end()
atexit.register(print, "registered later")
go = threading.Event()
atexit.register(go.set)  # after threads have ended
thread = threading.Thread(target=lambda: (threading.main_thread().join(), print("thread")))
thread.start()
print("not flushed yet", end=" ")
"""


def ended(code):
    return subprocess.run(
        [sys.executable, "-c", ENDING_QUICKLY + code], capture_output=True, text=True, check=False
    )


def test_a_quick_end_waits_for_threads_and_exit_functions_and_takes_nothing_apart():
    done = ended("sys.exit(tell(75))")
    assert (done.returncode, done.stderr) == (75, "")
    assert done.stdout == "not flushed yet thread\nregistered later\n"


@pytest.mark.parametrize("end", ["raise ValueError('unforeseen')", "sys.exit(3)"])
def test_a_process_that_tells_no_code_ends_as_ever(end):
    done = ended(end)
    assert done.returncode == (3 if end.startswith("sys") else 1)
    assert "taken apart" in done.stdout
    said = done.stderr.splitlines()[-1:]
    assert said == (["ValueError: unforeseen"] if end.startswith("raise") else [])


def test_a_forked_process_does_not_end_by_what_was_told_to_its_parent():
    done = ended("""
tell(75)
if os.fork() == 0:
    sys.exit(7)
os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
""")
    assert done.returncode == 7


def test_an_output_that_its_reader_has_closed_is_told_as_ever():
    code = "sys.stdin.read()\nprint('x')\nsys.exit(tell(0))"
    with subprocess.Popen(
        [sys.executable, "-c", ENDING_QUICKLY + code],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    ) as process:  # fmt: skip
        process.stdout.close()
        process.stdin.close()
        assert b"BrokenPipeError" in process.stderr.read()
    assert process.returncode == 120
