"""Bad inputs that only a run meets: each stops it in time, or is told, and none is trained on."""

import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from support.numbers.tiny_model import save_tensors
from support.runs.bare_run import BareRun
from support.runs.project import Project
from support.stores.planted_files import plant

from epochal.data.errors import (
    ConfigError,
    DataError,
    NonFinite,
    PreflightFailed,
    StateMismatch,
    TargetError,
    TrainingFailed,
)
from epochal.data.inspection.labels import check_labels
from epochal.data.store.open import open_store
from epochal.data.tables.writing import UPDATES, read_table, write_table
from epochal.engine.checkpoint.serialize import load_tensors

DATA = """
    import torch
    from torch.utils.data import Dataset, TensorDataset

    def made(size, bad=None, value=float("nan"), label=0):
        labels = torch.arange(size) % 3
        inputs = torch.randn(size, 6, generator=torch.Generator().manual_seed(1))
        if bad is not None:
            inputs[bad] = value
        labels[:2] = torch.tensor([label, 1])
        return TensorDataset(inputs, labels)

    class Photos(Dataset):
        '''States what it is, so that most of its items are first read in training.'''
        def __init__(self, broken):
            self.broken = broken
        def fingerprint(self):
            return f"photos, {self.broken} is cut"
        def __len__(self):
            return 180
        def __getitem__(self, row):
            if row == self.broken:
                raise OSError("image file is truncated (4 bytes not processed)")
            return torch.ones(6) * row, row % 3
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    made = Project(tmp_path / "project", epochs=2)
    made.write("made.py", DATA)
    return made


def data(name="made", **args):
    return json.dumps({"target": f"made:{name}", "args": args})


def committed(run):
    """Kinds of the stages that the store has, in order."""
    session = run.session
    return [one.kind for one in session.run.stages if one.known_key in session.run.records]


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_non_finite_loss_names_epoch_update_and_sample_and_commits_nothing(project, value):
    project.write("made.py", DATA.replace("= value", f"= float('{value}')"))
    # BatchNorm would make every loss of the batch NaN.
    project.write("model.py", "from torch import nn\ndef Net(): return nn.Linear(6, 3)\n")
    run = BareRun(project.config, train_data=data(size=40, bad=7))
    with pytest.raises(NonFinite, match=r"epoch 0, update \d+ of 2: loss nan.*: 7\. Nothing of"):
        run()
    assert committed(run) == ["initialise"]
    assert not list(project.store.glob("stages/*/partial/*.json"))


@pytest.mark.parametrize("policy", ["none", "easy_skip"])
def test_a_last_batch_of_one_that_batch_norm_refuses_is_found_before_anything_starts(
    project, policy
):
    with pytest.raises(ConfigError, match=r"33 samples.*single one.*loader\.drop_last: true"):
        BareRun(project.config, train_data=data(size=33), sampling__policy=policy)
    assert not list(project.store.glob("stages/*"))
    run = BareRun(
        project.config,
        train_data=data(size=33), sampling__policy="none", loader__drop_last="true", epochs=1,
    )()  # fmt: skip
    assert run.outcomes[1].record.values["samples"] == 32


def test_a_last_batch_of_one_is_trained_on_where_the_model_can(project):
    project.write("model.py", "from torch import nn\ndef Net(): return nn.Linear(6, 3)\n")
    run = BareRun(project.config, train_data=data(size=33), epochs=1)()
    assert run.outcomes[1].record.values["samples"] == 33


def test_a_last_batch_of_one_that_a_policy_leaves_says_what_to_set(project, monkeypatch):
    from epochal.data.loading.order import micro_batches
    from epochal.tasks.stages import train as train_stage

    def one_left(session, stage, table):
        plan = original(session, stage, table)
        return micro_batches(plan.order_K[:17], batch_size=16, accumulate=plan.accumulate)

    original = train_stage._micro_batches
    monkeypatch.setattr(train_stage, "_micro_batches", one_left)
    with pytest.raises(TrainingFailed, match=r"single sample: set loader\.drop_last: true"):
        BareRun(project.config)()


def test_a_broken_image_that_training_meets_is_named_and_what_was_done_stays(project):
    photos = data("Photos", broken=92)  # at which no start looks
    run = BareRun(project.config, train_data=photos, loader__batch_size=8)
    with pytest.raises(TrainingFailed, match=r"sample 92 .* image file is truncated"):
        run()
    assert committed(run) == ["initialise"]


def test_labels_that_the_loss_ignores_are_counted_and_told(caplog):
    labels = np.array([0, -100, 2, -100, 1])
    with caplog.at_level(logging.WARNING):
        check_labels(-100, 2, labels_N=labels, num_classes=3, ignore_index=-100, name="train_data")
    assert "train_data: 2 of 5 labels are -100, which the loss ignores" in caplog.text


def test_a_label_outside_the_classes_stops_before_anything_starts(project):
    for label in (3, -1, -99):
        with pytest.raises(DataError, match=f"found the label {label} "):
            BareRun(project.config, train_data=data(size=30, label=label))
    assert not list(project.store.glob("stages/*"))


def test_another_config_never_loads_a_checkpoint_of_this_one(project):
    BareRun(project.config)()
    for changes in (
        {"model__args": "{width: 8}"},
        {"optimizer": "{target: 'torch.optim:SGD', args: {lr: 0.01}}"},
        {"gradients__accumulate": 1},
    ):
        assert set(committed(BareRun(project.config, **changes))) <= {"initialise"}


def test_a_record_of_another_config_under_this_key_names_what_does_not_fit(project):
    """As if an installed model had changed: its version is in no key."""
    BareRun(project.config, epochs=1)()
    store = open_store(f"file://{project.store}")
    session = BareRun(project.config).session
    record = session.run.record_of(session.run.stage("train", 0))
    folder = f"stages/{record.key}"
    with store.fetch(f"{folder}/{record.artifacts['model'].file}") as path:
        tensors = {name: one.clone() for name, one in load_tensors(path, device="cpu").items()}
    tensors["head.weight"] = torch.ones(3, 8)
    with store.scratch() as scratch:
        save_tensors(tensors, scratch / "x")
        plant(store, record, "model", (scratch / "x").read_bytes())
    with pytest.raises(StateMismatch, match=r"head\.weight: stored \(3, 8\).*\(3, 16\)"):
        BareRun(project.config)()


def test_an_infinite_step_metric_is_in_the_table_as_it_was(tmp_path):
    columns = {"step": [1, 2], "key": ["gradients/norm"] * 2, "value": [math.inf, 1.0]}
    write_table(columns, tmp_path / "t", schema=UPDATES, metadata={})
    assert read_table(tmp_path / "t", schema=UPDATES).columns["value"].tolist() == [math.inf, 1.0]


def test_a_missing_parent_of_the_store_is_made(project, tmp_path):
    store = tmp_path / "a/b/c"
    BareRun(project.config, store=str(store), epochs=1)()
    assert list(store.glob("stages/*/record.json"))


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder nobody can fill")
def test_a_place_where_nothing_can_be_made_fails_the_preflight(project):
    with pytest.raises(PreflightFailed, match=r"/proc/store.*then run the same command"):
        BareRun(project.config, store="/proc/store/x")


def test_a_loss_that_refuses_its_args_is_one_clear_error(project):
    loss = "{target: 'torch.nn:MSELoss', args: {no: 1}}"
    with pytest.raises(TargetError, match=r"loss: .*unexpected keyword argument 'no'"):
        BareRun(project.config, loss=loss)
