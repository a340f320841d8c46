"""Errors told between processes, and the user's lines in a dump of Python's stacks."""

import io
from bdb import BdbQuit
from pdb import Pdb

import pytest

from epochal.data.errors import PreflightFailed, StoreUnavailable, TrainingFailed
from epochal.data.traces import users_trace, whole_trace
from epochal.tasks.launch.failures import (
    NO_TERMINAL,
    error_of,
    fatal_place,
    place_in_dump,
    told_error,
)

DUMP = """\
Thread 0x00007f01 (most recent call first):
  File "/project/thread.py", line 3 in draw
  File "/usr/lib/python3.11/threading.py", line 982 in run

Current thread 0x00007f02 (most recent call first):
  File "/opt/site-packages/torch/nn/modules/module.py", line 5 in _call_impl
  File "/project/m\\xfcller/\\u4e2d.py", line 12 in forward
  File "/project/step.py", line 4 in step

Extension modules: numpy (total: 1)
"""


def test_the_place_is_the_innermost_line_of_the_users_in_the_thread_that_was_asked():
    place = place_in_dump(DUMP)
    assert place.where == " (/project/müller/中.py, line 12)"
    assert place.trace == (
        '  File "/project/step.py", line 4, in step\n'
        '  File "/project/müller/中.py", line 12, in forward\n'
    )


def test_the_place_of_a_crash_is_the_last_and_says_what_it_was():
    crashes = f"{DUMP}Fatal Python error: Aborted\n\n{DUMP.replace('step.py', 'other.py')}"
    assert (
        fatal_place(crashes).trace.splitlines()[0] == '  File "/project/other.py", line 4, in step'
    )
    assert fatal_place(crashes).trace.endswith("\nAborted\n")


@pytest.mark.parametrize("text", ["", DUMP, "Fatal Python error: Aborted\n\n<no Python frame>\n"])
def test_without_a_crash_or_a_line_of_the_users_there_is_no_place(text):
    assert fatal_place(text).trace is None


class Mute(OSError):
    def __str__(self):
        raise ValueError("nothing to say")


@pytest.mark.parametrize(
    "error",
    [
        TrainingFailed("the loss"),
        PreflightFailed("the start"),
        StoreUnavailable("away"),
        FileExistsError(17, "File exists"),
        OSError("without a number"),
    ],
)
def test_an_error_of_ours_or_the_systems_comes_back_as_it_is(error):
    back = error_of(told_error(error))
    assert type(back) is type(error)
    assert str(back) == str(error)


def test_who_asked_a_person_where_there_is_none_is_told_what_to_do():
    error = TrainingFailed("train · epoch 0")
    error.__cause__ = EOFError("EOF when reading a line")
    assert str(error_of(told_error(error))) == f"train · epoch 0{NO_TERMINAL}"
    error.__cause__ = EOFError("Ran out of input")
    assert str(error_of(told_error(error))) == "train · epoch 0"


def test_a_debugger_that_reads_from_nothing_is_told_the_same():
    debugger = Pdb(stdin=io.StringIO(), stdout=io.StringIO(), nosigint=True, readrc=False)

    def stops():
        debugger.set_trace()
        return 1

    with pytest.raises(BdbQuit) as caught:
        stops()
    assert str(error_of(told_error(caught.value))).endswith(NO_TERMINAL)


def test_an_error_that_cannot_say_what_it_is_is_told_all_the_same():
    assert "Mute: <exception str" in str(error_of(told_error(Mute(2, "x"))))


def test_a_message_of_megabytes_is_cut_in_its_middle():
    def fail():
        raise ValueError(f"begins {'x' * 10_000_000} ends")

    with pytest.raises(ValueError, match="begins") as caught:
        fail()
    for text in (users_trace(caught.value), whole_trace(caught.value)):
        assert len(text) < 250_000
        assert f'File "{__file__}"' in text
        assert text.rstrip().endswith("ends")
