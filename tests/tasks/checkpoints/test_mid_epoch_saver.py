"""Commits beside the training: what they copy, when they come, and what they leave behind."""

import threading

import pytest
import torch
from support.numbers.tiny_model import bits, new_state, run_epoch, samples
from support.runs.bare_run import BareRun
from support.runs.project import Project

from epochal.data.errors import StoreUnavailable
from epochal.data.stage_store.mid_epoch import MidEpochStore
from epochal.data.store.open import open_store
from epochal.engine.config.numerics import EmaConfig
from epochal.engine.model.ema import WeightAverage
from epochal.tasks.checkpoints import mid_epoch_saver as partial_epochs
from epochal.tasks.checkpoints.host_buffers import HostBuffers
from epochal.tasks.checkpoints.mid_epoch_saver import MidEpochSaver, restore
from epochal.tasks.config.parts import CheckpointConfig
from epochal.tasks.work.watch import EpochWatch

KEY = "a" * 64


def new_saver(tmp_path, buffers=None, **config):
    return MidEpochSaver(
        open_store(f"file://{tmp_path}/store"),
        KEY,
        CheckpointConfig(**{"every_seconds": 1e9, **config}),
        identity={},
        times=lambda _: [[0, 0]],
        saved=lambda *_: None,
        buffers=buffers,
    )


def train(watch, *, count=48, accumulate=2):
    """Six micro-batches of eight, two to an update."""
    run_epoch(new_state(), *samples(count), accumulate=accumulate, on_progress=watch)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return Project(tmp_path / "project", epochs=1)


def test_an_error_of_the_thread_comes_up_at_the_very_next_micro_step(project, monkeypatch):
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


def test_an_error_of_an_epochs_last_commit_is_told_and_ends_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise StoreUnavailable("the bucket is gone")

    monkeypatch.setattr(MidEpochStore, "commit", fail)
    saver, told = new_saver(tmp_path, every_updates=1), []
    train(saver.when_due, count=16)
    saver.wait(notice=told.append)
    saver.wait(notice=told.append)
    assert len(told) == 1
    assert "the bucket is gone" in told[0]


def test_a_commit_that_is_not_taken_in_time_is_given_up_and_named(tmp_path, monkeypatch):
    free = threading.Event()

    def stuck(*_):
        free.wait()

    monkeypatch.setattr(MidEpochStore, "commit", stuck)
    monkeypatch.setattr(partial_epochs, "COMMIT_WITHIN_S", 0.05)
    saver = new_saver(tmp_path)
    with pytest.raises(StoreUnavailable, match="did not take a commit") as raised:
        train(saver.now)
    assert f"file://{tmp_path}/store" in str(raised.value)
    saver.wait()  # does not wait for what was given up
    free.set()
    for thread in threading.enumerate():
        if thread.name == "epochal-commit":
            thread.join()


def test_a_commit_holds_the_state_of_its_moment_while_training_goes_on(tmp_path, monkeypatch):
    began, free, found = threading.Event(), threading.Event(), {}
    write = partial_epochs.write_checksummed

    def late(*arguments, **options):
        began.set()
        assert free.wait(30)
        return write(*arguments, **options)

    monkeypatch.setattr(partial_epochs, "write_checksummed", late)
    saver = new_saver(tmp_path, every_updates=1)

    def watch(progress):
        saver.when_due(progress)
        if progress.micro_steps == 2:
            found["then"] = progress.state.model.head.weight.detach().clone()
        if progress.micro_steps == 6:
            assert began.wait(30)
            found["now"] = progress.state.model.head.weight.detach().clone()
            free.set()

    train(watch)
    saver.wait()
    from epochal.engine.checkpoint.serialize import load_tensors

    with MidEpochStore(open_store(f"file://{tmp_path}/store"), KEY).newest(
        fits=lambda _: True, notice=print
    ) as commit:
        stored = load_tensors(commit.tensors, device="cpu")["model/head.weight"]
    assert torch.equal(stored, found["then"])
    assert not torch.equal(stored, found["now"])


def test_a_commit_holds_all_of_the_state_and_its_average(tmp_path):
    def with_average(seed):
        state = new_state(seed=seed)
        state.ema = WeightAverage(state.model, EmaConfig(decay=0.5))
        return state

    saver = new_saver(tmp_path)

    def watch(progress):
        if progress.micro_steps == 3:  # within an update
            saver.now(progress)

    state, other = with_average(1), with_average(2)
    run_epoch(state, *samples(48), accumulate=2, on_progress=watch)
    with MidEpochStore(open_store(f"file://{tmp_path}/store"), KEY).newest(
        fits=lambda _: True, notice=print
    ) as commit:
        epoch = restore(commit, other)
    run_epoch(other, *samples(48), accumulate=2, start=3, resume=epoch)
    assert bits(other) == bits(state)
    for name, average in state.ema.tensors.items():
        assert torch.equal(other.ema.tensors[name], average), name


def test_what_is_committed_already_is_not_committed_again(tmp_path, monkeypatch):
    calls, commit = [], MidEpochStore.commit
    monkeypatch.setattr(MidEpochStore, "commit", lambda *a: calls.append(a[1]) or commit(*a))
    saver = new_saver(tmp_path)

    def watch(progress):
        if progress.micro_steps in {2, 5}:
            saver.now(progress)
            saver.now(progress)

    train(watch)
    assert calls == [2, 5]


def test_the_buffers_of_the_first_commit_are_made_half_way_to_it(tmp_path, monkeypatch):
    calls = []
    prepare, copy = HostBuffers.prepare, HostBuffers.copy
    monkeypatch.setattr(HostBuffers, "prepare", lambda *a: calls.append("made") or prepare(*a))
    monkeypatch.setattr(HostBuffers, "copy", lambda *a: calls.append("copied") or copy(*a))
    saver = new_saver(tmp_path, every_updates=2)

    def watch(progress):
        saver.when_due(progress)
        saver.wait()
        calls.append(progress.micro_steps)

    train(watch)
    assert calls == [1, "made", 2, 3, "copied", 4, 5, 6]


def test_the_epochs_of_a_run_share_their_buffers(project):
    run = BareRun(project.config, epochs=2, checkpoint__every_updates=1)()
    held = run.session.buffers._kept
    parts = {name.partition("/")[0] for name in held}
    assert {"model", "optimizer"} <= parts <= {"model", "optimizer", "gradient"}
