"""A process of another machine trains only where that has the run's code and environment."""

from dataclasses import asdict

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project

from epochal.data.errors import ConfigError
from epochal.tasks.launch.opening import check_same


@pytest.fixture
def run(tmp_path, home):
    project = Project(tmp_path / "project", model={"target": "model:Net", "files": ["names.txt"]})
    project.write("names.txt", "one")
    made = BareRun(project.config)
    made.project = project
    yield made
    made.run.close()


def told(run, **changes):
    inputs = asdict(run.session.run_inputs)
    same = {
        "environment": run.session.environment,
        "sources": inputs["sources"],
        "files": inputs["files"],
    }
    return {name: {**body, **changes.get(name, {})} for name, body in same.items()}


def test_where_all_is_the_same_nothing_is_said(run):
    assert check_same(told(run), run.work, run.session.store) is None


def test_another_environment_is_refused_by_the_name_of_what_differs(run):
    other = told(run, environment={"cpu_capability": "AVX1024"})
    with pytest.raises(ConfigError, match="cpu_capability is not what it is .*: AVX1024 there"):
        check_same(other, run.work, run.session.store)


@pytest.mark.parametrize("name", ["model.py", "names.txt"])
def test_other_code_or_another_file_of_it_is_refused_by_its_name(name, run):
    before = told(run)
    (run.project.folder / name).write_text("VALUE = 1\n")
    with pytest.raises(ConfigError, match=f"model: {name} is not what it is"):
        check_same(before, run.work, run.session.store)
