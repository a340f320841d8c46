"""Fixtures that several test files share: stores, an S3 endpoint, MLflow, Prefect; and a home.

Nothing of the person who runs the tests is read or written: `HOME` is a temporary folder, and
their settings of Prefect, MLflow and Epochal are out of the environment before anything is
imported.
"""

import gc
import importlib
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import uuid
from contextlib import closing
from pathlib import Path

import pytest
from support.stores.s3_server import BUCKET, s3_server

# Tests edit a module and import it again within a second, which old bytecode would hide.
sys.dont_write_bytecode = True
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"

_LONG = [
    Path(__file__).parent / name
    for name in (
        "robustness/test_interrupted.py", "robustness/test_faults.py", "whole/test_pipeline.py",
        "whole/pages/test_browser.py", "robustness/test_kills.py",
        "flows/deployment/test_deployment_runs.py", "flows/servers/test_servers.py",
        "tasks/stages/test_average.py", "robustness/test_real_faults.py",
        "tasks/launch/test_local_misbehaving.py", "tasks/launch/test_local_hangs.py",
    )
]  # fmt: skip
SPREAD = 0.7
_OWN_SETTINGS = ("PREFECT_", "MLFLOW_", "EPOCHAL_")


def _not_synced(descriptor):
    """Nothing: most of the time of thousands of small runs was waiting for the disk.

    Only here, in the tests' own process: commands and trainers sync, and what must be synced when
    is shown by tests that note the calls.
    """


def pytest_configure(config):
    os.fsync = _not_synced
    gc.disable()  # until all are collected
    for name in list(os.environ):
        # Pytest's own process has a width of its terminal set, by readline; workers inherit it.
        if name.startswith(_OWN_SETTINGS) or name in {"COLUMNS", "LINES"}:
            del os.environ[name]
    config.test_home = tempfile.mkdtemp(prefix="epochal-tests-")
    os.environ["HOME"] = config.test_home
    os.environ["EPOCHAL_PICTURES"] = "here"  # a process for each run of a test would cost 3 s each
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Two of torch's threads in each of two processes took turns on two cores.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    # A shell makes what it starts in the background ignore it, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # At its import Hypothesis asks the garbage collector about objects of trio, and warns if it
    # finds none: `importing()` takes them out of it.
    importlib.import_module("hypothesis")
    from epochal.flows.environment import prepare_environment

    prepare_environment()


def pytest_collection_modifyitems(items):
    """Spreads the long files over all but the last of the others.

    They wait for servers and processes much of their time: beside one of them the other process
    computes, and none is left for the end, when the other has nothing.
    """
    assert all(path.is_file() for path in _LONG)
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    others = [item for item in items if item.path not in _LONG]
    places = {}
    for number, item in enumerate(others):
        places.setdefault(item.path, number)
    for number, path in enumerate(_LONG):
        places[path] = number * SPREAD * len(others) / len(_LONG)
    items.sort(key=lambda item: places[item.path])


def pytest_collection_finish(session):
    """Thousands of tests and modules are looked at no more when garbage is collected."""
    gc.enable()
    gc.collect()
    gc.freeze()


def pytest_unconfigure(config):
    shutil.rmtree(config.test_home, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def first_path():
    """The module path before any test: fixtures of a whole file may run projects of their own."""
    return list(sys.path)


@pytest.fixture(autouse=True)
def own_process(monkeypatch, first_path):
    """What a run sets for its process, the module path and torch's threads, ends with its test."""
    monkeypatch.setattr(sys, "path", list(first_path))
    torch = sys.modules.get("torch")
    threads = None if torch is None else torch.get_num_threads()
    yield
    if threads is not None:
        torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def s3_endpoint():
    """The URL of a local S3 server; credentials and endpoint are in the environment."""
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def s3_on_disk(tmp_path_factory):
    """The package's own S3 server, with one bucket; who wants it puts its variables in place."""
    from epochal.data.testing.s3 import S3Server

    with S3Server(tmp_path_factory.mktemp("s3"), buckets=[BUCKET]) as server:
        yield server


@pytest.fixture(params=["file", "memory", "s3"])
def store_url(request, tmp_path, monkeypatch):
    """The address of an empty store that no other test uses.

    `s3` is moto's server, `s3-on-disk`, where a file asks for it, the one that the package ships.
    """
    if request.param == "file":
        return f"file://{tmp_path}/store"
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}/store"
    if request.param == "s3-on-disk":
        for name, value in request.getfixturevalue("s3_on_disk").environment.items():
            monkeypatch.setenv(name, value)
    else:
        request.getfixturevalue("s3_endpoint")
    return f"s3://{BUCKET}/{uuid.uuid4().hex}/store"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home of this test alone: no run, no store and no server is known in it."""
    from epochal.flows.servers import down

    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    yield folder
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("PREFECT_HOME", raising=False)
    down()  # what a command of the test may have started


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory):
    """An SQLite file with MLflow's tables: making them takes 5 s."""
    from epochal.tasks.tracking.connection import connect

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


@pytest.fixture
def database(empty_mlflow, tmp_path, monkeypatch):
    """An empty MLflow store of this test, to look into."""
    from support.stores.tracking_store import Database

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = tmp_path / "mlflow.db"
    shutil.copyfile(empty_mlflow, path)
    return Database(path)


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory):
    """One real Prefect server on loopback for all tests: its API's URL, its empty database."""
    from epochal.flows.servers import down
    from epochal.flows.servers.prefect import begin_local_server
    from epochal.flows.servers.processes import port_of, reserve_port

    folder = tmp_path_factory.mktemp("prefect")
    empty = tmp_path_factory.mktemp("empty") / "prefect.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(folder))
        with reserve_port(0) as reserved:
            port = port_of(reserved)
        server = begin_local_server(stops_when_idle=False, port=port).wait()
    with (
        closing(sqlite3.connect(folder / "prefect.db")) as live,
        closing(sqlite3.connect(empty)) as copy,
    ):
        live.backup(copy)
    yield server.api_url, empty
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(folder))
        down()


@pytest.fixture
def prefect_api(prefect_server, monkeypatch):
    """The URL of a Prefect server's API, which `PREFECT_API_URL` names."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_server[0])
    return prefect_server[0]


@pytest.fixture(scope="session")
def empty_prefect(prefect_server):
    """A Prefect database with its tables: making them is most of a server's first start."""
    return prefect_server[1]


@pytest.fixture(scope="session")
def deployed(tmp_path_factory, empty_prefect, empty_mlflow):
    """A machine on which all servers run and a project is deployed."""
    from support.runs.machine import (  # it imports MLflow: 2 s of each start
        Deployed,
        Machine,
        free_port,
    )

    machine = Machine(
        tmp_path_factory.mktemp("deployed"),
        prefect_tables=empty_prefect,
        mlflow_tables=empty_mlflow,
    )
    ports = ("--prefect-port", str(free_port()), "--mlflow-port", str(free_port()))
    try:
        yield Deployed.on(machine, machine("up", *ports, "--json"))
    finally:
        machine("down", "--force")
