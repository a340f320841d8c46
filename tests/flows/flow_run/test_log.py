"""What a run reports, in Prefect's log."""

import os
from types import SimpleNamespace

from epochal.flows.flow_run import log
from epochal.flows.flow_run.log import FlowLog
from epochal.tasks.launch import output
from epochal.tasks.reporting import SilentReporter


def logged(monkeypatch):
    """A log of a flow, and the lines that come into it."""
    found = FlowLog(SilentReporter())
    lines = []
    monkeypatch.setattr(found, "_log", lambda _, text: lines.append(text))
    return found, lines


def test_what_the_users_code_prints_is_logged_up_to_a_number_of_lines(monkeypatch):
    monkeypatch.setattr(log, "MAX_LINES", 3)
    found, lines = logged(monkeypatch)
    for number in range(5):
        found.printed(f"line {number}")
    assert lines == [
        "line 0", "line 1", "line 2", "what your code prints from here on is in the output alone",
    ]  # fmt: skip


def test_a_rank_stands_before_each_line_and_a_bar_is_one(monkeypatch, capfd):
    _, lines = logged(monkeypatch)
    read, write = os.pipe()
    os.write(write, b"a line\n1 of 2\r2 of 2\r\nno end")
    os.close(write)
    monkeypatch.setattr(output, "sys", SimpleNamespace(stdout=_Written(lines)))
    told = []
    output.print_all(os.fdopen(read, "rb"), "stdout", "rank 3: ", told.append)
    expected = ["rank 3: a line", "rank 3: 2 of 2", "rank 3: no end"]
    assert told == expected
    assert "".join(lines).splitlines() == expected


class _Written:
    def __init__(self, lines):
        self._lines = lines

    def write(self, text):
        self._lines.append(text)

    def flush(self):
        pass


def test_links_and_where_an_epoch_goes_on_are_logged_and_what_only_waits_is_not(monkeypatch):
    found, lines = logged(monkeypatch)
    found.doing("waiting for Prefect's server")
    found.counted("batches of validation", 1, 2)
    found.planned([], [])
    found.linked("MLflow", "http://m/1")
    found.resumed(3, 120, 400)
    assert lines == ["MLflow: http://m/1", "epoch 3 goes on at update 120 of 400"]
