"""A store that stays as it is: what is written, moved or deleted goes to a folder beside it."""

import pytest

from epochal.data.errors import CorruptObject
from epochal.data.hashing import bytes_sha256
from epochal.data.store.open import open_store, open_unchanged

pytestmark = pytest.mark.parametrize("store_url", ["file", "memory", "s3"], indirect=True)


@pytest.fixture
def below(store_url):
    """A store with two objects."""
    store = open_store(store_url)
    store.put_new("a/b", b"below")
    store.put_new("c", b"right")
    return store


@pytest.fixture
def store(below, tmp_path):
    before = contents(below)
    yield open_unchanged(below.url, folder=tmp_path / "above")
    assert contents(open_store(below.url)) == before


def contents(store):
    return {path: store.read(path) for path in store.listing()}


def test_what_is_below_is_read(store):
    assert contents(store) == {"a/b": b"below", "c": b"right"}
    assert store.size("a/b") == len(b"below")
    with store.fetch("c") as path:
        assert path.read_bytes() == b"right"


def test_what_is_written_is_above_and_never_replaces(store):
    store.put_new("a/new", b"above")
    with store.scratch() as folder:
        (folder / "x").write_bytes(b"handed over")
        store.put_new("d", folder / "x")
    for path in ("a/b", "a/new"):
        with pytest.raises(FileExistsError):
            store.put_new(path, b"other")
    assert store.listing("a") == {"a/b": 5, "a/new": 5}
    assert store.read("d") == b"handed over"
    with store.fetch("a/new") as path:
        assert path.read_bytes() == b"above"


def test_what_is_deleted_is_gone_here_and_may_be_written_anew(store):
    store.put_new("new", b"above")
    for path in ("a/b", "new", "absent"):
        store.delete(path)
        assert store.size(path) is None
        with pytest.raises(FileNotFoundError):
            store.read(path)
        with pytest.raises(FileNotFoundError), store.fetch(path):
            pass
    assert contents(store) == {"c": b"right"}
    store.put_new("a/b", b"again")
    assert contents(store) == {"a/b": b"again", "c": b"right"}


def test_what_is_set_aside_is_aside_here(store):
    store.put_new("new", b"above")
    assert store.set_aside("a/b", "wrong") == "damaged/a/b.0"
    assert store.set_aside("a/b", "wrong") is None
    store.put_new("a/b", b"anew")
    assert store.set_aside("a/b", "wrong") == "damaged/a/b.1"
    assert store.set_aside("new", "wrong") == "damaged/new.0"
    assert contents(store) == {
        "c": b"right", "damaged/a/b.0": b"below", "damaged/a/b.1": b"anew",
        "damaged/new.0": b"above",
    }  # fmt: skip


def test_damage_below_is_found(store):
    def load(data):
        if bytes_sha256(data) != bytes_sha256(b"as it was written"):
            raise CorruptObject("wrong")

    with pytest.raises(CorruptObject):
        store.read_intact("c", load)


def test_it_passes_the_preflight(store):
    store.preflight()
    assert store.unfinished_uploads(quiet_s=0) == []
