"""How the step calls the model, as it is told for MLflow's signature."""

import numpy as np
import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project

from epochal.tasks.preflight.model_call import model_call
from epochal.tasks.tracking.model_example import ModelExample

STEPS = """
    from torch.nn.functional import cross_entropy
    from epochal.engine import StepOutput

    def by_name():
        def step(model, batch):
            outputs = model(x=batch[0])
            return StepOutput(cross_entropy(outputs, batch[1], reduction="none"), outputs, {})
        return step

    def in_parts():
        def step(model, batch):
            outputs = model.head(model.body(batch[0]))
            return StepOutput(cross_entropy(outputs, batch[1], reduction="none"), outputs, {})
        return step
"""


@pytest.fixture
def project(tmp_path, home):
    project = Project(tmp_path / "project", epochs=1, sampling={"policy": "none"})
    project.write("steps.py", STEPS)
    return project


def test_a_call_is_told_with_its_numbers_and_changes_nothing(project):
    run = BareRun(project.config)
    state = run.work.ready_components().state
    before = {name: one.clone() for name, one in state.model.state_dict().items()}
    document, numbers = model_call(run.work)
    example = ModelExample.model_validate(document)
    assert example.is_single
    assert example.names == {"x": 0}
    x = np.frombuffer(numbers, np.float32).reshape(2, 6)
    assert example.numbers(numbers) == x[:1].tolist()
    assert '"shape": [-1, 6]' in example.signature["inputs"]
    assert '"shape": [-1, 3]' in example.signature["outputs"]
    assert state.model.training
    assert all((one == before[name]).all() for name, one in state.model.state_dict().items())


def test_a_step_of_one_s_own_is_seen_as_it_calls_the_model(project):
    run = BareRun(project.config, step="{target: 'steps:by_name'}")
    example = ModelExample.model_validate(model_call(run.work)[0])
    assert (example.args, example.kwargs) == ([], {"x": {"tensor": 0}})
    assert example.signature is not None


def test_a_step_that_calls_parts_of_the_model_has_no_call_to_tell(project):
    run = BareRun(project.config, step="{target: 'steps:in_parts'}")
    document, _ = model_call(run.work)
    assert document == {"problem": "the step does not call it as a whole"}
