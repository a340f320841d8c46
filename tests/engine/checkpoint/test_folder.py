"""Checkpoints in a folder: bytes of a run, whole or absent, refused where they do not fit."""

import os
from pathlib import Path

import pytest
import torch
from support.numbers.tiny_model import Net, bits, new_state, run_epoch, samples
from support.runs.bare_run import BareRun
from support.runs.project import Project

from epochal.data.errors import CorruptObject, StateMismatch
from epochal.engine import EmaConfig, WeightAverage, load_checkpoint, save_checkpoint


def trained(*, seed=1, ema=False):
    state = new_state(seed=seed)
    if ema:
        state.ema = WeightAverage(state.model, EmaConfig(decay=0.9))
    run_epoch(state, *samples(40))
    return state


@pytest.mark.parametrize("ema", [False, True])
def test_a_state_comes_back_bit_for_bit_and_trains_on_alike(ema, tmp_path):
    first, second = trained(ema=ema), trained(seed=9, ema=ema)
    save_checkpoint(first, tmp_path / "new" / "folder")
    load_checkpoint(second, tmp_path / "new" / "folder")
    for state in (first, second):
        run_epoch(state, *samples(40), epoch=1)
    assert bits(second) == bits(first)
    if ema:
        for name, average in first.ema.tensors.items():
            assert torch.equal(second.ema.tensors[name], average), name


def test_the_files_are_those_of_a_run(tmp_path, home):
    run = BareRun(Project(tmp_path / "project", epochs=1).config, ema="{decay: 0.9}")()
    save_checkpoint(run.work.ready_components().state, str(tmp_path / "saved"))
    record = run.view.record_of(run.view.stage("train", 0))
    files = {name: f"{name}.safetensors" for name in ("model", "optimizer", "ema")}
    files["state"] = "state.json"
    assert {path.name for path in (tmp_path / "saved").iterdir()} == set(files.values())
    for name, file in files.items():
        with run.session.stage_store.fetch_artifact(record, name) as path:
            assert (tmp_path / "saved" / file).read_bytes() == path.read_bytes(), name


def test_no_checkpoint_is_written_over(tmp_path):
    save_checkpoint(trained(), tmp_path / "saved")
    before = {path: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    with pytest.raises(FileExistsError, match="no checkpoint is written over"):
        save_checkpoint(trained(seed=2), tmp_path / "saved")
    assert {path: path.read_bytes() for path in (tmp_path / "saved").iterdir()} == before


def test_the_folder_appears_when_its_files_and_their_names_are_on_the_disk(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync

    def noted(descriptor):
        place = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((place.relative_to(tmp_path).name, (tmp_path / "saved").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    save_checkpoint(trained(), tmp_path / "saved")
    names = ("model.safetensors", "optimizer.safetensors", "state.json", "saved")
    assert synced == [*((name, False) for name in names), ("", True)]


def test_what_fails_in_the_middle_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("epochal.engine.checkpoint.folder.dump_document", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(trained(), tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_missing_damaged_or_of_another_model_is_named(tmp_path):
    save_checkpoint(trained(), tmp_path / "saved")
    with pytest.raises(StateMismatch, match="body.1"):
        load_checkpoint(new_state(lambda: Net(norm=False)), tmp_path / "saved")
    document = tmp_path / "saved" / "state.json"
    document.write_bytes(document.read_bytes().replace(b'"updates_done":5', b'"updates_done":6'))
    with pytest.raises(CorruptObject, match="state.json.*changed or cut"):
        load_checkpoint(new_state(), tmp_path / "saved")
    (tmp_path / "saved" / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        load_checkpoint(new_state(), tmp_path / "saved")
