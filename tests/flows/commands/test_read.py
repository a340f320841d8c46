"""Commands that read a store: what they say where there is nothing to read."""

import pytest
from support.runs.bare_run import BareRun
from support.runs.failing_code import FAILING, metric
from support.runs.project import Project, call


@pytest.fixture
def project(tmp_path, home):
    made = Project(tmp_path / "project", epochs=1, sampling={"policy": "none"})
    made.write("failing.py", FAILING)
    BareRun(made.config, metrics__validation=metric(given="nan"), metrics__best="mine")()
    return made


def test_an_export_of_the_best_epoch_says_why_none_is(project, tmp_path):
    done = call("export", f"{project.store}/blobs", "--epoch", "best", "--out", str(tmp_path / "x"))
    assert done.code == 2
    assert "blobs@1 has no best epoch: 'mine' is NaN or infinite in its epoch validated" in done.err
    assert not (tmp_path / "x").exists()


def test_a_start_from_the_best_epoch_says_why_none_is(project):
    done = project("plan", name="next", start=f"{{from: '{project.store}/blobs:best'}}")
    assert done.code == 2
    assert "start.from: blobs@1 has no best epoch: 'mine' is NaN" in done.err
