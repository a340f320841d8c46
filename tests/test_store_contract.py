"""What every store promises, on every backend; then what single backends promise besides."""

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from s3_server import BUCKET

from epochal.data import backend_object
from epochal.data.errors import Damaged, PreflightFailed, StoreRefused, StoreUnavailable
from epochal.data.store import open_store

ODD_SIZES = [0, 1, 70_001]


@pytest.fixture
def store(store_url):
    return open_store(store_url)


@pytest.fixture
def local(tmp_path):
    return open_store("./store", folder=tmp_path)


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
    with pytest.raises(Damaged, match="more than the 4 bytes"):
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
    with caplog.at_level(logging.INFO, logger="epochal.data.store"):
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
        with pytest.raises(StoreRefused, match="cannot name an object"):
            call(path)
    with pytest.raises(StoreRefused), store.fetch(path):
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
    with pytest.raises(StoreRefused, match="overwrites"):
        store.preflight()
    assert store.listing("tmp") == {}


# --- a folder -----------------------------------------------------------------------------------


def test_a_scratch_file_is_linked_and_not_copied(local):
    with local.scratch() as folder:
        source = folder / "big"
        source.write_bytes(b"1" * 1000)
        inode = source.stat().st_ino
        local.put_new("a/big", source)
        assert not source.exists()
    with local.fetch("a/big") as path:
        assert path.stat().st_ino == inode
        assert path.stat().st_nlink == 1


@pytest.mark.parametrize("failing", ["link", "fsync"])
def test_an_error_while_writing_leaves_nothing(local, tmp_path, monkeypatch, failing):
    local.put_new("a/before", b"1")

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        with pytest.raises(StoreUnavailable, match=r"a/object.*No space left.*free some space"):
            local.put_new("a/object", b"1")
    assert local.listing() == {"a/before": 1}
    assert list((tmp_path / "store/tmp").iterdir()) == []


def test_a_file_system_without_links_is_told_at_preflight(local, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(PreflightFailed, match="no hard links"):
        local.preflight()


def test_a_file_where_a_folder_should_be_fails_the_preflight(tmp_path):
    (tmp_path / "file").write_text("")
    for place in ("./file", "./file/below"):
        with pytest.raises(PreflightFailed, match=r"NotADirectoryError.*name another store"):
            open_store(place, folder=tmp_path).preflight()


def test_a_file_in_the_way_of_a_folder_is_not_taken_for_the_object(local):
    local.put_new("a", b"1")
    with pytest.raises(StoreUnavailable, match="NotADirectoryError"):
        local.put_new("a/b", b"2")


def test_opening_and_looking_creates_nothing(local, tmp_path):
    assert local.listing() == {}
    assert local.size("a") is None
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_swept_and_live_scratch_is_kept(local, tmp_path):
    program = textwrap.dedent("""
        import os, sys, time
        from epochal.data.store import open_store
        store = open_store(sys.argv[1])
        os.link = lambda *_: (print("ready", flush=True), time.sleep(600))
        store.put_new("a/object", b"half")
    """)
    command = [sys.executable, "-c", program, local.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer, local.scratch() as mine:
        assert writer.stdout.readline() == b"ready\n"
        left = [p for p in (tmp_path / "store/tmp").iterdir() if not p.name.startswith(mine.name)]
        assert len(left) == 2
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        again = open_store(local.url)
        assert again.listing() == {}
        again.put_new("a/object", b"whole")
        assert mine.exists()
        assert not any(path.exists() for path in left)
    assert again.read("a/object") == b"whole"


def test_a_file_store_loads_no_storage_package():
    program = (
        "import sys; from epochal.data.store import open_store; import epochal.data.stages; "
        "store = open_store('/nowhere/at/all'); store.listing(); "
        "print({'fsspec', 's3fs', 'botocore', 'torch', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


# --- S3 -----------------------------------------------------------------------------------------


@pytest.fixture
def bucket(s3_endpoint):
    return open_store(f"s3://{BUCKET}/{uuid.uuid4().hex}")


def test_a_listing_of_many_pages_is_complete(bucket, monkeypatch):
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "2")
    bucket.map(lambda number: bucket.put_new(f"many/{number}", b"1"), range(7))
    assert sorted(bucket.listing("many")) == [f"many/{number}" for number in range(7)]


def test_large_files_go_up_in_parts_and_never_replace(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(backend_object, "PART_BYTES", 5 << 20)
    store = open_store(bucket.url)
    source = tmp_path / "source"
    source.write_bytes(os.urandom(12 << 20))
    store.put_new("big", source)
    assert store.read("big") == source.read_bytes()
    for other in (tmp_path / "other", b"1" * (12 << 20)):
        if isinstance(other, Path):
            other.write_bytes(b"2" * (12 << 20))
        with pytest.raises(FileExistsError):
            store.put_new("big", other)
    assert store.read("big") == source.read_bytes()
    assert store.listing() == {"big": 12 << 20}


def test_a_failed_part_leaves_no_object(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(backend_object, "PART_BYTES", 5 << 20)
    store = open_store(bucket.url)
    source = tmp_path / "source"
    source.write_bytes(bytes(12 << 20))
    call = store._backend._files._call_s3

    async def fail_second_part(method, *args, **kwargs):
        if kwargs.get("PartNumber") == 2:
            raise OSError("the line went dead")
        return await call(method, *args, **kwargs)

    monkeypatch.setattr(store._backend._files, "_call_s3", fail_second_part)
    with pytest.raises(StoreUnavailable, match="the line went dead"):
        store.put_new("big", source)
    assert open_store(bucket.url).listing() == {}


def test_a_conflict_on_the_other_side_is_tried_again(bucket, monkeypatch):
    from botocore.exceptions import ClientError

    create = bucket._backend._create
    answers = iter([OSError("conflict"), OSError("conflict")])

    def conflict_twice(path, source):
        for answer in answers:
            cause = {"Error": {"Code": "ConditionalRequestConflict", "Message": "409"}}
            raise answer from ClientError(cause, "PutObject")
        create(path, source)

    monkeypatch.setattr(bucket._backend, "_create", conflict_twice)
    bucket.put_new("a", b"1")
    assert bucket.read("a") == b"1"


def test_a_missing_bucket_fails_the_preflight(s3_endpoint):
    store = open_store("s3://no-such-bucket/x")
    with pytest.raises(PreflightFailed, match=r"no-such-bucket.*create the bucket"):
        store.preflight()


def test_missing_credentials_fail_the_preflight(s3_endpoint, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(PreflightFailed, match=r"NoCredentialsError.*AWS_ACCESS_KEY_ID"):
        open_store(f"s3://{BUCKET}/x").preflight()


def test_an_endpoint_that_is_away_is_told_within_seconds(s3_endpoint, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(PreflightFailed, match=r"EndpointConnectionError.*AWS_ENDPOINT_URL"):
        open_store(f"s3://{BUCKET}/x").preflight()
    assert time.monotonic() - started < 15


def test_many_who_fetch_at_once_get_the_same_bytes(store):
    from concurrent.futures import ThreadPoolExecutor

    data = bytes(range(256)) * 4096
    store.put_new("a/b.bin", data)

    def fetched(_):
        with store.fetch("a/b.bin") as path:
            return path.read_bytes() == data

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(fetched, range(24)))
