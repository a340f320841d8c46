"""Reading: the same bytes from every storage, in every process, with or without the cache."""

import os
import pickle
import threading

import pytest
from support.images import in_forks, put_files

from epochal.data.errors import DataError, Unavailable
from epochal.data.files import reading, storage
from epochal.data.files.local_cache import BYTES_VARIABLE, FOLDER_VARIABLE
from epochal.data.files.reading import Piece, ReadAhead, Reader
from epochal.data.files.storage import Storage
from epochal.data.store.retry import VARIABLE

FILES = {f"{name}/{number}.bin": bytes([number]) * 100 for name in "ab" for number in range(20)}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def s3(s3_endpoint, request):
    root = f"s3://epochal-tests/{request.node.name}"
    put_files(root, FILES)
    return root


@pytest.fixture
def requests(monkeypatch):
    """The pieces that were asked of a storage."""
    asked = []
    fetch = Storage.fetch

    def noted(self, pieces):
        asked.extend(pieces)
        return fetch(self, pieces)

    monkeypatch.setattr(Storage, "fetch", noted)
    return asked


def test_pieces_are_the_same_on_every_storage(store_url):
    put_files(store_url, FILES | {"x.bin": bytes(range(100)), "empty.bin": b""})
    reader = Reader(store_url)
    pieces = [Piece("x.bin"), Piece("a/3.bin"), Piece("x.bin", 10, 13), Piece("x.bin", 98, 200)]
    wanted = [bytes(range(100)), FILES["a/3.bin"], bytes([10, 11, 12]), bytes([98, 99])]
    assert reader.read(pieces) == wanted
    assert [reader.read([piece])[0] for piece in pieces] == wanted
    assert reader.read([Piece("empty.bin")]) == [b""]
    assert reader.read([]) == []


def test_a_missing_file_is_named(store_url):
    put_files(store_url, FILES)
    for names in (["a/none.bin"], ["a/1.bin", "a/none.bin"]):
        with pytest.raises(DataError, match=r"a/none\.bin"):
            Reader(store_url).read([Piece(name) for name in names])


def test_forked_processes_read_what_is_there(s3):
    reader = Reader(s3)
    names = sorted(FILES)
    assert reader.read([Piece(name) for name in names]) == [FILES[name] for name in names]

    def read(number):
        mine = names[number::4] * 3
        assert reader.read([Piece(name) for name in mine]) == [FILES[name] for name in mine]
        return b"right"

    assert in_forks(read, 4) == [b"right"] * 4
    assert reader.read([Piece(names[0])]) == [FILES[names[0]]]


def test_threads_read_what_is_there(s3):
    reader = Reader(s3)
    wrong = []

    def read(name):
        if reader.read([Piece(name, stamp=7)]) != [FILES[name]]:
            wrong.append(name)

    threads = [threading.Thread(target=read, args=(name,)) for name in FILES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_was_read_once_comes_from_the_cache(s3, requests):
    pieces = [Piece("a/1.bin", stamp=5), Piece("a/2.bin", 3, 9, stamp=5)]
    first = Reader(s3).read(pieces)
    assert len(requests) == 2
    assert Reader(s3).read(pieces) == first
    assert len(requests) == 2


def test_another_stamp_is_another_content(s3, requests):
    Reader(s3).read([Piece("a/1.bin", stamp=5)])
    put_files(s3, {"a/1.bin": b"new"})
    assert Reader(s3).read([Piece("a/1.bin", stamp=6)]) == [b"new"]


def test_without_a_stamp_or_a_limit_nothing_is_kept(s3, cache, monkeypatch):
    Reader(s3).read([Piece("a/1.bin")])
    monkeypatch.setenv(BYTES_VARIABLE, "0")
    Reader(s3).read([Piece("a/1.bin", stamp=5)])
    assert not cache.exists()


def test_a_request_that_fails_is_made_again(s3, monkeypatch):
    failures = ["once", "twice"]
    opened = storage._open

    def flaky(root):
        files, path = opened(root)
        cat = files._cat_file

        async def sometimes(*arguments, **more):
            if failures:
                failures.pop()
                raise ConnectionResetError
            return await cat(*arguments, **more)

        files._cat_file = sometimes
        return files, path

    monkeypatch.setattr(storage, "_open", flaky)
    assert Reader(s3).read([Piece("a/1.bin"), Piece("a/2.bin")]) == [
        FILES["a/1.bin"],
        FILES["a/2.bin"],
    ]
    assert failures == []


def test_a_storage_that_is_away_is_unavailable(monkeypatch, s3_endpoint):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv(VARIABLE, "0")
    with pytest.raises(Unavailable, match="s3://bucket/x/1"):
        Reader("s3://bucket/x").read([Piece("1")])


def test_an_unknown_kind_of_address_is_named():
    with pytest.raises(DataError, match="nosuch://x"):
        Reader("nosuch://x").read([Piece("1")])


def test_a_reader_can_be_sent_to_another_process(s3):
    reader = Reader(s3)
    reader.read([Piece("a/1.bin")])
    assert pickle.loads(pickle.dumps(reader)).read([Piece("a/1.bin")]) == [FILES["a/1.bin"]]


def test_what_will_be_read_is_fetched_before(s3, requests):
    reader = Reader(s3)
    pieces = [Piece(name, 0, 100) for name in FILES]
    reader.will_read(pieces)
    assert [reader.read([piece])[0] for piece in pieces] == list(FILES.values())
    assert sorted(requests, key=lambda piece: piece.name) == sorted(
        pieces, key=lambda piece: piece.name
    )


def test_a_hint_for_local_files_reads_nothing_wrong(tmp_path):
    put_files(tmp_path, FILES)
    reader = Reader(str(tmp_path))
    reader.will_read([Piece("a/1.bin", 0, 100), Piece("gone.bin", 0, 100)])
    assert reader.read([Piece("a/1.bin", 0, 100)]) == [FILES["a/1.bin"]]


def fetched(pieces):
    return [piece.name.encode() for piece in pieces]


def test_read_ahead_holds_a_bounded_number_of_bytes():
    most, begun = [], threading.Event()

    def fetch(pieces):
        most.append(ahead.held_bytes())
        begun.set()
        return fetched(pieces)

    ahead = ReadAhead(fetch, limit_bytes=250)
    pieces = [Piece(str(number), 0, 100) for number in range(30)]
    ahead.want(pieces)
    assert begun.wait(20)
    for piece in pieces:
        assert ahead.take(piece) in {piece.name.encode(), None}
    assert max(most) <= 250


def test_what_nobody_asks_for_does_not_stop_the_read_ahead():
    pieces = [Piece(str(number), 0, 100) for number in range(40)]
    begun = {piece.name: threading.Event() for piece in pieces}

    def fetch(asked):
        for piece in asked:
            begun[piece.name].set()
        return fetched(asked)

    ahead = ReadAhead(fetch, limit_bytes=300)
    ahead.want(pieces)
    assert begun["2"].wait(20)
    assert ahead.take(pieces[20]) is None  # so those before it, but the last few, are passed
    assert begun["14"].wait(20)
    assert ahead.take(pieces[14]) == b"14"
    assert not begun["11"].is_set()


def test_what_is_no_longer_wanted_is_dropped():
    ahead = ReadAhead(fetched, limit_bytes=300)
    first = [Piece(str(number), 0, 100) for number in range(3)]
    ahead.want(first)
    ahead.want([Piece("x", 0, 100)])
    assert ahead.take(first[0]) is None
    assert ahead.take(Piece("x", 0, 100)) in {b"x", None}
    assert ahead.held_bytes() == 0


def test_an_error_of_the_read_ahead_is_left_to_who_reads():
    def failing(_):
        raise OSError

    ahead = ReadAhead(failing, limit_bytes=300)
    piece = Piece("x", 0, 100)
    ahead.want([piece])
    assert ahead.take(piece) is None


def test_a_fork_while_pieces_are_on_their_way_reads_its_own(s3, monkeypatch):
    monkeypatch.setattr(reading, "NUM_AHEAD", 1)
    reader = Reader(s3)
    pieces = [Piece(name, 0, 100) for name in FILES]
    reader.will_read(pieces)
    wanted = b"".join(FILES.values())
    assert in_forks(lambda _: b"".join(reader.read(pieces)), 2) == [wanted] * 2
    assert b"".join(reader.read(pieces)) == wanted
    assert os.getpid() == reader._mine.pid
