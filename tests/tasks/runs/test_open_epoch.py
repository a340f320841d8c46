"""An epoch that is not done, by its commits: what is told of it, and that only looks on."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.runs.bare_run import BareRun, unfinished_project
from support.runs.project import Project

from epochal.data.stage_store.mid_epoch import MidEpochStore
from epochal.data.store.hashed_files import ChecksummedFile
from epochal.data.tables.schemas import OBSERVATIONS
from epochal.data.tables.writing import read_table
from epochal.tasks.runs import open_epoch as module
from epochal.tasks.runs.find_run import find_run
from epochal.tasks.runs.open_epoch import latest_commit, open_epoch, open_stage


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return unfinished_project(tmp_path_factory.mktemp("unfinished"))


@pytest.fixture
def found(project, tmp_path, home):
    """The run, killed at update 4 of 6 of its epoch 1, in a store of its own."""
    shutil.copytree(project.store, tmp_path / "store")
    return find_run("blobs", store=str(tmp_path / "store"))


def files(run):
    folder = run.store.url.removeprefix("file://")
    return sorted(f"{folder}/{path}" for path in run.store.listing("stages"))


def partial_of(run):
    return [path for path in files(run) if "/partial/" in path]


def stored_as(run, tensors):
    """The commit's file in the store, of which the one that is read is another name."""
    (stored,) = [Path(path) for path in partial_of(run) if tensors.samefile(path)]
    return stored


def test_the_newest_commit_tells_where_the_epoch_is_and_nothing_is_written(found):
    before = files(found)
    open_ = open_epoch(found)
    assert open_.text == "epoch 1 is at update 4 of 6"
    assert (open_.updates_before, open_.samples) == (6, 128)
    assert open_.times[-1][0] == 4
    assert files(found) == before
    assert latest_commit(found) is not None


def test_what_is_told_is_what_the_finished_epoch_has_to_the_bit(found, project, tmp_path):
    open_ = open_epoch(found)
    again = Project(tmp_path / "again", epochs=2)
    shutil.copytree(found.store.url.removeprefix("file://"), again.store)
    run = BareRun(again.config, epochs=3)()
    assert run.resumed == {("train", 1): 8}  # micro-steps, two to an update
    whole = find_run("blobs@1", store=str(again.store))
    record = whole.record("train", 1)
    with whole.stage_store.fetch_artifact(record, "observations") as path:
        table = read_table(path, schema=OBSERVATIONS).columns
    ids_N = open_.recorded.observations["sample_id"][: open_.samples]
    rows_N = np.searchsorted(table["sample_id"], ids_N)
    losses_N = open_.recorded.observations["loss"][: open_.samples]
    assert table["loss"][rows_N].tobytes() == losses_N.tobytes()
    assert open_epoch(whole) is None
    assert latest_commit(whole) is None


def test_a_commit_that_is_deleted_while_it_is_read_is_passed_over(found, monkeypatch):
    read, given = module.read_recorded, []

    def late(tensors):
        given.append(tensors)
        if len(given) == 1:
            stored_as(found, tensors).unlink()
            raise FileNotFoundError(tensors)
        return read(tensors)

    monkeypatch.setattr(module, "read_recorded", late)
    assert open_epoch(found).updates == 3
    assert len(given) == 2


def test_a_damaged_commit_is_passed_over_and_without_one_there_is_no_epoch_at_work(found):
    tensors = [path for path in partial_of(found) if path.endswith(".safetensors")]
    newest = max(tensors, key=lambda path: Path(path).stat().st_mtime_ns)
    Path(newest).write_bytes(b"not what was written")
    assert open_epoch(found).updates == 3
    for path in partial_of(found):
        Path(path).unlink()
    assert open_epoch(found) is None


def test_of_two_environments_the_commit_counts_that_was_made_last(found):
    stage = open_stage(found)
    commits = MidEpochStore(found.store, stage.known_key)
    first = commits.listed()[-1]
    with commits.newest(fits=lambda body: body["updates"] == 3, notice=pytest.fail) as commit:
        later = [[done, moment + 1000] for done, moment in first.body["anchors"]]
        body = {**first.body, "environment_digest": "another", "anchors": later}
        shutil.copyfile(commit.tensors, copy := Path(commit.tensors).with_suffix(".copy"))
        checksum = stored_as(found, commit.tensors).stem
        commits.commit(5, ChecksummedFile(copy, checksum, copy.stat().st_size), body)
    assert [one.micro_steps for one in commits.listed()] == [8, 6, 5]
    assert open_epoch(found).updates == 3  # as the body says


def test_a_commit_on_another_checkpoint_is_none_of_this_run(found):
    parent = open_stage(found).parents["parent"]
    record = found.records[parent.known_key]
    other = replace(record.artifacts["model"], sha256="0" * 64, file=f"{'0' * 64}.safetensors")
    artifacts = {**record.artifacts, "model": other}
    records = {**found.records, parent.known_key: replace(record, artifacts=artifacts)}
    assert open_epoch(replace(found, records=records)) is None


def test_a_commit_that_is_too_large_to_be_read_says_where_the_epoch_is(found, monkeypatch):
    monkeypatch.setattr(module, "MAX_COMMIT_BYTES", 10)
    open_ = open_epoch(found)
    assert open_.text == "epoch 1 is at update 4 of 6"
    assert (open_.samples, open_.metrics) == (None, {})
    assert open_.unread_bytes > 10
