"""What every store promises, on every backend."""

import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from epochal.data.errors import BadStore, CorruptObject, StoreUnavailable
from epochal.data.store.open import open_store

pytestmark = pytest.mark.parametrize(
    "store_url", ["file", "memory", "s3", "s3-on-disk"], indirect=True
)
ODD_SIZES = [0, 1, 70_001]


@pytest.fixture
def store(store_url):
    return open_store(store_url)


@pytest.mark.parametrize("size", ODD_SIZES)
def test_what_was_put_is_read_back(store, size):
    data = os.urandom(size)
    store.put_new("a/b.bin", data)
    assert store.read("a/b.bin") == data
    assert store.size("a/b.bin") == size


@pytest.mark.parametrize("size", ODD_SIZES)
def test_a_file_is_put_like_bytes(store, tmp_path, size):
    source = tmp_path / "source"
    source.write_bytes(os.urandom(size))
    store.put_new("a/b.bin", source)
    assert store.read("a/b.bin") == source.read_bytes()


def test_an_object_that_exists_is_never_replaced(store, tmp_path):
    store.put_new("a", b"first")
    other = tmp_path / "other"
    other.write_bytes(b"second")
    for source in (b"second", b"first", other):
        with pytest.raises(FileExistsError):
            store.put_new("a", source)
    assert store.read("a") == b"first"


def test_a_storage_that_lets_one_writer_win_says_so(store, caplog):
    store.preflight()
    assert "simultaneous" not in caplog.text


@pytest.mark.parametrize("as_file", [False, True])
def test_of_simultaneous_writers_exactly_one_wins_with_all_its_bytes(store, tmp_path, as_file):
    num_writers = 6
    together = threading.Barrier(num_writers)
    contents = [bytes([65 + writer]) * 50_000 for writer in range(num_writers)]

    def write(writer: int) -> bool:
        source = contents[writer]
        if as_file:
            source = tmp_path / str(writer)
            source.write_bytes(contents[writer])
        together.wait()
        try:
            store.put_new("one", source)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(num_writers) as pool:
        won = list(pool.map(write, range(num_writers)))
    assert won.count(True) == 1
    assert store.read("one") == contents[won.index(True)]


def test_a_missing_object_is_file_not_found(store):
    store.put_new("folder/object", b"1")
    for path in ("nothing", "folder", "folder/object/below", "folder/none"):
        assert store.size(path) is None
        with pytest.raises(FileNotFoundError):
            store.read(path)
        with pytest.raises(FileNotFoundError), store.fetch(path):
            pass
        assert store.set_aside(path, "not there") is None


def test_more_bytes_than_expected_are_damage_and_not_read(store):
    store.put_new("a", b"12345")
    assert store.read("a", max_bytes=5) == b"12345"
    with pytest.raises(CorruptObject, match="more than the 4 bytes"):
        store.read("a", max_bytes=4)


def test_another_instance_sees_new_and_deleted_objects_at_once(store, store_url):
    other = open_store(store_url)
    assert other.listing() == {}
    assert other.size("a/x") is None
    store.put_new("a/x", b"1")
    assert other.listing() == {"a/x": 1}
    assert other.read("a/x") == b"1"
    store.put_new("a/y", b"22")
    assert other.listing("a") == {"a/x": 1, "a/y": 2}
    store.delete("a/x")
    assert other.listing() == {"a/y": 2}
    assert other.size("a/x") is None


def test_a_listing_has_all_objects_below_its_folder_and_no_others(store):
    for path in ("a/1", "a/b/c/22", "ab/1", "c", "a.b/1"):
        store.put_new(path, b"x" * len(path))
    assert store.listing("a") == {"a/1": 3, "a/b/c/22": 8}
    assert store.listing("none") == {}
    assert list(store.listing()) == ["a.b/1", "a/1", "a/b/c/22", "ab/1", "c"]


def test_delete_removes_and_absent_objects_are_no_error(store):
    store.put_new("a/b", b"1")
    store.delete("a/b")
    store.delete("a/b")
    store.delete("never/was")
    assert store.listing() == {}
    store.put_new("a/b", b"2")
    assert store.read("a/b") == b"2"


def test_what_is_set_aside_keeps_its_bytes_and_frees_the_path(store, caplog):
    with caplog.at_level(logging.INFO, logger="epochal.data.store.store"):
        for number, data in enumerate((b"one", b"two")):
            store.put_new("a/b.bin", data)
            assert store.set_aside("a/b.bin", "a bit flipped") == f"damaged/a/b.bin.{number}"
    assert store.listing() == {"damaged/a/b.bin.0": 3, "damaged/a/b.bin.1": 3}
    assert store.read("damaged/a/b.bin.1") == b"two"
    assert "a bit flipped" in caplog.text


def test_fetch_gives_a_local_file(store):
    data = os.urandom(100_000)
    store.put_new("a/b.bin", data)
    with store.fetch("a/b.bin") as path:
        assert path.read_bytes() == data


def test_a_fetched_file_stays_although_its_object_goes(store):
    store.put_new("a/b.bin", b"in use")
    store.put_new("a/c.bin", b"in use")
    with store.fetch("a/b.bin") as path, store.fetch("a/c.bin") as other:
        store.delete("a/b.bin")
        store.set_aside("a/c.bin", "a bit flipped")
        assert path.read_bytes() == other.read_bytes() == b"in use"
    assert store.size("a/b.bin") is None
    assert store.read("damaged/a/c.bin.0") == b"in use"


def test_errors_inside_fetch_and_scratch_are_the_callers_own(store):
    store.put_new("a", b"1")
    with pytest.raises(OSError, match="mine"), store.fetch("a"):
        raise OSError("mine")
    with pytest.raises(FileNotFoundError, match="mine"), store.scratch():
        raise FileNotFoundError("mine")


def test_a_full_disk_inside_scratch_is_the_stores_failure(store):
    with pytest.raises(StoreUnavailable, match="disk is full"), store.scratch():
        raise OSError(28, "No space left on device")


def test_scratch_files_can_be_put_and_the_folder_is_gone_afterwards(store):
    with store.scratch() as folder, store.scratch() as other:
        assert folder != other
        (folder / "model").write_bytes(b"weights")
        store.put_new("a/model", folder / "model")
        (folder / "model").write_bytes(b"written again")
        assert store.read("a/model") == b"weights"
    assert not folder.exists()
    assert not other.exists()
    assert store.listing() == {"a/model": 7}


def test_a_source_that_is_missing_is_named(store, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file to put"):
        store.put_new("a", tmp_path / "none")
    assert store.listing() == {}


@pytest.mark.parametrize(
    "path", ["../x", "/x", "a//b", "a/../b", "", ".", "a b", "a\\b", "é", "a/"]
)
def test_paths_that_leave_the_store_are_refused(store, path):
    for call in (store.read, store.size, store.delete, lambda p: store.put_new(p, b"")):
        with pytest.raises(BadStore, match="cannot name an object"):
            call(path)
    with pytest.raises(BadStore), store.fetch(path):
        pass


def test_preflight_leaves_nothing_behind(store):
    store.preflight()
    store.preflight()
    assert store.listing() == {}
    assert store.listing("tmp") == {}


def test_preflight_refuses_storage_that_overwrites(store, monkeypatch):
    backend = store._backend
    monkeypatch.setattr(
        backend,
        "put_new",
        lambda path, data, put=backend.put_new: (backend.delete(path), put(path, data)),
    )
    with pytest.raises(BadStore, match="overwrites"):
        store.preflight()
    assert store.listing("tmp") == {}


def test_many_who_fetch_at_once_get_the_same_bytes(store):
    from concurrent.futures import ThreadPoolExecutor

    data = bytes(range(256)) * 4096
    store.put_new("a/b.bin", data)

    def fetched(_):
        with store.fetch("a/b.bin") as path:
            return path.read_bytes() == data

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(fetched, range(24)))
