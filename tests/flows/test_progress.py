"""What is drawn while a run is at work."""

import io
import os

import pytest
from support.runs.project import Project

from epochal.flows import console
from epochal.flows.commands import train
from epochal.flows.progress import ProgressReporter
from epochal.tasks.launch import output
from epochal.tasks.planning.stage import Stage


def drawn(monkeypatch, **options):
    """What a terminal gets of a stage that begins."""
    terminal = console.PlainConsole(file=io.StringIO(), width=100, force_terminal=True)
    monkeypatch.setattr(console, "err", terminal)
    with ProgressReporter(**options) as reporter:
        reporter.started(Stage("train", 0, "a" * 64, {}))
        reporter.notice("a note")
    return terminal.file.getvalue()


def test_a_terminal_has_a_bar_unless_none_is_asked_for(monkeypatch):
    assert "train · epoch 0" in drawn(monkeypatch)
    without = drawn(monkeypatch, bar=False)
    assert "train · epoch 0" not in without
    assert "a note" in without


def test_what_the_users_code_writes_over_itself_is_one_line_above_the_bar(monkeypatch):
    terminal = console.PlainConsole(file=io.StringIO(), width=100, force_terminal=True)
    monkeypatch.setattr(console, "err", terminal)
    monkeypatch.setattr(output, "_CHUNK_BYTES", 12)
    read, write = os.pipe()
    os.write(write, b"\ritems 1 of 2\ritems 2 of 2\nmore")
    os.close(write)
    with ProgressReporter():
        output.print_all(os.fdopen(read, "rb"), "stderr")
    lines = [one.replace("\x1b[2K", "") for one in terminal.file.getvalue().splitlines()]
    assert [one for one in lines if "items" in one or "more" in one] == ["items 2 of 2", "more"]


@pytest.mark.parametrize(("kind", "bar"), [("local", True), ("inline", False)])
def test_where_a_debugger_may_ask_there_is_no_bar(kind, bar, tmp_path, monkeypatch):
    class Seen(Exception):
        pass

    def seen(*, bar):
        raise Seen(bar)

    config = Project(tmp_path / "project").config
    monkeypatch.setattr(train, "ProgressReporter", seen)
    with pytest.raises(Seen) as found:
        train.train(config, [f"launch.kind={kind}"])
    assert found.value.args == (bar,)
