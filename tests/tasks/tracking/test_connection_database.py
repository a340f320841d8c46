"""MLflow's SQLite file is whole or not there, whenever its making is ended."""

import os
import signal
import subprocess
import sys
import time

import pytest

from epochal.data.errors import ServerUnavailable
from epochal.tasks.tracking.connection import connect, make_database

MAKE = (
    "import sys; from pathlib import Path; "
    "from epochal.tasks.tracking.connection import make_database"
)


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


def test_what_cannot_be_made_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ServerUnavailable, match=r"mlflow\.db: MLflow could not make its tables"):
        make_database(tmp_path / "mlflow.db")
