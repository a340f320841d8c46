"""Commits beside the training: what they copy, when they come, and what they leave behind."""

import threading

import pytest
import torch
from support.numbers.tiny_model import bits, new_state, run_epoch, samples
from support.runs.bare_run import BareRun
from support.runs.epoch_commits import KEY, EpochCommits
from support.runs.project import Project

from epochal.data.errors import StoreUnavailable
from epochal.data.stage_store.mid_epoch import MidEpochStore
from epochal.data.store.open import open_store
from epochal.engine.checkpoint.serialize import load_tensors
from epochal.engine.config.numerics import EmaConfig
from epochal.engine.model.ema import WeightAverage
from epochal.tasks.checkpoints import commit_writer
from epochal.tasks.checkpoints.mid_epoch_codec import restore
from epochal.tasks.computing.watch import EpochWatch


def train(watch, *, count=48, accumulate=2):
    """Six micro-batches of eight, two to an update."""
    run_epoch(new_state(), *samples(count), accumulate=accumulate, on_progress=watch)


def newest(tmp_path):
    store = MidEpochStore(open_store(f"file://{tmp_path}/store"), KEY)
    return store.newest(fits=lambda _: True, notice=print)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return Project(tmp_path / "project", epochs=1)


def test_an_error_of_a_commit_ends_the_work_at_the_very_next_micro_step(project, monkeypatch):
    def fail(*_):
        raise StoreUnavailable("the disk is full")

    seen = []
    original = EpochWatch.__call__

    def watched(self, progress):
        seen.append(progress.micro_steps)
        original(self, progress)
        for thread in threading.enumerate():
            if thread.name == "epochal-commit":
                thread.join()

    monkeypatch.setattr(MidEpochStore, "commit", fail)
    monkeypatch.setattr(EpochWatch, "__call__", watched)
    with pytest.raises(StoreUnavailable, match="the disk is full"):
        BareRun(project.config, checkpoint__every_updates=2)()
    assert seen == [1, 2, 3, 4, 5]  # the fourth micro-step ends the second update


def test_a_commit_holds_the_state_of_its_moment_while_training_goes_on(tmp_path, monkeypatch):
    began, free, found = threading.Event(), threading.Event(), {}
    write = commit_writer.write_checksummed

    def late(*arguments, **options):
        began.set()
        assert free.wait(30)
        return write(*arguments, **options)

    monkeypatch.setattr(commit_writer, "write_checksummed", late)
    commits = EpochCommits(tmp_path, every_updates=1)

    def watch(progress):
        commits.when_due(progress)
        if progress.micro_steps == 2:
            found["then"] = progress.state.model.head.weight.detach().clone()
        if progress.micro_steps == 6:
            assert began.wait(30)
            found["now"] = progress.state.model.head.weight.detach().clone()
            free.set()

    train(watch)
    commits.writer.end()
    with newest(tmp_path) as commit:
        stored = load_tensors(commit.tensors, device="cpu")["model/head.weight"]
    assert torch.equal(stored, found["then"])
    assert not torch.equal(stored, found["now"])


def test_a_commit_holds_all_of_the_state_and_its_average(tmp_path):
    def with_average(seed):
        state = new_state(seed=seed)
        state.ema = WeightAverage(state.model, EmaConfig(decay=0.5))
        return state

    commits = EpochCommits(tmp_path)

    def watch(progress):
        if progress.micro_steps == 3:  # within an update
            commits.saver.now(progress)
            commits.writer.end()

    state, other = with_average(1), with_average(2)
    run_epoch(state, *samples(48), accumulate=2, on_progress=watch)
    with newest(tmp_path) as commit:
        epoch = restore(commit, other)
    run_epoch(other, *samples(48), accumulate=2, start=3, resume=epoch)
    assert bits(other) == bits(state)
    for name, average in state.ema.tensors.items():
        assert torch.equal(other.ema.tensors[name], average), name


def test_what_is_committed_already_is_not_committed_again(tmp_path, monkeypatch):
    calls, commit = [], MidEpochStore.commit
    monkeypatch.setattr(MidEpochStore, "commit", lambda *a: calls.append(a[1]) or commit(*a))
    commits = EpochCommits(tmp_path)

    def watch(progress):
        if progress.micro_steps in {2, 5}:
            commits.saver.now(progress)
            commits.saver.now(progress)

    train(watch)
    commits.writer.end()
    assert calls == [2, 5]


def test_memory_for_the_first_commit_is_made_half_way_to_it(tmp_path, monkeypatch):
    commits, calls = EpochCommits(tmp_path, every_updates=2), []
    monkeypatch.setattr(commits.trainer, "prepare", lambda size: calls.append(f"made {size > 0}"))
    begin = commits.trainer.begin_commit
    monkeypatch.setattr(
        commits.trainer, "begin_commit", lambda commit: calls.append("committed") or begin(commit)
    )

    def watch(progress):
        commits.when_due(progress)
        commits.writer.end()
        calls.append(progress.micro_steps)

    train(watch)
    assert calls == [1, "made True", 2, 3, "committed", 4, 5, 6]


def test_a_commit_whose_epoch_is_done_is_given_up_and_leaves_nothing(tmp_path, monkeypatch):
    began, free = threading.Event(), threading.Event()
    commit = MidEpochStore.commit

    def late(*arguments):
        began.set()
        assert free.wait(30)
        commit(*arguments)

    monkeypatch.setattr(MidEpochStore, "commit", late)
    commits = EpochCommits(tmp_path)

    def watch(progress):
        if progress.micro_steps == 5:
            commits.saver.now(progress)

    train(watch)
    assert began.wait(30)
    commits.link.claim_buffer()  # does not wait for the store
    commits.writer.clear(notice=print, every_s=60)
    free.set()
    commits.writer.end()
    assert commits.saved == []
    assert not commits.store.listing("stages")
