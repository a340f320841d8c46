"""What a flow's process imports beside its trainer."""

import threading

import pytest
from support.runs.project import Project

from epochal.flows.flow_run import imports
from epochal.tasks.config.load import load_config


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return load_config(Project(tmp_path / "project").config, overrides=["launch.kind=local"])


def imported(monkeypatch, config, *, local_mlflow=None):
    """The names that a thread imports; None where there is no thread."""
    names = []
    monkeypatch.setattr(imports, "_import_all", names.extend)
    imports.import_mlflow_beside(config, local_mlflow=local_mlflow)
    for thread in threading.enumerate():
        if thread.name == "epochal-imports":
            thread.join()
    return names


def test_what_a_database_needs_is_imported_where_mlflow_is_one(monkeypatch, config, home):
    assert imported(monkeypatch, config) == ["mlflow", "mlflow.store.tracking.sqlalchemy_store"]


def test_of_a_server_the_client_alone_is_imported(monkeypatch, config):
    assert imported(monkeypatch, config, local_mlflow="http://127.0.0.1:5000") == ["mlflow"]


def test_nothing_is_imported_where_this_process_forks_for_the_loader(monkeypatch, config):
    launch = config.launch.model_copy(update={"kind": "inline"})
    assert imported(monkeypatch, config.model_copy(update={"launch": launch})) == []


def test_an_import_that_fails_is_left_to_who_needs_it(monkeypatch, config, capfd):
    def refuse(name):
        raise RuntimeError(f"{name} is broken")

    monkeypatch.setattr(imports.importlib, "import_module", refuse)
    imports.import_mlflow_beside(config, local_mlflow="http://127.0.0.1:5000")
    for thread in threading.enumerate():
        if thread.name == "epochal-imports":
            thread.join()
    assert capfd.readouterr().err == ""
