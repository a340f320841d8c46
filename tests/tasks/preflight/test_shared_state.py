"""State that several processes would each change is named before anything starts."""

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project
from support.trainers.forked_trainer import fork_trainers

from epochal.data.errors import InputError

MODEL = """
    import torch
    from torch import nn
    from torch.nn.utils.parametrizations import spectral_norm

    class Net(nn.Module):
        def __init__(self, what):
            super().__init__()
            self.body, self.norm, self.head = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
            self.register_buffer("centre", torch.zeros(8))
            self.what, self.count = what, 0
            if what == "spectral":
                self.body = spectral_norm(self.body)

        def forward(self, x):
            x = self.norm(self.body(x))
            if self.training and self.what == "buffer":
                self.centre.lerp_(x.detach().mean(0), 0.1)
            if self.training and self.what == "new buffer":
                self.centre = self.centre + 1
            if self.training and self.what == "weights":
                with torch.no_grad():
                    self.head.weight.clamp_(-1, 1)
            if self.training and self.what == "counter":
                self.count += 1
            return self.head(x)

        def get_extra_state(self):
            return torch.tensor(self.count if self.what == "extra" else 0)

        def set_extra_state(self, state):
            self.count = int(state)

    class Extra(Net):
        def forward(self, x):
            if self.training:
                self.count += 1
            return super().forward(x)
"""
STEP = """
    import epochal.engine as engine
    from torch.nn import functional

    class Step:
        def __init__(self):
            self.seen = 0

        def state_dict(self):
            return {"seen": self.seen}

        def load_state_dict(self, state):
            self.seen = state["seen"]

        def __call__(self, model, batch):
            if model.training:
                self.seen += 1
            x, y = batch
            outputs = model(x)
            return engine.StepOutput(
                functional.cross_entropy(outputs, y, reduction="none"), outputs=outputs
            )
"""
TWO = {"launch__kind": "local", "launch__processes": 2, "gradients__shards": 2}


@pytest.fixture
def project(tmp_path, home, monkeypatch):
    fork_trainers(monkeypatch, Project(tmp_path / "warm", epochs=1))
    made = Project(tmp_path / "project", epochs=1, sampling={"policy": "none"})
    made.write("keeping.py", MODEL)
    made.write("steps.py", STEP)
    return made


@pytest.mark.parametrize(
    ("sets", "named"),
    [
        ({"model": "{target: 'keeping:Net', args: {what: buffer}}"}, r"model\.centre is changed"),
        (
            {"model": "{target: 'keeping:Net', args: {what: new buffer}}"},
            r"model\.centre is changed",
        ),
        ({"model": "{target: 'keeping:Net', args: {what: spectral}}"}, r"model\.body.*_[uv] is"),
        ({"model": "{target: 'keeping:Net', args: {what: weights}}"}, r"model\.head\.weight is"),
        ({"model": "{target: 'keeping:Extra', args: {what: extra}}"}, "the extra state of a Extra"),
        ({"step": "{target: 'steps:Step'}"}, "the state_dict of `step`"),
    ],
)
def test_what_a_step_changes_by_itself_is_refused_for_several_processes(sets, named, project):
    with pytest.raises(InputError, match=rf"launch\.processes: .*{named}"):
        BareRun(project.config, **sets, **TWO)
    assert not list(project.store.glob("stages/*"))


def test_what_no_checkpoint_holds_is_said(project):
    run = BareRun(project.config, model="{target: 'keeping:Net', args: {what: counter}}", **TWO)
    run.session.trainer.close()
    assert any("Several processes change one each" in text for text in run.notices)


def test_running_statistics_are_not(project):
    run = BareRun(project.config, model="{target: 'keeping:Net', args: {what: nothing}}", **TWO)
    run.session.trainer.close()
