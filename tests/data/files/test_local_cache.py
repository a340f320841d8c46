"""The local cache: bounded, shared, and never wrong bytes."""

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.images import in_forks

from epochal.data.errors import ConfigError
from epochal.data.files import local_cache
from epochal.data.files.local_cache import (
    BYTES_VARIABLE,
    FOLDER_VARIABLE,
    LocalCache,
    cache_bytes,
    cache_folder,
    read_whole,
    recall,
    remember,
    write_whole,
)
from epochal.data.hashing import digest


def key(number):
    return digest("test", number)


def kept_bytes(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@given(st.binary(max_size=200))
def test_bytes_are_given_back(tmp_path_factory, data):
    cache = LocalCache(tmp_path_factory.mktemp("cache"), limit_bytes=10_000)
    assert cache.get(key(0)) is None
    cache.put(key(0), data)
    assert cache.get(key(0)) == data


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: b"x" + data[1:], lambda _: b""]
)
def test_damaged_bytes_are_absent(tmp_path, damage):
    cache = LocalCache(tmp_path, limit_bytes=10_000)
    cache.put(key(0), b"content")
    (path,) = (path for path in tmp_path.rglob(key(0)))
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get(key(0)) is None
    cache.put(key(0), b"content")
    assert cache.get(key(0)) == b"content"


def test_the_limit_holds_and_what_was_read_lately_stays(tmp_path):
    limit = 40_000
    cache = LocalCache(tmp_path, limit_bytes=limit)
    for number in range(200):
        cache.put(key(number), bytes(1000))
        path = next(tmp_path.rglob(key(number)))
        os.utime(path, ns=(number, number))  # the clock's ticks are too long for this loop
        if number:
            assert cache.get(key(0)) is not None
        assert kept_bytes(tmp_path) <= limit
    assert cache.get(key(199)) is not None
    assert cache.get(key(1)) is None


def test_the_limit_holds_with_several_processes(tmp_path):
    cache = LocalCache(tmp_path, limit_bytes=150_000)

    def fill(process):
        for number in range(100):
            cache.put(key(1000 * process + number), bytes(2000))
        return b"done"

    assert in_forks(fill, 3) == [b"done"] * 3
    assert 75_000 < kept_bytes(tmp_path) <= 150_000


def test_what_is_large_against_the_limit_is_not_kept(tmp_path):
    cache = LocalCache(tmp_path, limit_bytes=8000)
    cache.put(key(0), bytes(1001))
    assert cache.get(key(0)) is None


def test_a_full_disk_ends_the_caching_and_is_told_once(tmp_path, monkeypatch, caplog):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    cache = LocalCache(tmp_path, limit_bytes=10_000)
    monkeypatch.setattr(local_cache, "write_whole", full)
    cache.put(key(0), b"content")
    cache.put(key(1), b"content")
    assert cache.get(key(0)) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "No space left" in caplog.text


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    target, scratch = tmp_path / "a/b", tmp_path / "tmp"
    write_whole(target, b"before", scratch=scratch)
    monkeypatch.setattr(local_cache, "_checksum", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_whole(target, b"after", scratch=scratch)
    monkeypatch.undo()
    assert read_whole(target) == b"before"
    assert list(scratch.iterdir()) == []


def test_no_bytes_means_no_cache(tmp_path):
    cache = LocalCache(tmp_path / "none", limit_bytes=0)
    cache.put(key(0), b"content")
    assert not (tmp_path / "none").exists()


def test_place_and_size_come_from_the_environment(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path.home() / ".cache/epochal"
    assert cache_bytes() == 10 << 30
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "x"))
    monkeypatch.setenv(BYTES_VARIABLE, "12")
    assert (cache_folder(), cache_bytes()) == (tmp_path / "x", 12)


@pytest.mark.parametrize("text", ["-1", "10 GB", "1e9"])
def test_a_size_that_is_no_number_of_bytes_is_refused(monkeypatch, text):
    monkeypatch.setenv(BYTES_VARIABLE, text)
    with pytest.raises(ConfigError, match=BYTES_VARIABLE):
        cache_bytes()


def test_what_nobody_has_used_for_long_is_forgotten():
    for number in range(2):
        remember("things", key(number), b"content")
    (old,) = (path for path in (cache_folder() / "things").iterdir() if key(0) in path.name)
    os.utime(old, (1, 1))
    assert recall("things", key(0)) == b"content"  # which is a use
    remember("things", key(1), b"content")
    assert recall("things", key(0)) == b"content"
    os.utime(old, (1, 1))
    remember("things", key(2), b"content")
    assert recall("things", key(0)) is None
    assert recall("things", key(1)) == b"content"
