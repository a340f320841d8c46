"""Before epoch 0: is there room, does the store keep what it is given, will MLflow take the run?"""

import time
from typing import NamedTuple

import pytest
import torch
from support.numbers.tiny_model import new_state, run_epoch, samples
from support.runs.bare_run import BareRun
from support.runs.project import Project

from epochal.data.errors import PreflightFailed
from epochal.data.store.open import open_store
from epochal.engine.checkpoint.serialize import split_state
from epochal.tasks.config.load import load_config
from epochal.tasks.preflight import disk_space as preflight_space
from epochal.tasks.preflight.disk_space import checkpoint_size
from epochal.tasks.reporting import SilentReporter
from epochal.tasks.running.lifecycle import prepare
from epochal.tasks.running.start_trainer import INLINE


class Usage(NamedTuple):
    total: int
    used: int
    free: int


class Told(SilentReporter):
    """Keeps what is told of other things than the project's counter, and than being inline."""

    def __init__(self):
        self.notices = []

    def notice(self, text):
        if "model.calls" not in text and text != INLINE:
            self.notices.append(text)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return Project(tmp_path / "project", epochs=3)


# Space


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (torch.optim.AdamW, {}),
        (torch.optim.Adam, {"amsgrad": True}),
        (torch.optim.SGD, {"momentum": 0.9}),
        (torch.optim.SGD, {}),
        (torch.optim.RMSprop, {"centered": True, "momentum": 0.5}),
        (torch.optim.Adagrad, {}),
    ],
)
def test_the_size_of_a_checkpoint_is_known_before_the_first_step(optimizer, options):
    wide = lambda: torch.nn.Sequential(torch.nn.Linear(6, 512), torch.nn.Linear(512, 4))  # noqa: E731
    state = new_state(wide, optimizer=optimizer, **options)
    expected = checkpoint_size(state, accumulate=2)
    assert not any(parameter.grad is not None for parameter in state.model.parameters())
    run_epoch(state, *samples(16))
    parts = split_state(state)
    assert expected.model == sum(one.nbytes for one in parts.model.values())
    held = sum(one.nbytes for one in parts.optimizer.values())
    assert expected.optimizer == pytest.approx(held, rel=0.01, abs=64)
    assert expected.gradients == expected.model


def test_trying_an_optimizer_leaves_the_real_one_alone():
    state = new_state()
    before = split_state(state)
    weights = {name: one.clone() for name, one in before.model.items()}
    checkpoint_size(state, accumulate=1)
    after = split_state(state)
    assert after.document == before.document
    assert after.optimizer == {}
    assert all(torch.equal(after.model[name], one) for name, one in weights.items())


def test_an_optimizer_of_the_users_own_counts_as_adam_and_is_not_called():
    class Own(torch.optim.SGD):
        def step(self, closure=None):
            raise AssertionError("called")

    state = new_state(optimizer=Own)
    size = checkpoint_size(state, accumulate=1)
    assert size.optimizer == 2 * sum(one.nbytes for one in state.named_parameters().values())


def free(monkeypatch, num_bytes):
    monkeypatch.setattr(
        preflight_space.shutil, "disk_usage", lambda _: Usage(10**12, 10**12, num_bytes)
    )


def test_no_room_for_two_checkpoints_is_refused_with_needed_found_and_folder(project, monkeypatch):
    free(monkeypatch, 1000)
    with pytest.raises(PreflightFailed, match=r"need [\d,]+ bytes.*has 1,000 bytes free") as raised:
        BareRun(project.config)
    assert str(project.store) in str(raised.value)
    assert not list(project.store.glob("stages/*"))
    assert not list(project.store.glob("runs/*"))


def test_room_for_two_but_not_for_all_is_told_and_goes_on(project, monkeypatch):
    size = checkpoint_size(BareRun(project.config).work.components.state, accumulate=2)
    free(monkeypatch, 2 * size.total + 1000)
    told = Told()
    config = load_config(project.config, overrides=["checkpoint.keep_last=2"])
    prepare(config, reporter=told)
    assert len(told.notices) == 1
    assert "3 epochs to come" in told.notices[0]
    assert "epochal gc --yes" in told.notices[0]


def test_a_run_that_has_nothing_to_compute_is_asked_nothing(project, monkeypatch):
    def asked(*_, **__):
        pytest.fail("MLflow was asked")

    BareRun(project.config)()
    free(monkeypatch, 0)
    before = sorted(project.store.rglob("*"))
    monkeypatch.setattr("epochal.data.store.store.Store.put_new", None)  # a probe would be a write
    monkeypatch.setattr("epochal.tasks.running.lifecycle.check_tracker", asked)
    prepare(load_config(project.config), reporter=SilentReporter())
    assert sorted(project.store.rglob("*")) == before


def test_only_epochs_to_come_count(project, monkeypatch):
    alone = {"sampling.policy": "none"}
    run = BareRun(project.config, **alone)
    size = checkpoint_size(run.work.components.state, accumulate=2)
    run()
    tables = 180 * preflight_space.TABLE_BYTES_PER_SAMPLE
    free(monkeypatch, 3 * (size.total + tables) + 2 * size.gradients)  # one epoch, two commits
    longer = ["sampling.policy=none", "epochs=4"]
    for more, told in (([], 0), (["seed=9"], 1)):
        reporter = Told()
        prepare(load_config(project.config, overrides=[*longer, *more]), reporter=reporter)
        assert len(reporter.notices) == told


def test_a_store_far_away_needs_room_where_files_are_written_first(project, monkeypatch):
    free(monkeypatch, 1000)
    with pytest.raises(PreflightFailed, match="TMPDIR"):
        BareRun(project.config, store="memory://preflight/store")


# Store


def test_a_probe_that_a_killed_process_left_is_removed_and_a_fresh_one_is_not(store_url):
    store = open_store(store_url)
    now = int(time.time())
    old, fresh = f"tmp/preflight-{now - 7200}-{'0' * 16}", f"tmp/preflight-{now}-{'1' * 16}"
    store.put_new(old, b"")
    store.put_new(fresh, b"")
    store.preflight()
    assert list(store.listing("tmp")) == [fresh]
