"""Each attempt at a run leaves a log on this machine, and says where it stands."""

import os

import pytest
from support.runs.project import Project

from epochal.data.errors import TrainingFailed
from epochal.tasks.config.load import load_config
from epochal.tasks.reporting import Live, SilentReporter
from epochal.tasks.running import journal as journals
from epochal.tasks.running.journal import Journal, attempts, begin_journal


@pytest.fixture
def config(tmp_path, home):
    return load_config(Project(tmp_path / "project").config)


def live(update):
    return Live(**{**dict.fromkeys(Live.__dataclass_fields__, 0), "update": update, "epoch": 2})


def test_what_is_told_and_printed_is_kept_and_passed_on(config):
    told = []

    class Other(SilentReporter):
        def printed(self, line):
            told.append(line)

    reporter, journal = begin_journal(config, Other())
    reporter.opening("changed: nothing")
    reporter.printed("from my code\x1b[2J")
    reporter.failed(TrainingFailed("the loss is NaN"))
    (attempt,) = attempts("blobs")
    assert attempt.is_alive
    assert attempt.pid == os.getpid()
    journal.close("finished")
    journal.close("again")
    lines = [line.partition(" ")[2] for line in attempt.log.read_text().splitlines()]
    assert lines[1:] == [
        "changed: nothing", "from my code\\x1b[2J", "error: the loss is NaN", "finished",
    ]  # fmt: skip
    assert told == ["from my code\x1b[2J"]
    (attempt,) = attempts()
    assert not attempt.is_alive
    assert attempt.body["doing"] == "finished"


def test_where_an_epoch_stands_is_noted_once_a_second_at_most(config, monkeypatch):
    reporter, _ = begin_journal(config, None)
    reporter.live(live(4))
    reporter.live(live(5))
    assert attempts()[0].body["update"] == 4
    monkeypatch.setattr(journals, "MOVED_EVERY_S", 0.0)
    reporter.live(live(6))
    assert (attempts()[0].body["update"], attempts()[0].body["epoch"]) == (6, 2)


def test_old_attempts_are_deleted_and_those_that_live_stay(config, monkeypatch):
    monkeypatch.setattr(journals, "KEPT", 2)
    living = Journal(config, SilentReporter())
    for _ in range(3):  # in less than a millisecond each
        Journal(config, SilentReporter()).close("finished")
    found = attempts("blobs")
    assert len(found) == 3
    assert found[-1].is_alive
    living.close("finished")


def test_a_log_does_not_grow_beyond_all_bounds(config, monkeypatch):
    monkeypatch.setattr(journals, "MAX_LOG_BYTES", 300)
    journal = Journal(config, SilentReporter())
    for _ in range(50):
        journal.printed("x" * 50)
    text = attempts()[0].log.read_text()
    assert len(text) < 400
    assert text.endswith("in the output alone\n")


def test_a_home_that_cannot_be_written_costs_the_log_alone(config, home):
    (home / ".epochal").write_text("no folder\n")
    reporter, journal = begin_journal(config, None)
    reporter.printed("a line")
    reporter.live(live(1))
    journal.close("finished")
    assert attempts() == []


def test_a_note_that_is_none_of_ours_is_no_attempt(config, home):
    folder = home / ".epochal" / "logs" / "other"
    folder.mkdir(parents=True)
    (folder / "a.json").write_text("{")
    (folder / "b.json").write_text('{"pid": "x", "began": 1}')
    assert attempts() == []
