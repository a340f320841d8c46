"""A store that one may only read: what only reads works; what must write says why it cannot."""

import errno
import os

import pytest
from support.runs.bare_run import BareRun, copy_of, finished_project
from support.runs.project import call

from epochal.data.errors import StoreUnavailable
from epochal.data.store.local import LocalBackend
from epochal.data.store.local_disk import SystemDisk, use_disk
from epochal.data.store.open import open_store
from epochal.data.store.store import Store
from epochal.tasks.upkeep import find_garbage, remove_garbage


class ReadOnlyDisk(SystemDisk):
    """A file system that is mounted read-only."""

    def write(self, path, data):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    copy = link = write

    def unlink(self, path):
        self.write(path, b"")

    make_folder = unlink


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return finished_project(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def project(finished, tmp_path, monkeypatch):
    """A copy of the finished run."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return copy_of(finished, tmp_path / "project", epochs=2)


@pytest.fixture
def read_only(monkeypatch):
    """Nothing can be written to any folder of a store."""

    def refused(self):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self._root / "tmp"))

    monkeypatch.setattr(LocalBackend, "scratch", refused)
    before = use_disk(ReadOnlyDisk())
    yield
    use_disk(before)


READING = {
    "runs": ("{store}",),
    "show": ("{config}",),
    "samples": ("{config}",),
    "report": ("{config}", "--out", "report.html"),
    "export": ("{config}", "--out", "weights.safetensors"),
    "plan": ("{config}",),
    "verify": ("{store}",),
    "gc": ("{store}",),
}


@pytest.mark.parametrize("command", READING)
def test_a_command_that_only_reads_works(command, project, read_only):
    names = {"store": str(project.store), "config": str(project.config)}
    done = call(command, *(text.format(**names) for text in READING[command]))
    assert done.code == 0, done.err


def damaged_model(project):
    path = max(project.store.glob("stages/*/*.safetensors"), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    return path


def test_verify_says_what_it_could_not_move(project, read_only):
    path = damaged_model(project)
    done = call("verify", str(project.store), "--set-aside", "--json")
    assert done.code == 75
    assert done.json["moved"] == []
    assert "moved to damaged/: 0" in done.err
    assert "could not be moved: 1" in done.err
    assert "Read-only" in done.err
    assert path.exists()


def test_verify_says_how_many_it_has_moved_and_that_a_missing_one_is_made_again(project):
    damaged_model(project)
    next(project.store.glob("stages/*/*.parquet")).unlink()
    done = call("verify", str(project.store), "--set-aside", "--json")
    assert done.code == 75
    assert len(done.json["problems"]) == 2
    assert len(done.json["moved"]) == 1
    assert "moved to damaged/: 1" in done.err
    assert "could not be moved" not in done.err


def test_a_damaged_object_is_named_although_it_cannot_be_moved(project, read_only):
    for path in project.store.glob("stages/*/*.safetensors"):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(bytes(data))
    done = call("export", str(project.config), "--out", "weights.safetensors")
    assert done.code == 75
    text = " ".join(done.err.split())
    assert "do not have the digest" in text
    assert "could not be moved" in text


def test_gc_makes_room_before_it_writes_anything(project, monkeypatch):
    store = open_store(f"file://{project.store}")
    orphan = f"stages/{'a' * 64}/{'b' * 64}.json"
    store.put_new(orphan, b"1")
    BareRun(project.config, epochs=4, checkpoint__keep_last=2, checkpoint__keep_best=0)()
    garbage = find_garbage(store)
    assert orphan in garbage.objects
    assert garbage.pruned
    put_new = Store.put_new

    def full(self, path, source):
        if self.size(orphan) is not None:
            raise StoreUnavailable("the disk is full")
        put_new(self, path, source)

    monkeypatch.setattr(Store, "put_new", full)
    remove_garbage(store, garbage)
    assert find_garbage(store).bytes == 0
