"""A stage that fails: whose fault it is decides how the run ends, and the user's file is named."""

import pytest
from support.runs.bare_run import BareRun
from support.runs.failing_code import FAILING, metric, target
from support.runs.project import Project

from epochal.data import errors
from epochal.data.traces import users_trace


@pytest.fixture
def project(tmp_path):
    made = Project(tmp_path / "project", epochs=1, sampling={"policy": "none"})
    made.write("failing.py", FAILING)
    return made


AT = 92
"""A row at which no start looks."""


@pytest.mark.parametrize("kind", ["exit", "odd", "ctrl-c", "file", "key"])
@pytest.mark.parametrize("part", ["model", "items", "metric"])
def test_whatever_the_users_code_raises_is_a_failed_training(part, kind, project):
    sets = {
        "model": {"model": target("Model", kind=kind)},
        "items": {"train_data": target("Items", kind=kind, at=AT)},
        "metric": {"metrics__validation": metric(kind=kind)},
    }[part]
    with pytest.raises(errors.TrainingFailed) as caught:
        BareRun(project.config, **sets)()
    trace = users_trace(caught.value)
    assert trace.splitlines()[0].startswith(f'  File "{project.folder}/failing.py", line ')
    said = {"exit": "SystemExit: 0", "odd": "failing.Odd: odd", "ctrl-c": "KeyboardInterrupt",
            "file": "/nowhere/labels.txt", "key": "KeyError: 'missing'"}[kind]  # fmt: skip
    assert said in str(caught.value)
    assert said in trace


@pytest.mark.parametrize("kind", ["exit", "odd", "file"])
def test_an_error_in_a_process_of_the_loader_is_the_same(kind, project):
    with pytest.raises(errors.TrainingFailed, match="could not be read") as caught:
        BareRun(project.config, train_data=target("Items", kind=kind, at=AT), loader__workers=2)()
    assert f'File "{project.folder}/failing.py"' in caught.value.trace


def test_the_layer_that_was_given_another_shape_is_named(project):
    with pytest.raises(errors.TrainingFailed) as caught:
        BareRun(project.config, model=target("Model", kind="shape"))()
    assert f"({project.folder}/failing.py, line " in str(caught.value)
    assert "in model.encoder.0 (Linear), called with torch.float32 of shape (16, 5)" in str(
        caught.value
    )


@pytest.mark.parametrize("given", ["text", "nothing", "two"])
def test_a_metric_that_computes_no_number_in_its_first_epoch_is_a_failed_training(given, project):
    with pytest.raises(errors.TrainingFailed, match=r"validate · epoch 0: metrics.mine: compute"):
        BareRun(project.config, metrics__validation=metric(given=given))()


def test_a_store_that_fails_under_a_stage_is_not_the_users_fault(project):
    run = BareRun(project.config)

    def fails(*_, **__):
        raise OSError(28, "No space left on device")

    run.session.stage_store.put_side_file = fails
    with pytest.raises(OSError, match="No space"):
        run()


def test_a_signal_under_a_stage_is_not_the_users_fault(project):
    project.write(
        "signalled.py",
        """
        import signal
        from model import Net

        class Signalled(Net):
            def forward(self, x):
                if self.training and self.calls == 8:  # beyond what the start tries
                    signal.raise_signal(signal.SIGUSR1)
                return super().forward(x)
        """,
    )
    run = BareRun(project.config, model="{target: 'signalled:Signalled'}")
    with pytest.raises(errors.Interrupted, match="SIGUSR1"):
        run()
    again = BareRun(project.config, model="{target: 'signalled:Signalled'}")
    again.work.ready_components().state.model.calls = 100
    assert again().resumed[("train", 0)] == 9
