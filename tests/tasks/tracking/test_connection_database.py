"""MLflow's SQLite file is whole or not there, whenever its making is ended."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest

from epochal.data.errors import ServerUnavailable
from epochal.tasks.tracking.connection import connect, make_database, unreachable

MAKE = (
    "import sys; from pathlib import Path; "
    "from epochal.tasks.tracking.connection import make_database"
)


@pytest.mark.slow
def test_a_file_whose_making_was_killed_is_made_anew(tmp_path):
    path = tmp_path / "mlflow.db"
    maker = subprocess.Popen(
        [sys.executable, "-c", f"{MAKE}; make_database(Path(sys.argv[1]))", str(path)],
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not any(one.stat().st_size for one in tmp_path.glob(".mlflow.db.*.new")):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(maker.pid, signal.SIGKILL)  # in the middle of the tables
    maker.wait()
    assert not path.exists()
    client = connect(f"sqlite:///{path}")
    client.create_experiment("works")
    assert [one.name for one in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_file_that_is_there_is_left_alone(empty_mlflow, tmp_path):
    path = tmp_path / "mlflow.db"
    path.write_bytes(b"anything")
    make_database(path)
    assert path.read_bytes() == b"anything"


KILLED_IN_A_TRANSACTION = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 1")  # so that pages are written before the end
database.execute("BEGIN IMMEDIATE")
for number in range(2000):
    database.execute("INSERT INTO experiments (name) VALUES (?)", (f"half done {number}" * 9,))
os._exit(1)
"""


def test_what_a_killed_process_has_half_done_is_put_back(empty_mlflow, tmp_path):
    path = tmp_path / "mlflow.db"
    shutil.copyfile(empty_mlflow, path)
    subprocess.run([sys.executable, "-c", KILLED_IN_A_TRANSACTION, str(path)], check=False)
    assert (tmp_path / "mlflow.db-journal").stat().st_size
    with pytest.raises(sqlite3.OperationalError, match="readonly"):  # as it is, nobody can read it
        sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True).execute("SELECT 1 FROM experiments")
    assert unreachable(f"sqlite:///{path}") is None
    with closing(sqlite3.connect(path)) as database:
        names = [name for (name,) in database.execute("SELECT name FROM experiments")]
    assert names == ["Default"]


def test_a_file_with_a_table_whose_name_is_no_text_cannot_be_read(tmp_path):
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE some_table (a)")
    path.write_bytes(path.read_bytes().replace(b"some_table", b"some\xfftable"))
    assert "mlflow.db: " in unreachable(f"sqlite:///{path}")


def test_that_a_file_is_locked_is_read_from_the_error_and_not_from_its_name(tmp_path):
    (tmp_path / "locked").write_text("a file, and no folder")
    assert "File exists" in unreachable(f"sqlite:///{tmp_path}/locked/mlflow.db")
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("CREATE TABLE t (a)")
        database.execute("BEGIN EXCLUSIVE")
        assert unreachable(f"sqlite:///{path}") is None


@pytest.mark.parametrize(("folder", "mode"), [(".epochal", 0o600), ("shared", 0o664)])
def test_only_its_owner_reads_the_file_at_home_and_whom_the_user_lets_any_other(
    folder, mode, tmp_path, monkeypatch
):
    maker = tmp_path / "maker"
    maker.write_text('#!/bin/sh\nfor last; do :; done; echo tables > "${last#sqlite:///}"\n')
    maker.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(maker))
    monkeypatch.setenv("HOME", str(tmp_path))
    before = os.umask(0o002)
    try:
        make_database(tmp_path / folder / "mlflow.db")
    finally:
        os.umask(before)
    assert (tmp_path / folder / "mlflow.db").stat().st_mode & 0o777 == mode


def test_what_cannot_be_made_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ServerUnavailable, match=r"mlflow\.db: MLflow could not make its tables"):
        make_database(tmp_path / "mlflow.db")
