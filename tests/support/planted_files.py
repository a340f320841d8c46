"""Files planted in a store and taken away again."""

import shutil

import pytest
from support.bare_run import BareRun
from support.malformed_bytes import rewritten
from support.project import Project, environment

from epochal.data.hashing import bytes_sha256
from epochal.data.store.open import open_store

EPOCHS = 2


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project whose run is done, and what it made."""
    with environment(HOME=str(tmp_path_factory.mktemp("home"))):
        project = Project(tmp_path_factory.mktemp("finished") / "project", epochs=EPOCHS)
        return project, BareRun(project.config)().digests


@pytest.fixture
def project(finished, tmp_path, monkeypatch):
    """A copy of it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    copy = Project(tmp_path / "project", epochs=EPOCHS)
    shutil.copytree(finished[0].store, copy.store)
    return copy


@pytest.fixture
def store(project):
    return open_store(f"file://{project.store}")


def stage(project, kind, epoch):
    """The record of a stage, and its folder."""
    session = BareRun(project.config).session
    record = session.record_of(session.stage(kind, epoch))
    return record, f"stages/{record.key}"


def undo(store, project, *stages):
    """Takes records away, so that the stages are computed again and load their parents."""
    folders = [stage(project, kind, epoch)[1] for kind, epoch in stages]
    for folder in folders:
        store.delete(f"{folder}/record.json")


def plant(store, record, name, data):
    """Puts `data` in an artifact's place, under a right digest in a right record."""
    sha256 = bytes_sha256(data)
    old = record.artifacts[name]
    file = f"{sha256}.{old.file.partition('.')[2]}"
    folder = f"stages/{record.key}"
    store.put_new(f"{folder}/{file}", data)

    def change(body):
        body["artifacts"][name] = {"file": file, "sha256": sha256, "size": len(data)}

    rewritten(store, f"{folder}/record.json", change)
    return f"{folder}/{file}"
