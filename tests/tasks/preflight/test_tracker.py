"""MLflow's schema, address and experiment are looked at before a run starts."""

import contextlib
import http.server
import json
import shutil
import sqlite3
import threading
from contextlib import closing

import pytest
from support.runs.project import Project

from epochal.data.errors import PreflightFailed
from epochal.tasks.preflight.tracker import check_tracker, schema_revisions


def database(folder, empty_mlflow, *statements):
    path = folder / "mlflow.db"
    shutil.copyfile(empty_mlflow, path)
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)
    return path


def schemes(path):
    return [f"sqlite:///{path}", f"sqlite+pysqlite:///{path}"]


def refusal(uri, *, experiment="tests"):
    with pytest.raises(PreflightFailed) as raised:
        check_tracker(uri, experiment=experiment)
    return str(raised.value)


def test_the_newest_schema_is_read_as_mlflow_itself_has_it(empty_mlflow):
    head, known = schema_revisions()
    with closing(sqlite3.connect(empty_mlflow)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == (head,)
    assert head in known
    assert len(known) > 40


@pytest.mark.parametrize("scheme", [0, 1])
def test_a_database_as_it_should_be_passes(scheme, tmp_path, empty_mlflow, monkeypatch):
    monkeypatch.setattr("epochal.tasks.preflight.tracker.DATABASES", {"sqlite": 0})
    path = database(tmp_path, empty_mlflow)
    check_tracker(schemes(path)[scheme], experiment="tests")
    check_tracker(f"sqlite:///{tmp_path}/new.db", experiment="tests")
    assert not (tmp_path / "new.db").exists()


@pytest.mark.parametrize("scheme", [0, 1])
@pytest.mark.parametrize(
    ("revision", "words"),
    [("0584bdc529eb", "older MLflow.*mlflow db upgrade"), ("f" * 12, "a newer MLflow made it")],
)
def test_another_schema_is_refused(scheme, revision, words, tmp_path, empty_mlflow, monkeypatch):
    monkeypatch.setattr("epochal.tasks.preflight.tracker.DATABASES", {"sqlite": 0})
    path = database(
        tmp_path, empty_mlflow, f"UPDATE alembic_version SET version_num = '{revision}'"
    )
    uri = schemes(path)[scheme]
    with pytest.raises(PreflightFailed, match=words) as raised:
        check_tracker(uri, experiment="tests")
    assert str(path) in str(raised.value)
    assert revision in str(raised.value)


def test_files_that_are_no_mlflow_database_are_refused_and_left_alone(tmp_path):
    other, text = tmp_path / "other.db", tmp_path / "text.db"
    with closing(sqlite3.connect(other)) as connection, connection:
        connection.execute("CREATE TABLE invoices (number INTEGER)")
    text.write_text("no database, only some text that is long enough" * 40)
    before = other.read_bytes()
    assert "invoices" in refusal(f"sqlite:///{other}")
    assert "is no MLflow database" in refusal(f"sqlite:///{text}")
    assert other.read_bytes() == before


@pytest.mark.parametrize("scheme", [0, 1])
def test_a_deleted_experiment_is_refused(scheme, tmp_path, empty_mlflow, monkeypatch):
    monkeypatch.setattr("epochal.tasks.preflight.tracker.DATABASES", {"sqlite": 0})
    path = database(
        tmp_path, empty_mlflow,
        "INSERT INTO experiments (experiment_id, name, lifecycle_stage) "
        "VALUES (77, 'gone', 'deleted')",
    )  # fmt: skip
    assert "restore -x 77" in refusal(schemes(path)[scheme], experiment="gone")


def test_a_database_that_lacks_its_driver_is_refused_without_its_password(monkeypatch):
    monkeypatch.setattr("epochal.tasks.preflight.tracker.unreachable", lambda _: None)
    text = refusal("mysql+nodriver://me:secret@localhost/mlflow")
    assert "driver" in text
    assert "secret" not in text


@contextlib.contextmanager
def answering(status, body, kind):
    """A server that gives one answer; what it was asked stands in the list."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, dict(self.headers)))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            if status == 302:
                self.send_header("Location", "/login")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


JSON, HTML = "application/json", "text/html"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b"<html><title>Welcome to nginx</title></html>", HTML),
        (404, b"<html>Not Found</html>", HTML),
        (404, b'{"detail": "Not Found"}', JSON),
        (200, b"[1, 2]", JSON),
    ],
)
def test_a_server_that_is_no_mlflow_is_refused(status, body, kind):
    with answering(status, body, kind) as (uri, _):
        assert f"{uri} answers, but it is no MLflow server" in refusal(uri)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"experiment": {"experiment_id": "3", "lifecycle_stage": "active"}}),
        (404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none of that name"}),
        (500, {}), (503, {}), (401, {}), (403, {}), (302, {}),
    ],
)  # fmt: skip
def test_a_server_that_may_be_mlflow_passes(status, body):
    with answering(status, json.dumps(body).encode(), JSON) as (uri, asked):
        check_tracker(uri, experiment="a b")
    ((path, _),) = asked
    assert path == "/api/2.0/mlflow/experiments/get-by-name?experiment_name=a%20b"


def test_an_experiment_that_was_deleted_on_a_server_is_refused(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "word")
    body = json.dumps({"experiment": {"experiment_id": "7", "lifecycle_stage": "deleted"}})
    with answering(200, body.encode(), JSON) as (uri, asked):
        assert "restore -x 7" in refusal(uri)
    assert asked[0][1]["Authorization"] == "Basic bWU6d29yZA=="


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("http://127.0.0.1:99999", "Port out of range"),
        ("http://127.0.0.1:http", "Port could not be cast"),
        ("postgresql://[::1/mlflow", "Invalid IPv6 URL"),
    ],
)
def test_what_is_no_address_is_refused(uri, said):
    assert f"tracking.uri: is no address: {said}" in refusal(uri)


def test_a_tracker_that_is_away_is_no_mistake(tmp_path):
    with answering(200, b"", HTML) as (uri, _):
        pass
    for away in (uri, "postgresql://127.0.0.1:1/mlflow", "databricks", str(tmp_path / "runs")):
        check_tracker(away, experiment="tests")


def test_the_command_ends_with_2_before_anything_starts(home, tmp_path, empty_mlflow):
    project = Project(tmp_path / "project", epochs=3)
    path = database(project.folder, empty_mlflow, "UPDATE alembic_version SET version_num = 'abc'")
    done = project("train", tracking__uri=f"sqlite:///{path}")
    assert done.code == 2
    assert "has the schema abc" in done.err
    assert not list(project.store.glob("stages/*"))
    assert not list(project.store.glob("runs/*"))
    assert not list((home / ".prefect").glob("*.db"))  # no server was started
