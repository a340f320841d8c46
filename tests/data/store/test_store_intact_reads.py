"""One bad read damages nothing: only the same wrong bytes, read twice, are called damage."""

import errno
from contextlib import contextmanager

import pytest

from epochal.data.errors import CorruptObject, StoreUnavailable
from epochal.data.hashing import file_sha256
from epochal.data.store.local import LocalBackend
from epochal.data.store.open import open_store
from epochal.data.store.store import MAX_READS
from epochal.data.testing.faults import injected
from epochal.data.testing.plan import FaultPlan

DATA = b"some bytes of an object"


def load(data):
    if data != DATA:
        raise CorruptObject("wrong")
    return data


def fetched(store, expected):
    with store.fetch_intact("a", digest=file_sha256, expected=expected) as local:
        return local.read_bytes()


@pytest.fixture
def expected(tmp_path):
    (tmp_path / "right").write_bytes(DATA)
    return file_sha256(tmp_path / "right")


@pytest.mark.parametrize("bad_reads", [1, MAX_READS - 1])
def test_reads_that_go_wrong_on_the_way_are_made_again(store_url, expected, bad_reads):
    open_store(store_url).put_new("a", DATA)
    for read in (lambda store: store.read_intact("a", load), lambda one: fetched(one, expected)):
        with injected(FaultPlan("flip", at=1, count=bad_reads)) as plan:
            assert read(open_store(store_url)) == DATA
        assert len(plan.operations) == bad_reads + 1


def test_the_same_wrong_bytes_twice_are_damage(store_url, expected):
    open_store(store_url).put_new("a", DATA[::-1])
    for read in (lambda store: store.read_intact("a", load), lambda one: fetched(one, expected)):
        with injected(FaultPlan("flip", at=2)) as plan, pytest.raises(CorruptObject):
            read(open_store(store_url))
        assert len(plan.operations) == 3  # the second one was another one


def test_an_object_that_never_reads_alike_is_no_damage(store_url, expected):
    open_store(store_url).put_new("a", DATA)
    for read in (lambda store: store.read_intact("a", load), lambda one: fetched(one, expected)):
        with (
            injected(FaultPlan("flip", at=1, count=99)) as plan,
            pytest.raises(StoreUnavailable, match="gave other bytes each time"),
        ):
            read(open_store(store_url))
        assert len(plan.operations) == MAX_READS


def test_the_same_part_of_an_object_twice_is_no_damage(store_url, expected, monkeypatch):
    store = open_store(store_url)
    store.put_new("a", DATA)
    read, fetch = type(store._backend).read, type(store._backend).fetch

    def short(self, path, *, max_bytes):
        return read(self, path, max_bytes=max_bytes)[:7]

    @contextmanager
    def short_file(self, path):
        with fetch(self, path) as local, self.scratch() as folder:
            (folder / "short").write_bytes(local.read_bytes()[:7])
            yield folder / "short"

    monkeypatch.setattr(type(store._backend), "read", short)
    monkeypatch.setattr(type(store._backend), "fetch", short_file)
    for read_it in (lambda: store.read_intact("a", load), lambda: fetched(store, expected)):
        with pytest.raises(
            StoreUnavailable, match=rf"/a was read 4 times, .* 7 bytes, and has {len(DATA)} by"
        ):
            read_it()
    assert store.listing() == {"a": len(DATA)}


def test_an_object_that_another_process_puts_right_meanwhile_is_right(
    store_url, expected, monkeypatch
):
    other = open_store(store_url)

    def put_right(path):
        assert other.set_aside(path, "damaged") is not None
        other.put_new(path, DATA)
        return len(DATA)

    for read_it in (lambda store: store.read_intact("a", load), lambda one: fetched(one, expected)):
        store = open_store(store_url)
        store.delete("a")
        store.put_new("a", DATA[:7])
        monkeypatch.setattr(store._backend, "size", put_right)
        assert read_it(store) == DATA


def test_a_page_that_memory_has_wrong_is_read_from_the_disk_again(tmp_path, expected, monkeypatch):
    store = open_store(f"file://{tmp_path}/store")
    store.put_new("a", DATA)
    memory = {"a": DATA[::-1]}
    monkeypatch.setattr(
        LocalBackend, "read", lambda self, path, *, max_bytes: memory.get(path, DATA)
    )
    monkeypatch.setattr(LocalBackend, "forget", lambda self, path: memory.pop(path))
    assert store.read_intact("a", load) == DATA


def test_a_file_that_the_disk_cannot_read_names_the_object_and_is_no_damage(store_url, expected):
    def unreadable(_):
        raise OSError(errno.EIO, "Input/output error")

    store = open_store(store_url)
    store.put_new("a", DATA)
    with (
        pytest.raises(StoreUnavailable, match="/a: .*Input/output error.*check the disk"),
        store.fetch_intact("a", digest=unreadable, expected=expected),
    ):
        pass
    assert store.listing() == {"a": len(DATA)}


def test_forgetting_changes_no_object(store_url):
    store = open_store(store_url)
    store.put_new("a", DATA)
    for path in ("a", "b"):
        store._backend.forget(path)
    assert store.listing() == {"a": len(DATA)}
