"""What MLflow is given of a model's code: all that it runs, as it was when the run began."""

import sys

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project

from epochal.tasks.running.tracked_run import make_tracker
from epochal.tasks.tracking.model_folder import _load_pyfunc, write_model_folder

NET = """
    from torch import nn

    def build(width=4):
        return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))
"""


@pytest.fixture
def packaged(tmp_path, home, monkeypatch):
    """Code in src/, which is on the path, and a config in configs/ that names it."""
    project = Project(tmp_path / "configs", epochs=1, sampling={"policy": "none"})
    package = tmp_path / "src" / "delivered_of_test"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    project.write("../src/delivered_of_test/model.py", "from .deep import build\n")
    project.write("../src/delivered_of_test/deep.py", NET)
    monkeypatch.syspath_prepend(str(tmp_path / "src"))
    yield project, package
    for name in [name for name in sys.modules if name.startswith("delivered_of_test")]:
        del sys.modules[name]


def source_of(run, notices):
    tracker = make_tracker(
        run.view.config,
        run.plan,
        run.plan.run_inputs(),
        run.session.stage_store,
        notice=notices.append,
        local_mlflow="sqlite:///nowhere.db",
    )
    return tracker._model


SETS = {"model": "{target: 'delivered_of_test.model:build'}"}


def test_code_of_a_package_on_the_path_is_delivered_and_loaded(packaged, tmp_path):
    import torch

    project, package = packaged
    run, notices = BareRun(project.config, **SETS)(), []
    source = source_of(run, notices)
    assert notices == []
    (package / "deep.py").unlink()  # the code is that of the start, whatever becomes of the files
    record = run.view.record("train", 0)
    with run.session.stage_store.fetch_artifact(record, "model") as path:
        write_model_folder(
            tmp_path / "model", weights=path, source=source, model_id="m-1", run_id="r"
        )
    loaded = _load_pyfunc(str(tmp_path / "model" / "data")).module
    own = run.session.ready_components().state.model.eval()
    x = torch.ones(2, 6)
    assert torch.equal(loaded(x), own(x))
    assert loaded[0].out_features == 4


@pytest.mark.parametrize("change", ["edited", "deleted"])
def test_code_that_is_no_longer_that_of_the_run_is_not_delivered_and_said(packaged, change):
    project, package = packaged
    run, notices = BareRun(project.config, **SETS)(), []
    if change == "edited":
        project.write("../src/delivered_of_test/deep.py", NET.replace("width=4", "width=5"))
    else:
        (package / "deep.py").unlink()
    assert source_of(run, notices) is None
    assert any("delivered_of_test/deep.py is not there any more" in text for text in notices)


def test_code_that_only_building_showed_is_delivered_too(tmp_path, home):
    project = Project(tmp_path / "project", epochs=1, sampling={"policy": "none"})
    project.write("nets_small.py", NET)
    project.write(
        "model.py",
        """
        import importlib

        def net(arch):
            return importlib.import_module(f"nets_{arch}").build()
        """,
    )
    run = BareRun(project.config, model="{target: 'model:net', args: {arch: small}}")()
    notices = []
    assert source_of(run, notices).files.keys() == {"model.py", "nets_small.py"}
    assert notices == []


def test_a_file_that_only_a_store_names_is_never_delivered(tmp_path, home):
    """Its digest may be in a key; its content goes nowhere."""
    project = Project(tmp_path / "project", epochs=1, sampling={"policy": "none"})
    run, notices = BareRun(project.config)(), []
    (tmp_path / "secret_of_test.py").write_text("TOKEN = 'abc'\n")
    sources = {"model": {**run.plan.sources["model"], "secret_of_test.py": "e" * 64}}
    run.plan = run.plan.model_copy(update={"sources": sources})
    assert source_of(run, notices) is None
    assert "secret_of_test.py" in notices[0]
