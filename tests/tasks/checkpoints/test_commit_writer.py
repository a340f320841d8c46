"""Who writes an epoch's commits: in time or not at all, and never silently wrong."""

import threading

import pytest
from support.numbers.tiny_model import new_state, run_epoch, samples
from support.runs.epoch_commits import EpochCommits

from epochal.data.errors import StoreUnavailable
from epochal.data.stage_store.mid_epoch import MidEpochStore
from epochal.tasks.checkpoints.commit_writer import CommitWriter


def train(watch, count=16):
    run_epoch(new_state(), *samples(count), accumulate=2, on_progress=watch)


def test_an_error_of_an_epochs_last_commit_is_told_and_ends_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise StoreUnavailable("the bucket is gone")

    monkeypatch.setattr(MidEpochStore, "commit", fail)
    commits, told = EpochCommits(tmp_path, every_updates=1), []
    train(commits.when_due)
    commits.writer._thread.join()
    for _ in range(2):
        commits.writer.clear(notice=told.append, every_s=60)
    assert len(told) == 1
    assert "the bucket is gone" in told[0]


def test_a_commit_that_fails_after_its_epoch_is_done_stops_no_later_stage(tmp_path, monkeypatch):
    begun, failing = threading.Event(), threading.Event()

    def fail_late(*_):
        begun.set()
        failing.wait()
        raise StoreUnavailable("the bucket is gone")

    monkeypatch.setattr(MidEpochStore, "commit", fail_late)
    commits = EpochCommits(tmp_path)
    train(commits.saver.now, count=8)
    begun.wait()
    commits.writer.clear(notice=lambda _: None, every_s=60)
    failing.set()
    commits.writer._thread.join()
    assert not commits.link.stopped


def test_a_commit_that_is_not_taken_in_time_is_given_up_and_named(tmp_path, monkeypatch):
    free = threading.Event()
    monkeypatch.setattr(MidEpochStore, "commit", lambda *_: free.wait())
    commits = EpochCommits(tmp_path)
    train(commits.saver.now, count=8)
    with pytest.raises(StoreUnavailable, match="did not take a commit") as raised:
        commits.writer.end(within_s=0.05)
    assert f"file://{tmp_path}/store" in str(raised.value)
    assert "checkpoint.grace_seconds" in str(raised.value)
    free.set()
    commits.writer.end()


def test_it_is_said_how_often_commits_really_come(tmp_path):
    told = []
    writer = CommitWriter(EpochCommits(tmp_path).store, "b" * 64, {}, saved=lambda _: None)
    writer.began_s, writer.longest_s = [0.0, 150.0, 310.0], 148.0
    writer.clear(notice=told.append, every_s=60)
    assert told == [
        "checkpoint.every_seconds is 60, and a commit takes up to 148 s here: they came every 160 s"
    ]
    writer.began_s, writer.longest_s = [0.0, 61.0, 122.0], 3.0
    writer.clear(notice=told.append, every_s=60)
    assert len(told) == 1
