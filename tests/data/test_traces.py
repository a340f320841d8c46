"""Frames of the user's own files, and nothing else, say where an error comes from."""

import json
import sysconfig
from pathlib import Path

import pytest
import torch
import yaml

from epochal import data
from epochal.data.errors import TrainingFailed
from epochal.data.traces import (
    failure_text,
    in_one_line,
    is_users,
    text_of,
    users_line,
    users_trace,
    whole_trace,
)


def raised(function, *arguments):
    with pytest.raises(BaseException) as caught:
        function(*arguments)
    return caught.value


def lookup(table):
    return table["missing"]


def step():
    lookup({})


@pytest.mark.parametrize(
    ("filename", "own"),
    [
        (__file__, True),
        ("/srv/me/project/model.py", True),
        ("/srv/me/project/site-packages/thing/model.py", False),
        (torch.__file__, False),
        (json.__file__, False),
        (str(Path(sysconfig.get_path("stdlib")) / "queue.py"), False),
        (str(Path(data.__file__).parent / "errors.py"), False),
        ("<string>", False),
    ],
)
def test_a_file_is_the_users_unless_it_is_installed_pythons_or_ours(filename, own):
    assert is_users(filename) == own


def test_a_trace_begins_in_the_users_file_and_ends_where_it_was_raised():
    trace = users_trace(raised(step))
    first, *_ = trace.splitlines()
    assert first.startswith(f'  File "{__file__}"')
    assert "in step" in trace
    assert "in lookup" in trace
    assert trace.rstrip().endswith("KeyError: 'missing'")
    assert "Traceback" not in trace


def test_of_a_librarys_frames_the_last_one_stays():
    def load():
        yaml.safe_load("a: [")

    trace = users_trace(raised(load))
    assert trace.count(f'  File "{__file__}"') == 2  # here and in `raised`
    assert "in load" in trace
    assert trace.count(str(Path(yaml.__file__).parent)) == 1


def test_an_error_of_ours_is_traced_by_what_caused_it():
    def fails():
        try:
            step()
        except KeyError as error:
            raise TrainingFailed("train · epoch 0: KeyError") from error

    error = raised(fails)
    assert "in lookup" in users_trace(error)
    assert failure_text(error) == f"train · epoch 0: KeyError\n{users_trace(error)}"


def test_a_trace_that_another_process_told_stands():
    error = TrainingFailed("sample 3 could not be read")
    error.trace = '  File "data.py", line 3, in __getitem__\n'
    wrapped = TrainingFailed("train · epoch 0: sample 3")
    wrapped.__cause__ = error
    assert users_trace(wrapped) == error.trace


def test_an_error_without_a_file_of_the_users_has_no_trace():
    error = TrainingFailed("loss is NaN")
    assert users_trace(error) is None
    assert users_line(error) == ""
    assert failure_text(error) == "loss is NaN"


def test_what_led_to_an_error_is_told_with_it():
    def reads():
        try:
            step()
        except KeyError as error:
            raise ValueError("no such class") from error

    trace = users_trace(raised(reads))
    assert "KeyError: 'missing'" in trace
    assert "direct cause" in trace
    assert trace.rstrip().endswith("ValueError: no such class")


def test_the_line_is_the_last_of_the_users_own():
    def load():
        yaml.safe_load("a: [")

    line = users_line(raised(load))
    assert line.startswith(f" ({__file__}, line ")


def test_all_frames_are_there_for_who_asks():
    def load():
        yaml.safe_load("a: [")

    assert whole_trace(raised(load)).count(str(Path(yaml.__file__).parent)) > 3


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyError("missing"), "KeyError: 'missing'"),
        (ValueError("two\n  lines"), "ValueError: two lines"),
        (SystemExit(0), "SystemExit: 0"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_an_error_in_one_line_is_its_class_and_what_it_says(error, text):
    assert in_one_line(error) == text


def test_one_line_stays_short():
    assert len(in_one_line(ValueError("x" * 10_000))) < 600


def test_what_an_error_says_can_be_sent_though_it_names_a_file_whose_name_is_no_utf8():
    def read():
        name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
        raise ValueError(f"no image: {name}")

    error = raised(read)
    for text in (text_of(error), in_one_line(error), users_trace(error), whole_trace(error)):
        assert "no image: caf\\udce9.png" in text
        text.encode()
