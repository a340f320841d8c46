"""`epochal sync` of a store that others wrote: it says nothing of where files and tokens go."""

import http.server
import threading
from pathlib import Path

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project, call
from support.stores.malformed_bytes import rewritten

from epochal.data.store.open import open_store
from epochal.tasks.tracking.connection import connect


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


def planted(project, tmp_path, *, uri=None):
    """The store's plan names another folder of the user's, and that address.

    The names of files are the trained ones: they are in the keys, which an enemy can compute too.
    """
    private = tmp_path / "private"
    private.mkdir()
    (private / "model.py").write_text("PASSWORD = 's3cret-of-mine'\n")
    store = open_store(f"file://{project.store}")

    def change(body):
        tracking = {**body["config"]["tracking"], "uri": uri}
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
