"""Runs whose batches are augmented: the same bytes for any workers and after any resume."""

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project, environment

from epochal.data.errors import DataError, TargetError, TrainingFailed

IMAGES = """
    import torch
    from torch.utils.data import Dataset, TensorDataset

    class Items(Dataset):
        def __init__(self, data):
            self.data = data

        def __len__(self):
            return len(self.data)

        def __getitem__(self, row):
            return self.data[row]

    def images(split, items=False):
        generator = torch.Generator().manual_seed({"train": 1, "validation": 2}[split])
        labels = torch.arange(48) % 3
        x = torch.randint(0, 100, (48, 3, 10, 10), generator=generator, dtype=torch.uint8)
        x[torch.arange(48), labels] += 100
        data = TensorDataset(x, labels)
        return Items(data) if items else data
"""
NET = """
    import os
    from torch import nn

    class Net(nn.Module):
        calls = 0

        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

        def forward(self, x):
            if self.training:
                self.calls += 1
                if self.calls == int(os.environ.get("FAIL_AT_CALL", -1)):
                    raise RuntimeError("the machine room is on fire")
            return self.head(self.conv(x).relu().mean((2, 3)))
"""
NORMALIZE = "{kind: normalize, mean: [0.4, 0.4, 0.4], std: [0.3, 0.3, 0.3]}"
TRAIN = f"[{{kind: flip}}, {{kind: crop, padding: 2}}, {{kind: noise}}, {NORMALIZE}]"
AUGMENT = {"augment__train": TRAIN, "augment__validation": f"[{NORMALIZE}]"}


@pytest.fixture
def project(tmp_path, home):
    data = {
        f"{split}_data": {"target": "images:images", "args": {"split": split}}
        for split in ("train", "validation")
    }
    project = Project(tmp_path / "project", epochs=2, loader={"batch_size": 8}, **data)
    project.write("images.py", IMAGES)
    project.write("model.py", NET)
    return project


def test_an_augmented_epoch_goes_on_to_the_same_bytes_and_workers_change_nothing(tmp_path, project):
    whole = BareRun(project.config, store=f"file://{tmp_path}/whole", **AUGMENT)()
    plain = dict.fromkeys(AUGMENT, f"[{NORMALIZE}]")
    assert whole.weights != BareRun(project.config, store=f"file://{tmp_path}/p", **plain)().weights
    often = {"checkpoint__every_updates": 1, **AUGMENT}
    with environment(FAIL_AT_CALL="10"), pytest.raises(TrainingFailed):
        BareRun(project.config, **often)()
    again = BareRun(project.config, **often)()
    assert again.resumed
    assert again.digests == whole.digests
    for workers in (0, 2):
        sets = {"train_data__args__items": "true", "loader__workers": workers, **AUGMENT}
        store = f"file://{tmp_path}/workers-{workers}"
        found = BareRun(project.config, store=store, **sets)()
        assert found.weights == whole.weights


def test_validation_and_scoring_get_the_operations_of_validation(tmp_path, project):
    scored = {"sampling__scoring": "{every: 1}", "sampling__final_full": 0, **AUGMENT}
    run = BareRun(project.config, **scored)()
    other = scored | {"augment__validation": "[{kind: to_float}]"}
    changed = BareRun(project.config, store=f"file://{tmp_path}/other", **other)()
    for kind in ("validate", "score"):
        own, others = (one.view.record_of(one.view.stage(kind, 0)) for one in (run, changed))
        assert own.values != others.values
    assert (
        run.view.record_of(run.view.stage("train", 0)).artifacts["model"]
        == (changed.view.record_of(changed.view.stage("train", 0)).artifacts["model"])
    )


@pytest.mark.parametrize(
    ("sets", "error", "problem"),
    [
        ({}, TargetError, "kind: to_float"),
        ({**AUGMENT, "augment__validation": "[]"}, TargetError, "validation_data.* to_float"),
        (
            {"augment__train": "[{kind: crop, size: 11}]", "augment__validation": "[]"},
            DataError,
            "train_data: augment: crop.size is 11 x 11",
        ),
    ],
)
def test_images_that_the_model_or_an_operation_does_not_take_are_refused_before_the_start(
    project, sets, error, problem
):
    with pytest.raises(error, match=problem):
        BareRun(project.config, **sets)


def test_a_plan_names_the_operations_that_changed(project):
    from epochal.tasks.runs.plan import make_plan

    run = BareRun(project.config, **AUGMENT)()
    flips = AUGMENT | {"augment__train": f"[{{kind: flip}}, {NORMALIZE}]"}
    plan = make_plan(BareRun(project.config, **flips).view.config)
    (why,) = next(one.why for one in plan.reports if one.stage.label == "train · epoch 0")
    assert why.startswith("augment.train: [")
    assert run.view is not None


@pytest.mark.slow
def test_several_processes_that_share_updates_augment_as_one(tmp_path, project):
    weights = set()
    for processes in (1, 2, 3):
        sets = {
            "launch__kind": "local", "launch__processes": processes, "gradients__shards": 4,
            "gradients__accumulate": 4, "loader__batch_size": 4, "threads": 1, **AUGMENT,
        }  # fmt: skip
        store = f"file://{tmp_path}/processes-{processes}"
        run = BareRun(project.config, store=store, **sets)
        try:
            weights.add(run().weights)
        finally:
            run.run.close()
    assert len(weights) == 1
