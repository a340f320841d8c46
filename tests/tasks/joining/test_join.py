"""`epochal join`: what is wrong with its address or its secret is told before anything starts."""

import pytest
from support.runs.project import call, environment

from epochal.tasks.joining.connection import TOKEN


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://10.0.0.1:80", "is no address of a run"),
        ("10.0.0.1:70000", "expected a port from 1 to 65535"),
        ("10.0.0.1:x", "expected HOST:PORT"),
        ("epochal://10.0.0.1:80/more", "is no address of a run"),
    ],
)
def test_what_is_no_address_is_told(url, told, home):
    done = call("join", url)
    assert done.code == 2
    assert told in done.err


def test_without_a_secret_nothing_starts(home):
    done = call("join", "127.0.0.1:29999")
    assert done.code == 2
    assert "EPOCHAL_TOKEN is not set" in done.err


def test_where_there_is_no_run_it_ends_with_75(home):
    with environment(**{TOKEN: "x"}):
        done = call("join", "127.0.0.1:1", "--wait", "1")
    assert done.code == 75
    assert "no run at 127.0.0.1:1 within 1 s" in done.err
