"""State that no checkpoint holds is named before the start, and the trial leaves no trace."""

import random

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project

from epochal.data.errors import PreflightFailed

MODEL = """
    import random
    import numpy as np
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, what="nothing"):
            super().__init__()
            self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
            self.norm = nn.BatchNorm1d(8)
            self.register_buffer("carried", torch.zeros(()))
            self.register_buffer("left_out", torch.zeros(()), persistent=False)
            self.what, self.count, self.last = what, 0, None
            self.centre = torch.zeros(8)
            self.history = []
            self.generator = torch.Generator().manual_seed(1)
            self.numbers = np.random.default_rng(1)
            self.python = random.Random(1)

        def forward(self, x):
            x = self.norm(self.body(x))
            self.carried += 1
            self.last = x.detach()  # the same samples give the same again: no state
            if self.training:
                self.change(x.detach())
            return self.head(x)

        def change(self, x):
            if self.what == "left_out":
                self.left_out += 1
            elif self.what == "count":
                self.count += 1
            elif self.what == "centre":
                self.centre = 0.9 * self.centre + x.mean(0)
            elif self.what == "history":
                self.history.append(len(x))
            elif self.what == "generator":
                torch.rand((), generator=self.generator)
            elif self.what == "numbers":
                self.numbers.random()
            elif self.what == "python":
                self.python.random()
"""

STEP = """
    from torch.nn import functional
    from epochal.engine import StepOutput

    class Step:
        def __init__(self):
            self.calls = 0

        def __call__(self, model, batch):
            self.calls += 1
            outputs = model(batch[0])
            loss = functional.cross_entropy(outputs, batch[1], reduction="none")
            return StepOutput(loss, outputs)
"""


@pytest.fixture
def project(tmp_path, home):
    project = Project(tmp_path / "project", epochs=1)
    project.write("model.py", MODEL)
    project.write("steps.py", STEP)
    return project


def told(run):
    return [text for text in run.notices if "what no checkpoint holds" in text]


@pytest.mark.parametrize(
    "what", ["left_out", "count", "centre", "history", "generator", "numbers", "python"]
)
def test_what_a_step_changes_and_no_checkpoint_holds_is_named(project, what):
    (text,) = told(BareRun(project.config, model__args=f"{{what: {what}}}"))
    assert f"holds: model.{what}: " in text
    assert ";" not in text.partition("holds: ")[2].partition(". A run")[0]
    with pytest.raises(PreflightFailed, match=rf"model\.{what}"):
        BareRun(project.config, model__args=f"{{what: {what}}}", reproducibility="strict")


def test_buffers_that_are_stored_and_what_the_same_samples_give_again_are_not(project):
    assert told(BareRun(project.config)) == []


def test_an_attribute_of_the_step_is_named(project):
    (text,) = told(BareRun(project.config, step="{target: 'steps:Step'}"))
    assert "holds: step.calls: " in text


@pytest.mark.parametrize("what", ["count", "history", "centre", "python"])
def test_the_trial_changes_nothing_of_what_training_begins_with(project, what):
    run = BareRun(project.config, model__args=f"{{what: {what}}}")
    model = run.session.ready_components().state.model
    assert float(model.carried) == 0.0
    assert (model.count, model.history, model.last) == (0, [], None)
    assert float(model.centre.abs().sum()) == 0.0
    assert model.python.random() == random.Random(1).random()
    assert float(model.norm.num_batches_tracked) == 0
    assert float(model.norm.running_mean.abs().sum()) == 0.0
