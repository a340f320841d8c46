"""Whole runs with `batches`: resume, workers, policies, keys, and what is refused at the start."""

import numpy as np
import pytest
from support.numbers.stage_keys import FACTS, config, keys
from support.runs.bare_run import BareRun
from support.runs.project import Project, environment

from epochal.data.errors import ConfigError, DataError, TargetError, TrainingFailed
from epochal.data.tables.schemas import OBSERVATIONS
from epochal.data.tables.writing import read_table
from epochal.tasks.planning.run_length import updates_of
from epochal.tasks.planning.stage import DatasetFacts, RunInputs
from epochal.tasks.stages.registry import list_stages

MODEL = """
    import os
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, dropout=0.2, flat=False):
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3, padding=1)
            self.norm = nn.BatchNorm2d(4)
            self.head = nn.Linear(4 * 36 if flat else 4, 3)
            self.dropout, self.flat, self.calls = nn.Dropout(dropout), flat, 0

        def forward(self, x):
            if self.training:
                self.calls += 1
                if self.calls == int(os.environ.get("FAIL_AT_CALL", -1)):
                    raise RuntimeError("the machine room is on fire")
            else:
                assert x.shape[-2:] == (6, 6) or len(x) <= 2, "validation has whole images"
            x = self.norm(self.conv(x)).relu()
            return self.head(self.dropout(x.flatten(1) if self.flat else x.mean((2, 3))))
"""

IMAGES = """
    import random
    import torch
    from torch.utils.data import Dataset

    class Images(Dataset):
        def __init__(self, split, size=41, kind="image", sized=False):
            generator = torch.Generator().manual_seed({"train": 1, "validation": 2}[split])
            self.labels = [min(row % 7, 2) for row in range(size)]
            self.images = torch.randn(size, 1, 6, 6, generator=generator)
            self.images += torch.tensor(self.labels)[:, None, None, None]
            self.train, self.kind = split == "train", kind
            if sized:
                self.item_at_size = self._item_at_size

        def __len__(self):
            return len(self.labels)

        def __getitem__(self, row):
            image = self.images[row]
            if self.train and random.random() < 0.5:
                image = image.flip(-1)
            if self.kind == "flat":
                image = image.flatten()
            return image, float(row) if self.kind == "number" else self.labels[row]

        def _item_at_size(self, position, height, width):
            return torch.full((1, height, width), float(position)), self.labels[position]
"""

BASE = {
    "epochs": 3,
    "threads": 1,
    "train_data": {"target": "images:Images", "args": {"split": "train"}},
    "validation_data": {"target": "images:Images", "args": {"split": "validation"}},
    "loader": {"batch_size": 4},
    "gradients": {"accumulate": 3, "clip_norm": 1.0},
    "sampling": {"policy": "easy_skip", "confidence": 0.5, "final_full": 0},
    "mixing": {"mixup": 0.2, "cutmix": 0.5},
}
SCALES = "sizes: [4, 6, [6, 8]], divisible_by: 2"
VARIABLE = f"{{kind: variable_batch, size: 6, {SCALES}}}"
SAMPLERS = {
    "multi_scale": f"{{kind: multi_scale, {SCALES}, grow_at: [2]}}",
    "variable": VARIABLE,
    "repeats": "{repeats: 3}",
    "truncated": "{repeats: 2, truncate: true}",
    "balanced": "{class_balanced: true}",
    "all": f"{{kind: variable_batch, size: 6, {SCALES}, repeats: 2, class_balanced: true}}",
}


@pytest.fixture
def project(tmp_path, home):
    found = Project(tmp_path / "project", **BASE)
    found.write("model.py", MODEL)
    found.write("images.py", IMAGES)
    return found


def observations(run, epoch):
    record = run.view.records[run.view.stage("train", epoch).known_key]
    with run.session.stage_store.fetch_artifact(record, "observations") as path:
        return record.values, read_table(path, schema=OBSERVATIONS, max_rows=100).columns


@pytest.mark.parametrize(
    "name",
    [name if name == "all" else pytest.param(name, marks=pytest.mark.slow) for name in SAMPLERS],
)
def test_an_epoch_goes_on_to_the_same_bytes_and_workers_change_nothing(tmp_path, project, name):
    sets = {"batches": SAMPLERS[name]}
    whole = BareRun(project.config, store=f"file://{tmp_path}/whole", loader__workers=2, **sets)()
    often = {"checkpoint__every_updates": 1, **sets}
    with environment(FAIL_AT_CALL="6"), pytest.raises(TrainingFailed):
        BareRun(project.config, **often)()
    again = BareRun(project.config, **often)()
    assert again.resumed
    assert again.digests == whole.digests


@pytest.mark.slow
def test_a_sample_that_comes_more_than_once_has_one_row_of_its_first_time(project, tmp_path):
    plain = {"sampling": "{policy: none}", "mixing": "null", "model__args": "{dropout: 0}"}
    one, three = (
        BareRun(
            project.config, store=f"file://{tmp_path}/{repeats}", epochs=1,
            batches=f"{{repeats: {repeats}}}", **plain,
        )()
        for repeats in (1, 3)
    )  # fmt: skip
    values, seen = observations(three, 0)
    assert values["samples"] == 3 * 41
    assert seen["sample_id"].tolist() == list(range(41))
    assert values["updates"] == updates_of(three.session.config, 0, num_samples=41) == 11
    assert observations(one, 0)[0]["updates"] == 4


def test_a_data_set_may_give_its_items_at_the_resolution_itself(project, tmp_path):
    sized = "{target: 'images:Images', args: {split: train, sized: true}}"
    sets = {"batches": VARIABLE, "train_data": sized}
    runs = [
        BareRun(project.config, store=f"file://{tmp_path}/{workers}", epochs=2,
                loader__workers=workers, **sets)()
        for workers in (0, 2)
    ]  # fmt: skip
    other = BareRun(project.config, store=f"file://{tmp_path}/other", epochs=2, batches=VARIABLE)()
    assert runs[0].digests == runs[1].digests
    assert runs[0].weights != other.weights


@pytest.mark.parametrize(
    ("sets", "error", "problem"),
    [
        ({"batches": VARIABLE, "train_data__args__kind": "flat", "mixing": "null",
          "model": "{target: 'torch.nn:Linear', args: {in_features: 36, out_features: 3}}"},
         TargetError, "resolutions are of images"),
        ({"batches": VARIABLE, "model__args": "{flat: true}"},
         TargetError, "at 4 x 4 pixels of `batches`"),
        ({"batches": "{class_balanced: true}", "train_data__args__kind": "number",
          "sampling": "{policy: none}", "mixing": "null",
          "step": "{target: 'own:Step'}"}, DataError, "not every item has a whole number"),
        ({"batches": VARIABLE, "max_updates": 5, "sampling": "{policy: none}"},
         ConfigError, "max_updates: .*batches.kind: variable_batch changes"),
        ({"batches": VARIABLE, "sampling": "{policy: none}",
          "schedule": "{kind: cosine, unit: updates}"},
         ConfigError, "batches.kind: 'variable_batch' changes it"),
    ],
)  # fmt: skip
def test_what_cannot_be_sampled_is_told_before_the_start(project, sets, error, problem):
    project.write("own.py", "def Step():\n    return lambda model, batch: None\n")
    with pytest.raises(error, match=problem):
        BareRun(project.config, **sets)
    assert not list(project.store.glob("stages/*"))


def test_an_image_model_that_needs_one_size_tells_its_batch_of_one_sample(project):
    model = MODEL.replace("nn.BatchNorm2d(4)", "nn.BatchNorm1d(4)").replace(
        "self.norm(self.conv(x)).relu()", "self.norm(self.conv(x).mean((2, 3)))[:, :, None, None]"
    )
    project.write("model.py", model)
    single = "{kind: variable_batch, size: 4, sizes: [4, 8], divisible_by: 4}"
    with pytest.raises(ConfigError, match="leave a batch of a single one"):
        BareRun(project.config, batches=single, loader__batch_size=4, mixing="null")


def key_of(**changes):
    run_inputs = RunInputs(FACTS.sources, DatasetFacts("c" * 64, 100), FACTS.validation_data)
    return {(one.kind, one.epoch): one.key for one in list_stages(config(**changes), run_inputs)}


def test_only_what_acts_in_an_epoch_is_in_its_key():
    assert keys(batches={}) == keys() == keys(batches={"truncate": True, "num_sizes": 9})
    base = {"kind": "multi_scale", "sizes": [64, 128]}
    plain, grown = keys(batches=base), keys(batches={**base, "grow_at": [3]})
    changed = {place for place in plain if plain[place] != grown[place]}
    assert ("train", 2) not in changed
    assert ("train", 3) in changed
    assert plain["initialise", None] == keys()["initialise", None]
    assert plain["train", 0] != keys()["train", 0]
    same = {"kind": "multi_scale", "min_size": 64, "max_size": 128, "num_sizes": 2}
    assert keys(batches=same) == plain
    assert len({keys(batches=one)["train", 0] for one in (
        {"repeats": 2}, {"repeats": 2, "truncate": True}, {"class_balanced": True},
        {"kind": "variable_batch", "sizes": [64, 128], "size": 64},
        {"kind": "variable_batch", "sizes": [64, 128], "size": 128},
    )}) == 5  # fmt: skip


def test_a_limit_counts_repeated_samples_and_resolutions_leave_it_be(project):
    plain = {"sampling": "{policy: none}", "max_updates": 15}
    found = f"{{kind: multi_scale, {SCALES}, repeats: 2}}"
    run = BareRun(project.config, batches=found, **plain)()
    done = [one.values["updates"] for one in run.view.records.values() if one.stage == "train"]
    assert done == [7, 7, 1]
    assert run.view.records[run.view.stage("train", 2).known_key].values["samples"] == 12


def test_repeats_of_a_sample_are_augmented_and_mixed_each_in_its_own_way():
    from epochal.engine.config.mixing import MixingConfig
    from epochal.engine.loop.mixing import plan_mixing

    ids, turns = np.array([7, 7, 7, 8]), np.array([0, 1, 2, 0])
    mixed = MixingConfig(mixup=1.0)
    found = plan_mixing(mixed, ids, seed=1, epoch=0, size_HW=None, repeats_B=turns)
    once = plan_mixing(mixed, ids[[0, 3]], seed=1, epoch=0, size_HW=None)
    assert len(set(found.share_B.tolist())) == 4
    assert found.share_B[[0, 3]].tolist() == once.share_B.tolist()
