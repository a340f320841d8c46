"""What a crash may leave of a store in a folder: all that was promised, or it is found."""

import threading
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from epochal.data.store import local
from epochal.data.store.local import LocalBackend
from epochal.data.store.open import open_store
from epochal.data.testing.crash import (
    MODELS,
    broken_promises,
    crash_states,
    drawn_states,
    promised,
)
from epochal.data.testing.recording import recorded

models = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def commit(store):
    """Each way of writing and of taking away, once."""
    store.put_new("a/b", b"12345678")
    with store.scratch() as folder:
        (folder / "x").write_bytes(b"handed over")
        store.put_new("a/c", folder / "x")
    store.put_new("record", b"a/b a/c")
    store.set_aside("a/b", "for the test")
    store.delete("a/c")


def record(folder, do=commit):
    disk = folder / "disk"
    disk.mkdir()
    with recorded(disk) as recording:
        do(open_store(f"file://{disk}/store"))
    return recording


def broken(recording, model):
    return {
        text.partition(": ")[2]
        for state in crash_states(recording, model)
        for text in broken_promises(state)
    }


def test_a_store_that_others_read_meanwhile_is_recorded_all_the_same(tmp_path):
    ended = threading.Event()

    def do(store):
        store.put_new("read", b"1")

        def read():
            while not ended.is_set():
                with store.fetch("read") as path:
                    path.read_bytes()

        with ThreadPoolExecutor() as pool:
            reading = pool.submit(read)
            try:
                for number in range(50):
                    store.put_new(f"a/{number}", b"12345678")
            finally:
                ended.set()
            reading.result()

    recording = record(tmp_path, do)
    last = promised(recording, len(recording.changes))
    whole = {f"store/a/{number}": {b"12345678"} for number in range(50)}
    assert last == {"store/read": {b"1"}, **whole}


@models
def test_whatever_a_crash_leaves_every_promise_of_a_store_is_kept(model, tmp_path):
    recording = record(tmp_path)
    states = list(crash_states(recording, model))
    assert len(states) > 20
    assert [text for state in states for text in broken_promises(state)] == []


def test_a_state_can_be_written_and_opened_and_states_are_each_another(tmp_path):
    states = list(crash_states(record(tmp_path), MODELS["reordered"]))
    found = []
    for number, state in enumerate(states):
        folder = tmp_path / str(number)
        folder.mkdir()
        state.write(folder)
        assert {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        } == state.files
        found.append(open_store(f"file://{folder}/store").listing())
    assert {} in found
    assert {"a/b": 8} in found
    assert {"a/b": 8, "a/c": 11, "record": 7} in found
    assert {"damaged/a/b.0": 8, "record": 7} in found
    assert all("a/c" in one for one in found if "record" in one and "a/b" in one)


STORED, REMOVED = "it was stored, and is not there", "what was removed is there"
TORN = "not all of its bytes are there, or others"
MISTAKES = {
    "a file of another is not synced": (
        "            disk().sync(source)\n            self._link",
        "            self._link",
        TORN,
    ),
    "a file is not synced": (
        "            disk().sync(temporary)\n",
        "",
        TORN,
    ),
    "the folder of a new name is not synced": (
        "            raise\n        disk().sync(target.parent)\n",
        "            raise\n",
        STORED,
    ),
    "a new folder's name is not synced": (
        "            disk().sync(directory.parent)\n",
        "",
        STORED,
    ),
    "the folder of a deleted name is not synced": (
        "            return\n        disk().sync(target.parent)\n",
        "            return\n",
        REMOVED,
    ),
    "a file is made in its place": (
        "            disk().sync(temporary)\n            self._link(temporary, path)\n",
        """            place = self._place(path)
            self._make_folders(place.parent)
            disk().copy(temporary, place)
            disk().sync(place)
            disk().sync(place.parent)
""",
        TORN,
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_local_store_breaks_a_promise(mistake, tmp_path, monkeypatch):
    old, new, says = mistake
    text = Path(local.__file__).read_text()
    assert text.count(old) == 1
    planted = types.ModuleType("planted")
    exec(compile(text.replace(old, new), "planted", "exec"), vars(planted))
    for name, function in vars(planted.LocalBackend).items():
        if isinstance(function, types.FunctionType):
            monkeypatch.setattr(LocalBackend, name, function)
    assert says in broken(record(tmp_path), MODELS["reordered"])


def test_what_is_promised_follows_from_the_answers_that_came(tmp_path):
    recording = record(tmp_path)
    counts = [len(promised(recording, point)) for point in range(len(recording.changes) + 1)]
    assert counts == sorted(counts)
    assert promised(recording, 0) == {}
    assert promised(recording, len(recording.changes)) == {
        "store/a/b": {None},
        "store/a/c": {None},
        "store/record": {b"a/b a/c"},
        "store/damaged/a/b.0": {b"12345678"},
    }


def test_a_record_that_comes_before_what_it_names_is_seen(tmp_path):
    def hasty(store):
        store.put_new("record", b"a/b")
        store.put_new("a/b", b"12345678")

    listings = [
        {path.removeprefix("store/") for path in state.files if "tmp" not in path}
        for state in crash_states(record(tmp_path, hasty), MODELS["ordered"])
    ]
    assert {"record"} in listings


def test_a_file_whose_name_came_before_its_bytes_is_empty_or_half_or_zeros(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    with recorded(disk) as recording:
        (disk / "file").write_bytes(b"12345678")
    left = {
        name: {state.files["file"] for state in crash_states(recording, model) if state.files}
        for name, model in MODELS.items()
    }
    assert left["ordered"] == {b"", b"12345678"}
    assert left["writeback"] == left["reordered"] == {b"", b"1234", bytes(8), b"12345678"}


def test_names_come_in_order_or_not_as_the_model_has_it(tmp_path):
    def touch(store):
        folder = tmp_path / "disk" / "store"
        folder.mkdir()
        for name in ("first", "second"):
            (folder / name).touch()
            store.delete("none")  # asks the disk, so the recorder looks between the two

    recording = record(tmp_path, touch)

    def left(model):
        return {
            frozenset(path.removeprefix("store/") for path in state.files)
            for state in crash_states(recording, MODELS[model])
        }

    in_order = {frozenset(), frozenset({"first"}), frozenset({"first", "second"})}
    assert left("ordered") == left("writeback") == in_order
    assert left("reordered") == {*in_order, frozenset({"second"})}


def test_drawn_states_are_the_same_again_and_others_with_another_seed(tmp_path):
    recording = record(tmp_path)

    def drawn(seed):
        return [
            (state.point, dict(state.files))
            for state in drawn_states(recording, MODELS["reordered"], seed=seed, count=20)
        ]

    assert drawn(1) == drawn(1) != drawn(2)
    for seed in range(5):
        for state in drawn_states(recording, MODELS["reordered"], seed=seed, count=40):
            assert broken_promises(state) == []


def test_a_file_that_is_moved_or_replaced_is_followed(tmp_path):
    disk = tmp_path / "disk"
    (disk / "folder").mkdir(parents=True)
    (disk / "folder" / "one").write_bytes(b"1")
    with recorded(disk) as recording:
        (disk / "folder").rename(disk / "moved")
        (disk / "two").write_bytes(b"2")
    names = {
        frozenset({*state.files, *state.folders})
        for state in crash_states(recording, MODELS["reordered"])
    }
    assert names == {
        frozenset({"folder", "folder/one", *more}) if not moved
        else frozenset({"moved", "moved/one", *more})
        for moved in (False, True)
        for more in ((), ("two",))
    }  # fmt: skip
