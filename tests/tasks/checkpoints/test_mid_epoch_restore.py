"""Commits inside an epoch from an enemy: what no epoch wrote costs that commit, nothing else."""

import shutil

import pytest
import torch
from support.numbers.tiny_model import save_tensors
from support.runs.bare_run import BareRun
from support.runs.project import Project, environment
from support.stores.malformed_bytes import rewritten

from epochal.data.errors import CorruptObject, TrainingFailed
from epochal.data.hashing import file_checksum
from epochal.data.stage_store.mid_epoch import MidEpochStore
from epochal.data.store.open import open_store
from epochal.engine.checkpoint.serialize import load_tensors
from epochal.tasks.checkpoints.mid_epoch_restore import checked_restore
from epochal.tasks.computing.saver import MidEpochSaver
from epochal.tasks.computing.work import Order
from epochal.tasks.stages.commit import sample_table
from epochal.tasks.stages.train import _micro_batches
from epochal.tasks.trainer.answers import ArtifactAnswers

EPOCHS = 2


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an unbroken run makes."""
    with environment(HOME=str(tmp_path_factory.mktemp("home"))):
        project = Project(tmp_path_factory.mktemp("whole") / "project", epochs=EPOCHS)
        return BareRun(project.config)().digests


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory):
    """A project whose second epoch was cut off after a commit at each of its micro-steps."""
    project = Project(tmp_path_factory.mktemp("cut") / "project", epochs=EPOCHS)
    with (
        environment(HOME=str(tmp_path_factory.mktemp("home")), FAIL_AT_CALL="19"),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(MidEpochSaver, "is_due", lambda *_: True)
        with pytest.raises(TrainingFailed):
            BareRun(project.config)()
    return project


@pytest.fixture
def interrupted(cut_off, tmp_path, monkeypatch):
    """A copy of it, its store, and the paths of its two commits."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    copy = Project(tmp_path / "interrupted", epochs=EPOCHS)
    shutil.copytree(cut_off.store, copy.store)
    store = open_store(f"file://{copy.store}")
    found = [path for path in store.listing("stages") if "/partial/" in path]
    older, newest = sorted(path for path in found if path.endswith(".json"))
    return copy, store, older, newest


@pytest.fixture(scope="module")
def cut_session(cut_off):
    """The run that was cut off, and the micro-batches of its second epoch."""
    run = BareRun(cut_off.config)
    stage = run.view.stage("train", 1)
    parents = {role: run.view.record_of(parent) for role, parent in stage.parents.items()}
    order = Order("train", 1, stage.known_key, stage.inputs, parents, live=False, given={})
    run.session.trainer._answers = ArtifactAnswers(run.session.stage_store, parents).answers
    return run, _micro_batches(run.work, order, sample_table(run.work, order))


def restored(interrupted, cut_session):
    """The newest commit of the copy, loaded as a resumed epoch loads it."""
    run, plan = cut_session
    commits = MidEpochStore(interrupted[1], run.view.stage("train", 1).known_key)
    with commits.newest(fits=lambda _: True, notice=pytest.fail) as commit:
        return checked_restore(
            commit, run.work.ready_components().state, plan, gradients=run.work.config.gradients
        )


def test_the_newest_commit_is_restored_as_it_was(interrupted, cut_session):
    assert restored(interrupted, cut_session).micro_steps == 6


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.update(updates=99),
        lambda body: body.update(updates=[]),
        lambda body: body.pop("updates"),
        lambda body: body.update(partial_loss="zero"),
        lambda body: body.update(partial_loss={}),
        lambda body: body.update(document=[]),
        lambda body: body.update(document=7),
        lambda body: body["document"].update(groups="x"),
        lambda body: body["document"].update(updates_done=0),
    ],
)
def test_a_commit_that_no_epoch_wrote_is_damage(interrupted, cut_session, change):
    _, store, _, newest = interrupted
    rewritten(store, newest, lambda manifest: change(manifest["body"]))
    with pytest.raises(CorruptObject, match="the commit at micro-step 6"):
        restored(interrupted, cut_session)


def exchange_tensors(store, path, change):
    """Puts other tensors in those of the commit at `path`, under a right checksum."""
    folder = path.rpartition("/")[0]

    def exchange(manifest):
        with store.fetch(f"{folder}/{manifest['tensors']['xxh3_128']}.safetensors") as local:
            tensors = {name: one.clone() for name, one in load_tensors(local, device="cpu").items()}
        change(tensors)
        with store.scratch() as scratch:
            save_tensors(tensors, scratch / "x")
            data, checksum = (scratch / "x").read_bytes(), file_checksum(scratch / "x")
        manifest["tensors"] = {"xxh3_128": checksum, "size": len(data)}
        store.put_new(f"{folder}/{checksum}.safetensors", data)

    rewritten(store, path, exchange)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("update_ends"),
        lambda tensors: tensors.update({"update_ends": torch.ones(2, 2)}),
        lambda tensors: tensors.update({"gradient/nobody": torch.ones(3)}),
        lambda tensors: tensors.update({"gradient/head.bias": torch.ones(9)}),
        lambda tensors: tensors.update({"gradient/head.bias": torch.ones(3).double()}),
        lambda tensors: tensors.update({"metric/train/loss": torch.ones(1)}),
        lambda tensors: tensors.pop("metric/train/loss"),
        lambda tensors: tensors.pop("observed/sample_id"),
        lambda tensors: tensors.update({"observed/loss": torch.ones(2, 2)}),
        lambda tensors: tensors.update({"observed/strange": torch.ones(96)}),
        lambda tensors: tensors.update({"observed/loss": torch.ones(96, dtype=torch.bfloat16)}),
        lambda tensors: tensors.update({"model/head.bias": torch.ones(9)}),
        lambda tensors: tensors.clear(),
    ],
)
def test_tensors_of_a_commit_that_do_not_fit_are_damage(interrupted, cut_session, change):
    exchange_tensors(interrupted[1], interrupted[3], change)
    with pytest.raises(CorruptObject, match="the commit at micro-step 6"):
        restored(interrupted, cut_session)


def test_a_damaged_commit_is_set_aside_and_an_older_one_gone_on_from(interrupted, whole):
    project, store, _, newest = interrupted
    rewritten(store, newest, lambda manifest: manifest["body"].update(anchors=[["a"]]))
    run = BareRun(project.config)()
    assert run.digests == whole
    assert list(run.resumed.values()) == [5]
    assert any(path.startswith(f"damaged/{newest}") for path in store.listing("damaged"))


def test_an_epoch_of_which_all_commits_are_damaged_starts_anew(interrupted, whole):
    project, store, older, newest = interrupted
    rewritten(store, older, lambda manifest: manifest["body"].update(updates=0))
    exchange_tensors(store, newest, lambda tensors: tensors.pop("update_ends"))
    run = BareRun(project.config)()
    assert run.resumed == {}
    assert run.digests == whole
