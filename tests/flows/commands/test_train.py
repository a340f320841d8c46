"""`epochal train`: what it does while it would wait."""

import pytest
from support.runs.project import Project

from epochal.data.errors import ServerUnavailable
from epochal.flows.commands import train
from epochal.flows.progress import ProgressReporter
from epochal.tasks.config.load import load_config
from epochal.tasks.running import open as opening


def test_prefect_is_imported_while_the_trainer_begins(tmp_path, home, monkeypatch):
    came = []

    class Starting:
        def wait(self):
            came.append("waits")
            raise ServerUnavailable("it did not answer")

    monkeypatch.setattr(
        train, "begin_prefect_server", lambda: came.append("begins") or Starting()
    )  # fmt: skip
    monkeypatch.setattr(train, "import_prefect", lambda: came.append("imports"))
    monkeypatch.setattr(train, "import_mlflow_beside", lambda *_, **__: came.append("more beside"))
    start = opening.start_trainer
    monkeypatch.setattr(
        opening, "start_trainer", lambda *a: came.append("a trainer begins") or start(*a)
    )
    config = load_config(Project(tmp_path / "project").config)
    with ProgressReporter() as reporter, pytest.raises(ServerUnavailable):
        train.run_training(config, reporter=reporter, given="run.yaml")
    assert came == ["a trainer begins", "imports", "more beside", "begins", "waits"]
