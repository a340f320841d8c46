"""The line that `train` opens with: what has changed, how many epochs are used and how many run."""

import pytest
from support.runs.bare_run import BareRun, Notices
from support.runs.project import Project

from epochal.tasks.config.load import load_config
from epochal.tasks.running.open import open_run


@pytest.fixture
def project(tmp_path, home):
    return Project(tmp_path / "project", epochs=2, sampling={"policy": "none"})


class Opened(Notices):
    def opening(self, text):
        self.line = text


def opening(project, **sets):
    reporter = Opened()
    overrides = [f"{name.replace('__', '.')}={value}" for name, value in sets.items()]
    open_run(load_config(project.config, overrides=overrides), reporter=reporter)
    return reporter.line


def edited(project, name, before, after):
    text = (project.folder / name).read_text()
    assert before in text
    (project.folder / name).write_text(text.replace(before, after))


def test_a_first_run_and_one_that_is_all_there_have_nothing_that_changed(project):
    assert opening(project) == "2 epochs: 0 used as they are, 2 to run"
    BareRun(project.config)()
    assert opening(project) == "2 epochs, all used as they are"


def test_a_changed_field_is_named_and_the_epochs_that_it_leaves_are_counted(project):
    BareRun(project.config)()
    assert opening(project, epochs=5) == (
        "changed: epochs: 2 → 5 · 5 epochs: 2 used as they are, 3 to run"
    )
    line = opening(project, optimizer__args__lr=0.02)
    assert line.startswith("changed: optimizer.args.lr: 0.01 → 0.02 · 2 epochs: 0 used")


def test_the_function_that_was_edited_is_named(project):
    BareRun(project.config)()
    edited(project, "model.py", "nn.Dropout(0.2)", "nn.Dropout(0.3)")
    line = opening(project)
    assert line.startswith("changed: model.source model.py in Net.__init__: ")
    assert line.endswith(" · 2 epochs: 0 used as they are, 2 to run")


def test_a_statement_outside_of_functions_is_named_as_that(project):
    BareRun(project.config)()
    edited(project, "model.py", "import time", "import time\nWIDTH = 3")
    assert "model.py in statements outside of functions: " in opening(project)


def test_a_run_that_was_broken_off_says_what_is_left(project):
    run = BareRun(project.config)
    for stage in run.run.stages():
        if stage.epoch == 1:
            break
        run.run.run_stage(stage)
    assert opening(project) == "2 epochs: 1 used as they are, 1 to run"
