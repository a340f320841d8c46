"""Fixtures that several test files share: stores, an S3 endpoint, MLflow, Prefect; and a home.

Nothing of the person who runs the tests is read or written: `HOME` is a temporary folder, and
their settings of Prefect, MLflow and Epochal are out of the environment before anything is
imported.
"""

import os
import shutil
import sqlite3
import tempfile
import uuid
from contextlib import closing
from pathlib import Path

import pytest
from s3_server import BUCKET, s3_server

_OWN_SETTINGS = ("PREFECT_", "MLFLOW_", "EPOCHAL_")


def pytest_configure(config):
    for name in list(os.environ):
        if name.startswith(_OWN_SETTINGS):
            del os.environ[name]
    config.test_home = tempfile.mkdtemp(prefix="epochal-tests-")
    os.environ["HOME"] = config.test_home
    from epochal.flows.environment import prepare_environment

    prepare_environment()


def pytest_unconfigure(config):
    shutil.rmtree(config.test_home, ignore_errors=True)


@pytest.fixture(scope="session")
def s3_endpoint():
    """The URL of a local S3 server; credentials and endpoint are in the environment."""
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture(params=["file", "memory", "s3"])
def store_url(request, tmp_path):
    """The address of an empty store that no other test uses."""
    if request.param == "file":
        return f"file://{tmp_path}/store"
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}/store"
    request.getfixturevalue("s3_endpoint")
    return f"s3://{BUCKET}/{uuid.uuid4().hex}/store"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home of this test alone: no run, no store and no server is known in it."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory):
    """An SQLite file with MLflow's tables: making them takes 5 s."""
    from epochal.tasks.tracking import connect

    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    connect(f"sqlite:///{path}")
    return path


@pytest.fixture
def tracker(empty_mlflow, home, tmp_path, monkeypatch):
    """The address of an empty MLflow store, which `MLFLOW_TRACKING_URI` names."""
    path = tmp_path / "mlflow" / "mlflow.db"
    path.parent.mkdir()
    shutil.copyfile(empty_mlflow, path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    return f"sqlite:///{path}"


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory):
    """One real Prefect server on loopback for all tests; the URL of its API."""
    from epochal.flows.prefect_server import begin_local_server
    from epochal.flows.server_processes import port_of, reserve_port
    from epochal.flows.servers import down

    folder = tmp_path_factory.mktemp("prefect")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(folder))
        with reserve_port(0) as reserved:
            port = port_of(reserved)
        server = begin_local_server(stops_when_idle=False, port=port).wait()
    yield server.api_url
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(folder))
        down()


@pytest.fixture
def prefect_api(prefect_server, monkeypatch):
    """The URL of a Prefect server's API, which `PREFECT_API_URL` names."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    return prefect_server


@pytest.fixture(scope="session")
def migrated_prefect(prefect_server, tmp_path_factory):
    """A Prefect database with its tables: making them is most of a server's first start."""
    source = Path(tmp_path_factory.getbasetemp()) / "prefect0" / "prefect.db"
    target = tmp_path_factory.mktemp("migrated") / "prefect.db"
    with closing(sqlite3.connect(source)) as live, closing(sqlite3.connect(target)) as copy:
        live.backup(copy)
    return target
