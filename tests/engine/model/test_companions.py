"""What loss and step hold beside the model is trained, stored and there again after a restart."""

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project

from epochal.data.errors import ConfigError, Interrupted, TargetError
from epochal.data.store.open import open_store
from epochal.tasks.trainer.interruption import Interruption
from epochal.tasks.upkeep import verify_store

LOSS = """
    import torch
    from torch import nn
    from torch.nn import functional

    class Learned(nn.Module):
        '''Cross-entropy at a learned temperature, of which a running mean is kept.'''

        def __init__(self):
            super().__init__()
            self.temperature = nn.Parameter(torch.rand(()) + 1.0)
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, logits, target):
            if self.training and torch.is_grad_enabled():
                self.seen += len(target)
            scale = self.temperature * (1.0 + 1e-3 * self.seen)
            return functional.cross_entropy(logits * scale, target, reduction="none")
"""

STEP = """
    import torch
    from torch import nn
    from torch.nn import functional
    from epochal.engine import StepOutput

    class Counting:
        def __init__(self):
            self.count = 0

        def __call__(self, model, batch):
            outputs = model(batch[0])
            if model.training:
                self.count += 1
            loss = functional.cross_entropy(outputs, batch[1], reduction="none")
            return StepOutput(loss * (1 + 0.01 * self.count), outputs)

        def state_dict(self):
            return {"count": self.count, "list": [1, 2.5]}

        def load_state_dict(self, state):
            self.count = state["count"]

    class Holding:
        def __init__(self, fixed=False):
            self.head = nn.Linear(3, 3).requires_grad_(not fixed)

        def __call__(self, model, batch):
            outputs = self.head(model(batch[0]))
            loss = functional.cross_entropy(outputs, batch[1], reduction="none")
            return StepOutput(loss, outputs)

    class AsModule(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 3)

        def forward(self, model, batch):
            outputs = self.head(model(batch[0]))
            loss = functional.cross_entropy(outputs, batch[1], reduction="none")
            return StepOutput(loss, outputs)
"""

LEARNED = {"loss": "{target: 'losses:Learned'}"}
COUNTING = {"step": "{target: 'steps:Counting'}"}
MODULE = {"step": "{target: 'steps:AsModule'}"}


@pytest.fixture
def project(tmp_path, home):
    project = Project(tmp_path / "project", epochs=2)
    project.write("losses.py", LOSS)
    project.write("steps.py", STEP)
    return project


def test_the_parameters_of_a_loss_are_trained_and_stored(project):
    run = BareRun(project.config, **LEARNED)
    before = run.work.ready_components().loss.module.temperature.item()
    run()
    state = run.work.ready_components().state
    assert "loss.temperature" in state.named_parameters()
    assert state.named_parameters()["loss.temperature"].item() != before
    assert {name for _, _, name in run.digests} >= {"companions", "companions_state"}
    assert verify_store(run.session.store).problems == ()


@pytest.mark.parametrize("part", [LEARNED, COUNTING, MODULE], ids=["loss", "step", "module"])
@pytest.mark.parametrize("after", ["an epoch", "a commit"])
def test_a_run_that_was_broken_off_ends_in_the_bytes_of_an_unbroken_one(
    project, tmp_path, part, after, monkeypatch
):
    unbroken = BareRun(project.config, **part, store=f"{tmp_path}/unbroken")()
    sets = {**part, "store": f"{tmp_path}/broken"}
    if after == "an epoch":
        run = BareRun(project.config, **sets)
        for stage in run.run.stages():
            if stage.epoch == 1:
                break
            run.run.run_stage(stage)
    else:
        calls = iter(range(100))
        monkeypatch.setattr(Interruption, "obey", lambda _: _raise_at(next(calls), 3))
        with pytest.raises(Interrupted):
            BareRun(project.config, **sets, checkpoint__every_updates=1)()
        monkeypatch.undo()
    resumed = BareRun(project.config, **sets)()
    assert resumed.digests == unbroken.digests
    metrics = [run.view.record("validate", 1).values["metrics"] for run in (resumed, unbroken)]
    assert metrics[0] == metrics[1]


def _raise_at(call, number):
    if call == number:
        message = "SIGTERM came"
        raise Interrupted(message)


def test_validation_after_a_restart_measures_with_the_stored_state_of_the_loss(project, tmp_path):
    whole = BareRun(project.config, **LEARNED)()
    store = open_store(f"file://{project.store}")
    for record in list(whole.view.records.values()):
        if record.stage == "validate":
            for path in store.listing(f"stages/{record.key}"):
                store.delete(path)
    again = BareRun(project.config, **LEARNED)()
    assert {one.stage.kind for one in again.outcomes if not one.cached} == {"validate"}
    for epoch in (0, 1):
        measured = [run.view.record("validate", epoch).values for run in (whole, again)]
        assert measured[0] == measured[1]


def test_a_loss_without_state_leaves_the_artifacts_as_they_are(project):
    run = BareRun(project.config, loss="{target: 'torch.nn:CrossEntropyLoss'}")()
    assert not any("companions" in name for _, _, name in run.digests)


def test_the_parameters_of_a_loss_take_part_in_groups(project):
    optimizer = (
        "{target: 'torch.optim:AdamW', args: {lr: 0.01}, layer_decay: 0.5, "
        "groups: [{match: 'loss.*', lr_factor: 10}]}"
    )
    run = BareRun(project.config, **LEARNED, optimizer=optimizer)()
    groups = run.work.ready_components().state
    rates = dict(zip(groups.rate_names, groups.base_rates, strict=True))
    assert rates["loss.*"] == pytest.approx(0.1)


def test_the_mean_of_checkpoints_is_measured_with_the_newest_state_of_the_loss(project):
    run = BareRun(project.config, **LEARNED, averaging="{last: 2}")()
    average, last = run.view.record("average", None), run.view.record("train", 1)
    assert average.artifacts["companions"].sha256 == last.artifacts["companions"].sha256


def test_parameters_that_nothing_would_train_are_refused_before_the_start(project):
    with pytest.raises(ConfigError, match=r"step: its loss depends on step\.head\.weight"):
        BareRun(project.config, step="{target: 'steps:Holding'}")
    assert not list(project.store.glob("stages/*"))
    BareRun(project.config, step="{target: 'steps:Holding', args: {fixed: true}}")


def test_a_loss_whose_parameter_has_the_name_of_one_of_the_models_is_refused(project):
    project.write(
        "model.py",
        """
        from torch import nn

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.loss = nn.Module()
                self.loss.temperature = nn.Parameter(__import__("torch").ones(()))
                self.head = nn.Linear(6, 3)

            def forward(self, x):
                return self.head(x)
        """,
    )
    with pytest.raises(TargetError, match=r"'loss\.temperature'"):
        BareRun(project.config, **LEARNED)
