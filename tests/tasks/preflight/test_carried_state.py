"""State that no checkpoint holds is named before the start, and the trial leaves no trace."""

import random

import pytest
import torch
from support.runs.bare_run import BareRun
from support.runs.project import Project

from epochal.data.errors import ConfigError, PreflightFailed
from epochal.tasks.user_code.components import build_components

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
    model = run.work.ready_components().state.model
    assert float(model.carried) == 0.0
    assert (model.count, model.history, model.last) == (0, [], None)
    assert float(model.centre.abs().sum()) == 0.0
    assert model.python.random() == random.Random(1).random()
    assert float(model.norm.num_batches_tracked) == 0
    assert float(model.norm.running_mean.abs().sum()) == 0.0


TEACHERS = """
    import copy
    import torch
    from torch import nn
    from torch.nn import functional
    from epochal.engine import StepOutput

    def output(model, batch, more=0.0):
        outputs = model(batch[0])
        losses = functional.cross_entropy(outputs, batch[1], reduction="none")
        return StepOutput(losses * (1 + more), outputs)

    class Teacher:
        # An average of the weights: it stays where it is while the weights do.
        def __init__(self):
            self.teacher = None

        def __call__(self, model, batch):
            if self.teacher is None:
                self.teacher = copy.deepcopy(model).requires_grad_(False)
            for mean, weight in zip(self.teacher.parameters(), model.parameters()):
                mean.lerp_(weight.detach(), 0.1)
            return output(model, batch)

    class Shadow:
        def __init__(self):
            self.shadow = {}

        def __call__(self, model, batch):
            for name, weight in model.named_parameters():
                self.shadow.setdefault(name, weight.detach().clone()).lerp_(weight.detach(), 0.1)
            return output(model, batch)

    def counting():
        count = 0

        def step(model, batch):
            nonlocal count
            count += model.training
            return output(model, batch, count / 10)

        return step

    class Loose:
        def __init__(self):
            self.layers = [nn.BatchNorm1d(6)]

        def __call__(self, model, batch):
            return output(model, (self.layers[0](batch[0]), batch[1]))

    class Counter:
        def __init__(self):
            self.number = 0

    class Helper:
        def __init__(self):
            self.counter, self.seen, self.bank = Counter(), set(), {"rows": torch.zeros(2)}

        def __call__(self, model, batch):
            self.counter.number += 1
            self.seen.add(self.counter.number)
            self.bank["rows"] += 1
            return output(model, batch)

    class Knot:
        # Holds itself, and more than anybody wants copied.
        def __init__(self):
            self.ring, self.owner, self.many = [], self, [object() for _ in range(100_000)]
            self.ring.append(self.ring)
            self.calls = 0

        def __call__(self, model, batch):
            self.calls += 1
            return output(model, batch)

    class Bank:
        # It says itself what its state is.
        def __init__(self):
            self.rows = {"rows": [0.0] * 1500, "epochs": []}

        def state_dict(self):
            return self.rows

        def load_state_dict(self, state):
            self.rows = state

        def __call__(self, model, batch):
            self.rows["rows"][0] += 1
            return output(model, batch)

    class Listed:
        def __init__(self):
            self.layers = [nn.Linear(6, 6)]

        def __call__(self, model, batch):
            return output(model, (self.layers[0](batch[0]), batch[1]))

    GLOBAL = nn.Linear(6, 6)

    def global_layer():
        return lambda model, batch: output(model, (GLOBAL(batch[0]), batch[1]))

    class Last:
        # What the same samples and weights give again is no state.
        def __call__(self, model, batch):
            self.last = output(model, batch)
            self.weights = [weight.detach().clone() for weight in model.parameters()]
            return self.last
"""


@pytest.fixture
def teachers(project):
    project.write("teachers.py", TEACHERS)
    return project


@pytest.mark.parametrize(
    ("step", "name"),
    [
        ("Teacher", "teacher"), ("Shadow", "shadow"), ("counting", "count"), ("Helper", "counter"),
        ("Helper", "seen"), ("Helper", "bank"), ("Knot", "calls"),
    ],
)  # fmt: skip
def test_what_a_step_holds_beside_the_model_is_named_however_it_holds_it(teachers, step, name):
    run = BareRun(teachers.config, step=f"{{target: 'teachers:{step}'}}")
    (text,) = told(run)
    assert f"step.{name}: " in text


@pytest.mark.parametrize("step", ["Loose", "Listed", "global_layer"])
def test_parameters_that_nothing_trains_or_stores_are_refused_wherever_they_are(teachers, step):
    with pytest.raises(ConfigError, match="nothing would train or store it"):
        BareRun(teachers.config, step=f"{{target: 'teachers:{step}'}}")


def test_the_trial_gives_an_object_its_own_state_back_as_it_was(teachers):
    held = BareRun(teachers.config, step="{target: 'teachers:Bank'}").work.ready_components()
    assert held.step.rows == {"rows": [0.0] * 1500, "epochs": []}


def test_what_the_same_samples_and_weights_give_again_is_no_state(teachers):
    assert told(BareRun(teachers.config, step="{target: 'teachers:Last'}")) == []


@pytest.mark.parametrize("step", ["Teacher", "Shadow", "counting", "Helper"])
def test_the_trial_leaves_the_weights_and_what_steps_hold_as_they_were(teachers, step):
    plain = BareRun(teachers.config).work.ready_components().state.model.state_dict()
    components = BareRun(
        teachers.config, step=f"{{target: 'teachers:{step}'}}"
    ).work.ready_components()
    for name, tensor in components.state.model.state_dict().items():
        assert tensor.equal(plain[name]), name
    held = components.step
    if step == "Teacher":
        assert held.teacher is None
    elif step == "Shadow":
        assert held.shadow == {}
    elif step == "Helper":
        assert (held.counter.number, held.seen, held.bank["rows"].tolist()) == (0, set(), [0, 0])
    else:
        assert held.__closure__[0].cell_contents == 0


EXTRA = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, complete=True):
            super().__init__()
            self.head = nn.Linear(6, 3)
            self.count, self.other, self.complete = 0, 0, complete

        def get_extra_state(self):
            return torch.tensor([self.count, self.other if self.complete else 0])

        def set_extra_state(self, state):
            self.count = int(state[0])
            if self.complete:
                self.other = int(state[1])

        def forward(self, x):
            if self.training:
                self.count += 1
                self.other += 2
            return self.head(x) * (1 + 0.01 * self.count)
"""


def test_what_a_module_gives_as_its_extra_state_is_carried_and_what_it_leaves_out_named(project):
    project.write("model.py", EXTRA)
    assert told(BareRun(project.config)) == []
    (text,) = told(BareRun(project.config, model__args="{complete: false}"))
    assert "holds: model.other: " in text
    assert "model.count" not in text


def test_it_is_named_at_each_resume(project):
    sets = {"model__args": "{what: count}", "epochs": 2}
    run = BareRun(project.config, **sets)
    for stage in list(run.run.stages())[:2]:
        run.run.run_stage(stage)
    assert len(told(run)) == len(told(BareRun(project.config, **sets))) == 1


WEIGHTS = """
    import torch
    from torch import nn
    from torch.nn import functional
    from epochal.engine import StepOutput

    class Follows(nn.Module):
        # A second network that follows the weights of the first.
        def __init__(self, always=False):
            super().__init__()
            self.body, self.key = nn.Linear(6, 3), nn.Linear(6, 3).requires_grad_(False)
            self.always = always

        def forward(self, x):
            if self.training or self.always:
                with torch.no_grad():
                    for key, weight in zip(self.key.parameters(), self.body.parameters()):
                        key.lerp_(weight, 0.3)
            return self.body(x) + self.key(x)

    class Normalised(nn.Linear):
        def __init__(self):
            super().__init__(6, 3)

        def forward(self, x):
            self.weight.data = functional.normalize(self.weight.data)
            return super().forward(x)

    class Teacher(nn.Module):
        # The same as a step, of which no parameter without gradients is stored.
        def __init__(self):
            super().__init__()
            self.teacher = nn.Linear(6, 3).requires_grad_(False)

        def forward(self, model, batch):
            if model.training:
                with torch.no_grad():
                    for key, weight in zip(self.teacher.parameters(), model.parameters()):
                        key.lerp_(weight, 0.3)
            outputs = model(batch[0]) + self.teacher(batch[0])
            loss = functional.cross_entropy(outputs, batch[1], reduction="none")
            return StepOutput(loss, outputs)
"""


def test_a_steps_network_that_follows_the_weights_and_is_not_stored_is_named(project):
    project.write("weights.py", WEIGHTS)
    parts = {"model": "{target: 'torch.nn:Linear', args: {in_features: 6, out_features: 3}}"}
    (text,) = told(BareRun(project.config, **parts, step="{target: 'weights:Teacher'}"))
    assert "holds: step.teacher.weight: " in text
    assert "register_buffer" in text


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ("{target: 'weights:Follows'}", None),
        ("{target: 'weights:Follows', args: {always: true}}", "model.key.weight, model.key.bias"),
        ("{target: 'weights:Normalised'}", "model.weight"),
    ],
)
def test_weights_that_a_validation_changes_are_named(project, model, named):
    project.write("weights.py", WEIGHTS)
    run = BareRun(project.config, model=model)
    texts = [text for text in run.notices if "a validation changes weights" in text]
    if named is None:
        assert texts == []
        return
    assert f"weights: {named}: change them in training mode alone" in texts[0]
    with pytest.raises(PreflightFailed, match="a validation changes weights"):
        BareRun(project.config, model=model, reproducibility="strict")


def test_the_trial_changes_no_weight_that_a_forward_pass_changes(project):
    project.write("weights.py", WEIGHTS)
    run = BareRun(project.config, model="{target: 'weights:Follows'}")
    tried = run.work.ready_components().state.model
    built = build_components(run.session.config, device=tried.key.weight.device).state.model
    assert torch.equal(tried.key.weight, built.key.weight)
