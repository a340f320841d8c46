"""`epochal audit`: what it computes again, what it finds, and its exit codes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from support.runs.bare_run import BareRun, copy_of
from support.runs.project import MODEL, Project, call, environment

from epochal.tasks.checkpoints.commit_writer import CommitWriter
from epochal.tasks.stages import train

CHANGES = {"epochs": 4, "checkpoint": {"keep_last": 2, "keep_best": 0}}
DRIFTS = MODEL.replace(
    "return self.head(", 'return (1 + float(os.environ.get("DRIFT", 0))) * self.head('
)
"""A model that computes otherwise on another machine: its code and so its keys are the same."""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    with environment(HOME=str(folder / "home")):
        project = Project(folder / "project", **CHANGES)
        project.write("model.py", DRIFTS)
        BareRun(project.config)()
    return project


def audit(project, *options):
    return call("audit", str(project.config), *options)


def test_every_byte_of_a_run_is_computed_again_and_nothing_is_written(project, home):
    def files():
        found = {path: path.stat().st_mtime_ns for path in project.store.rglob("*")}
        return {path: at for path, at in found.items() if path.is_file()}

    before = files()
    done = audit(project, "--share", "1", "--json")
    assert (done.code, done.err.count("✓")) == (0, 12), done.err
    assert (done.json["run"], done.json["checked"], done.json["differ"]) == ("blobs", 4, [])
    assert done.json["lost"] is None
    assert files() == before


def test_epochs_that_come_out_otherwise_are_named_each_by_itself(project, home, monkeypatch):
    monkeypatch.setenv("DRIFT", "1e-3")
    done = audit(project, "--share", "1", "--json")
    assert done.code == 3
    assert "stages came out otherwise than stored: look for" in done.err
    assert done.json["checked"] == 4
    found = {(one["stage"], one["epoch"]): one["what"] for one in done.json["differ"]}
    assert set(found) == {(kind, epoch) for kind in ("train", "validate") for epoch in range(4)}
    # Validation is computed by the stored weights, mining by the stored table.
    assert any(text.startswith("artifact model: ") for text in found["train", 2])
    assert {text.split(":")[0] for text in found["validate", 0]} <= {"value loss", "value metrics"}


@pytest.fixture(scope="module")
def wrong(tmp_path_factory):
    """A run of which epoch 2 was computed wrongly: one bit of one weight, and what went on from it.

    All digests are of the bytes that were written.
    """
    folder = tmp_path_factory.mktemp("wrong")
    with environment(HOME=str(folder / "home")), pytest.MonkeyPatch.context() as patch:
        project = Project(folder / "project", **CHANGES)
        right, epochs = train.checkpoint_parts, []

        def flipped(state):
            epochs.append(state)
            if len(epochs) == 3:
                with torch.no_grad():
                    state.model.head.weight.view(torch.int32)[1, 3] ^= 1 << 20
            return right(state)

        patch.setattr(train, "checkpoint_parts", flipped)
        BareRun(project.config)()
    return project


def test_a_flipped_bit_is_told_with_its_tensor_its_place_and_what_it_has_cost(wrong, home):
    done = audit(wrong, "--share", "1", "--json")
    assert done.code == 3, done.err
    (one,) = done.json["differ"]
    assert (one["stage"], one["epoch"]) == ("train", 2)
    (part,) = one["parts"]
    assert (part["artifact"], part["part"], part["first"]) == ("model", "head.weight", [1, 3])
    assert (part["different"], part["of"], part["bits"]) == (1, 48, 1)
    assert part["largest"] == abs(part["stored"] - part["computed"]) > 0
    assert done.json["seconds"] > 0
    assert 0.5 < done.json["share_of_time"] <= 1
    assert (done.json["lost"]["first"], done.json["lost"]["epochs"]) == (2, 2)
    assert done.json["lost"]["seconds"] > 0


def test_a_person_sees_in_what_it_differs_and_what_is_lost(wrong, home):
    done = audit(wrong, "--share", "1")
    assert done.code == 3
    text = " ".join(done.out.split())
    assert "model: head.weight: 1 of 48 numbers (1 bit in all), the first at 1, 3: " in text
    assert "to be computed again: 2 stored epochs, from epoch 2 on: " in text
    assert "the audit took " in text


def test_without_the_checkpoint_before_it_an_epoch_begins_with_an_earlier_one(
    project, tmp_path, home, monkeypatch
):
    copy = copy_of(project, tmp_path / "copy", **CHANGES)
    copy.write("model.py", DRIFTS)
    assert call("gc", str(copy.store), "--yes").code == 0
    seed = next(seed for seed in range(50) if audited(project, seed) == [2])
    done = audit(copy, "--share", "0.25", "--seed", str(seed), "--json")
    assert (done.code, done.json["epochs"], done.json["differ"]) == (0, [0, 1, 2], []), done.err
    assert "epoch 2 begins with initialise" in done.err
    monkeypatch.setenv("DRIFT", "1e-3")
    other = audit(copy, "--share", "0.25", "--seed", str(seed), "--json").json
    assert (other["epochs"], other["unchecked"]) == ([0], [2])
    assert [(one["stage"], one["epoch"]) for one in other["differ"]] == [("train", 0)]


def audited(project, seed):
    from epochal.tasks.audit.audit import chosen
    from epochal.tasks.runs.find_run import find_run

    stages = [stage for stage, _ in find_run(str(project.config)).of_kind("train")]
    return [stage.number for stage in chosen(stages, share=0.25, seed=seed)]


def changed(project, tmp_path, change, *, kind, epoch, artifact):
    """A copy of the project with one artifact of its store changed."""
    copy = copy_of(project, tmp_path / "copy", **CHANGES)
    copy.write("model.py", DRIFTS)
    for path in copy.store.glob("stages/*/record.json"):
        record = json.loads(path.read_text())["body"]
        if (record["stage"], record["epoch"]) == (kind, epoch):
            change(path.parent / record["artifacts"][artifact]["file"])
    return copy


def flip(path):
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(body)


@pytest.mark.parametrize(
    ("kind", "epoch", "artifact"),
    [("train", 3, "model"), ("train", 0, "model"), ("train", 1, "updates"), ("mine", 1, "samples")],
)
def test_what_is_stored_and_damaged_is_found_too_and_is_no_wrong_computation(
    kind, epoch, artifact, project, tmp_path, home
):
    copy = changed(project, tmp_path, flip, kind=kind, epoch=epoch, artifact=artifact)
    before = {path: path.read_bytes() for path in copy.store.rglob("*") if path.is_file()}
    done = audit(copy, "--share", "1", "--json")
    assert done.code == 3, done.err
    (one,) = done.json["differ"]
    assert (one["stage"], one["epoch"], one["damaged"]) == (kind, epoch, True)
    assert one["what"] == [f"artifact {artifact}: what is stored is not what was written"]
    assert done.json["lost"] is None
    assert "1 stages are damaged in the store: `epochal verify`" in done.err
    assert {path: path.read_bytes() for path in copy.store.rglob("*") if path.is_file()} == before


def test_what_is_damaged_and_came_out_otherwise_is_told_as_both(
    project, tmp_path, home, monkeypatch
):
    copy = changed(project, tmp_path, flip, kind="train", epoch=3, artifact="model")
    monkeypatch.setenv("DRIFT", "1e-3")
    done = audit(copy, "--share", "1", "--json")
    assert done.code == 3, done.err
    found = [one for one in done.json["differ"] if (one["stage"], one["epoch"]) == ("train", 3)]
    assert sorted(one["damaged"] for one in found) == [False, True]


def test_an_epoch_that_begins_with_what_is_lost_is_not_checked_and_the_others_are(
    project, tmp_path, home
):
    copy = changed(project, tmp_path, Path.unlink, kind="train", epoch=0, artifact="model")
    done = audit(copy, "--share", "1", "--json")
    assert done.code == 0, done.err
    assert (done.json["epochs"], done.json["unchecked"]) == ([2, 3], [1])
    assert "train · epoch 1 is not checked: train · epoch 0, with which it begins, is" in done.err


def test_an_audit_asks_for_no_commit_and_needs_no_store_that_it_may_write_to(
    project, tmp_path, home
):
    copy = copy_of(project, tmp_path / "copy", **CHANGES)
    copy.write("model.py", DRIFTS)
    shutil.rmtree(copy.store / "fingerprints")
    before = {path: path.lstat().st_mtime_ns for path in copy.store.rglob("*")}
    options = ("--share", "0.5", "--set", "checkpoint.every_updates=1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CommitWriter, "begin", lambda *_: pytest.fail("a commit"))
        done = audit(copy, *options)
    assert done.code == 0, done.err
    assert "✓ every byte of what was checked is as it is stored" in done.out
    after = {path: path.lstat().st_mtime_ns for path in copy.store.rglob("*")}
    assert {path: at for path, at in after.items() if path.name != "tmp"} == {
        path: at for path, at in before.items() if path.name != "tmp"
    }


@pytest.mark.parametrize(
    ("run", "options", "says"),
    [
        (None, ("--share", "0"), "--share 0: expected a number above 0, at most 1"),
        (None, ("--share", "1.5"), "--share 1.5: expected a number above 0"),
        ("blobs", (), "name the run by its config's path instead of 'blobs'"),
    ],
)
def test_what_cannot_be_computed_again_is_refused_with_2(run, options, says, project, home):
    store = ("--store", str(project.store)) if run else ()
    done = call("audit", run or str(project.config), *options, *store)
    assert done.code == 2
    assert says in done.err


def test_code_that_is_another_is_no_machine_that_computes_wrongly(project, tmp_path, home):
    copy = copy_of(project, tmp_path / "copy", **CHANGES)
    done = audit(copy, "--share", "1")
    assert done.code == 2
    assert "no epoch is in" in done.err
    assert "`epochal plan` says" in done.err
