"""A whole run without Prefect and MLflow: the session and its stages, for sweeps of many runs."""

import os
import shutil
from pathlib import Path

import pytest
from support.runs.commits_given import at_commit, each_stored
from support.runs.project import Project, environment

from epochal.data.errors import TrainingFailed
from epochal.data.tables.writing import UPDATES, read_table
from epochal.tasks.config.load import load_config
from epochal.tasks.reporting import SilentReporter
from epochal.tasks.running.open import open_run


class Notices(SilentReporter):
    """Keeps what a person would be told."""

    def __init__(self):
        self.texts = []

    def notice(self, text):
        self.texts.append(text)


class BareRun:
    """One try at all stages of a config.

    notices: what it said meanwhile. parts: what a tracker would get of epochs at work. Where the
    user's code is to fail, each commit is stored before training goes on.
    """

    def __init__(self, config: Path, **sets):
        sets.setdefault("launch__kind", os.environ.get("TEST_LAUNCH", "inline"))
        overrides = [f"{name.replace('__', '.')}={value}" for name, value in sets.items()]
        reporter = Notices()
        self.notices = reporter.texts
        self.run = open_run(load_config(config, overrides=overrides), reporter=reporter)
        self.session, self.plan, self.view = self.run.session, self.run.plan, self.run.view
        self.parts = []
        self.session.deliver_part = self.parts.append

    def __call__(self):
        if "FAIL_AT_CALL" in os.environ:
            each_stored(self)
        for stage in self.run.stages():
            self.run.run_stage(stage)
        return self

    @property
    def work(self):
        """What the trainer has in hand, which is this process."""
        return self.session.trainer.worker.work

    @property
    def outcomes(self):
        return self.run.outcomes

    @property
    def weights(self):
        return self.view.weights_sha256

    @property
    def digests(self):
        """(stage, epoch, artifact) → sha256 of all that was made."""
        return {
            (record.stage, record.epoch, name): artifact.sha256
            for record in self.view.records.values()
            for name, artifact in record.artifacts.items()
        }

    @property
    def resumed(self):
        """(stage, epoch) → micro-step of the stages that went on from a commit inside them."""
        return {
            (one.stage.kind, one.stage.epoch): one.resumed_at
            for one in self.outcomes
            if one.resumed_at is not None
        }


def rates(run, epoch):
    """The learning rate at each update of an epoch."""
    record = run.view.record_of(run.view.stage("train", epoch))
    with run.session.stage_store.fetch_artifact(record, "updates") as path:
        columns = read_table(path, schema=UPDATES).columns
    return columns["value"][columns["key"] == "train/learning_rate"].tolist()


def finished_project(folder):
    """A project below `folder` whose run of two epochs is done."""
    with environment(HOME=str(folder / "home")):
        project = Project(folder / "project", epochs=2)
        BareRun(project.config)()
    return project


def unfinished_project(folder):
    """A project below `folder` whose run of three epochs was killed in the middle of epoch 1.

    Each of its updates is committed: of six, four are done.
    """
    with environment(HOME=str(folder / "home")):
        project = Project(folder / "project", epochs=3)
        run = BareRun(project.config, checkpoint__every_updates=1)
        each_stored(run)
        at_commit(run, _killed, number=10)
        with pytest.raises(TrainingFailed, match="killed"):
            run()
    return project


def _killed():
    raise RuntimeError("killed")


def copy_of(project, folder, **changes):
    """A copy of a project and its store, in that folder. changes: those that it was made with."""
    copy = Project(folder, **changes)
    shutil.copytree(project.store, copy.store)
    return copy
