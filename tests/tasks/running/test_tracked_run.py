"""What goes to MLflow, and where: a model's code as it ran; nothing that a store says of paths."""

import http.server
import sys
import threading
from pathlib import Path

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project, call
from support.stores.malformed_bytes import rewritten

from epochal.data.store.open import open_store
from epochal.tasks.running.tracked_run import make_tracker
from epochal.tasks.tracking.connection import connect
from epochal.tasks.tracking.model_folder import _load_pyfunc, write_model_folder


@pytest.fixture
def enemy():
    """A server that keeps what it is sent, and would be taken for MLflow."""
    asked = []

    class Keeper(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, dict(self.headers)))
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_POST = do_GET

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keeper) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.fixture
def project(tmp_path, tracker, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken-of-mine")
    project = Project(tmp_path / "project", epochs=1)
    BareRun(project.config)()
    return project


def planted(project, tmp_path, *, uri=None, also=()):
    """The store's plan names another folder of the user's, and that address.

    The names of files are the trained ones: they are in the keys, which an enemy can compute too.
    """
    private = tmp_path / "private"
    private.mkdir()
    (private / "model.py").write_text("PASSWORD = 's3cret-of-mine'\n")
    store = open_store(f"file://{project.store}")

    def change(body):
        tracking = {**body["config"]["tracking"], "uri": uri, "also": list(also)}
        body["config"] |= {"folder": str(private), "tracking": tracking}

    for path in store.listing():
        if "/plans/" in path:
            rewritten(store, path, change)


def delivered(tracker):
    """All bytes beside MLflow's database."""
    folder = Path(tracker.removeprefix("sqlite:///")).parent
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def model_code(tracker):
    return {path.name for path in delivered(tracker) if path.parent.name == "code"}


def test_no_token_goes_to_an_address_that_a_store_names(project, tmp_path, enemy):
    address, asked = enemy
    planted(project, tmp_path, uri=address)
    done = call("sync", f"{project.store}/blobs")
    assert done.code == 2
    assert address in done.err
    assert "epochal sync CONFIG" in done.err
    assert asked == []


def test_no_file_goes_along_from_a_folder_that_a_store_names(project, tmp_path, tracker):
    planted(project, tmp_path)
    done = call("sync", f"{project.store}/blobs")
    assert done.code == 0, done.err
    assert "the best model of blobs@1 is not delivered" in done.err
    assert connect(tracker).search_runs(["1"])
    assert not any(b"s3cret-of-mine" in data for data in delivered(tracker).values())
    assert model_code(tracker) == set()


def test_no_tracker_that_a_store_names_is_called(project, tmp_path, tracker):
    planted(project, tmp_path, also=[{"target": "evil_of_test:Tracker", "args": {}}])
    mark = tmp_path / "it-ran"
    (tmp_path / "private" / "evil_of_test.py").write_text(f"open({str(mark)!r}, 'w')\n")
    done = call("sync", f"{project.store}/blobs")
    assert done.code == 0, done.err
    assert "evil" not in done.err
    assert not mark.exists()


def test_with_the_config_its_own_files_go_along_and_to_its_own_address(
    project, tmp_path, tracker, enemy
):
    address, asked = enemy
    planted(project, tmp_path, uri=address)
    done = call("sync", str(project.config))
    assert done.code == 0, done.err
    assert asked == []
    assert model_code(tracker) == {"model.py"}
    assert not any(b"s3cret-of-mine" in data for data in delivered(tracker).values())


def test_a_store_that_names_the_same_address_is_no_question(project, tmp_path, tracker):
    planted(project, tmp_path, uri=tracker)
    assert call("sync", f"{project.store}/blobs").code == 0


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
    own = run.work.ready_components().state.model.eval()
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
