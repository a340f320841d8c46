"""The fault kit: what each fault does to one object, at the store's level and below it."""

import contextlib

import pytest

from epochal.data.errors import StoreUnavailable
from epochal.data.store.local import LocalBackend
from epochal.data.store.local_disk import SystemDisk, disk, use_disk
from epochal.data.store.open import open_store
from epochal.data.testing.faults import injected
from epochal.data.testing.plan import KINDS, FaultPlan


class Died(BaseException):
    pass


def die():
    raise Died


@pytest.mark.parametrize("kind", ["kill", "kill_after", "torn"])
def test_a_death_leaves_all_or_nothing(kind, tmp_path):
    url = f"file://{tmp_path}/store"
    with injected(FaultPlan(kind, at=1, die=die)), pytest.raises(Died):
        open_store(url).put_new("a/b", b"12345678")
    found = open_store(url).listing()
    assert found == ({"a/b": 8} if kind == "kill_after" else {})


@pytest.mark.parametrize("level", KINDS)
def test_a_death_after_an_operation_comes_also_where_that_fails(level, tmp_path):
    url = f"file://{tmp_path}/store"
    open_store(url).put_new("a/b", b"1")
    with injected(FaultPlan("kill_after", level=level, die=die)) as plan:
        store = open_store(url)
        with pytest.raises(FileExistsError):
            store.put_new("a/b", b"2")
        named = [at for at, one in enumerate(plan.operations, 1) if one in {"put_new", "link"}]
        assert len(named) == 1, plan.operations
    with injected(FaultPlan("kill_after", at=named[0], level=level, die=die)):
        store = open_store(url)
        with pytest.raises(Died):
            store.put_new("a/b", b"2")


def test_a_lost_answer_may_be_that_something_is_there(tmp_path):
    url = f"file://{tmp_path}/store"
    open_store(url).put_new("a/b", b"1")
    with injected(FaultPlan("lost_answer", at=1)):
        store = open_store(url)
        with pytest.raises(StoreUnavailable, match="the answer got lost"):
            store.put_new("a/b", b"2")


@pytest.mark.parametrize("kind", ["enospc", "eio", "timeout", "lost_answer"])
def test_an_error_of_the_storage_is_told_with_its_object(kind, tmp_path):
    url = f"file://{tmp_path}/store"
    with injected(FaultPlan(kind, at=1)) as plan:
        store = open_store(url)
        with pytest.raises(StoreUnavailable, match="a/b"):
            store.put_new("a/b", b"1")
        assert plan.hit
        if kind == "lost_answer":
            with pytest.raises(FileExistsError):
                store.put_new("a/b", b"1")
        else:
            store.put_new("a/b", b"1")
    assert open_store(url).read("a/b") == b"1"


def test_a_stale_listing_hides_what_came_later(tmp_path):
    with injected(FaultPlan("stale_list", at=3, count=1)):
        store = open_store(f"file://{tmp_path}/store")
        assert store.listing() == {}
        store.put_new("a", b"1")
        assert store.listing() == {}
        assert store.listing() == {"a": 1}


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_a_flipped_bit_is_in_what_is_read_and_not_in_the_object(scheme, tmp_path):
    url = f"{scheme}://{tmp_path}/store"
    open_store(url).put_new("a", b"12345678")
    with injected(FaultPlan("flip", at=2, every=3)) as plan:
        store = open_store(url)
        read = []
        for _ in range(3):
            read.append(store.read("a"))
            with store.fetch("a") as local:
                read.append(local.read_bytes())
    assert [data == b"12345678" for data in read] == [True, False, True, True, False, True]
    assert read[1] != read[4]
    assert plan.operations == ["read", "fetch"] * 3
    assert open_store(url).read("a") == b"12345678"


def test_operations_are_counted_alike_each_time(tmp_path):
    def operations(folder):
        with injected(FaultPlan()) as plan:
            store = open_store(f"file://{folder}")
            store.put_new("a", b"1")
            store.read("a", max_bytes=9)
            store.delete("a")
        return plan.operations

    assert operations(tmp_path / "one") == operations(tmp_path / "other") == [
        "put_new", "read", "delete",
    ]  # fmt: skip


PUT = ["sync", "make_folder", "sync", "write", "sync", "make_folder", "sync", "link", "sync"]
"""What a first `put_new` of `a/b` comes to: the store's name, `tmp`, the bytes, `a`, the name."""


def put(url, plan):
    with injected(plan), pytest.raises((Died, StoreUnavailable)):
        open_store(url).put_new("a/b", b"12345678")
    return open_store(url).listing()


def test_each_call_below_a_store_is_an_operation(tmp_path):
    (tmp_path / "store").mkdir()
    with injected(FaultPlan(level="disk")) as plan:
        open_store(f"file://{tmp_path}/store").put_new("a/b", b"12345678")
    assert [one for one in plan.operations if one != "unlink"] == PUT


@pytest.mark.parametrize("at", range(1, len(PUT) + 1))
@pytest.mark.parametrize("kind", ["kill", "torn", "power", "zero_length", "enospc", "eio"])
def test_whatever_call_fails_an_object_is_whole_or_not_there(kind, at, tmp_path):
    (tmp_path / "store").mkdir()
    url = f"file://{tmp_path}/store"
    if kind == "enospc" and PUT[at - 1] == "sync":
        return  # a full disk is told by writes
    found = put(url, FaultPlan(kind, at=at, level="disk", die=die))
    # Its name is there from the link on; a power cut takes it back until its folder is synced.
    linked = at == len(PUT) and kind != "power"
    assert found == ({"a/b": 8} if linked else {})
    store = open_store(url)
    if not linked:
        store.put_new("a/b", b"12345678")
    assert store.read("a/b") == b"12345678"


class Unsynced(SystemDisk):
    """A disk whose user forgets to sync files."""

    def sync(self, path):
        if path.is_dir():
            super().sync(path)


@pytest.mark.parametrize(("kind", "size"), [("power", 4), ("zero_length", 0)])
def test_a_power_cut_shows_bytes_that_were_never_synced(kind, size, tmp_path, monkeypatch):
    def hasty(self, path, source):
        with self.scratch() as folder:
            disk().write(folder / "object", source)
            self._link(folder / "object", path)

    monkeypatch.setattr(LocalBackend, "put_new", hasty)
    url = f"file://{tmp_path}/store"
    with injected(FaultPlan(kind, at=99, level="disk", die=die)) as plan:
        store = open_store(url)
        store.put_new("a/b", b"12345678")
        plan.at = len(plan.operations) + 1
        with pytest.raises(Died):
            store.put_new("a/c", b"12345678")
    assert open_store(url).listing() == {"a/b": size}


def test_a_power_cut_brings_back_what_was_taken_away_and_not_synced(tmp_path):
    url = f"file://{tmp_path}/store"
    open_store(url).put_new("a/b", b"1")
    with injected(FaultPlan("power", at=2, level="disk", die=die)), pytest.raises(Died):
        open_store(url).delete("a/b")  # unlink, then the sync that does not come
    assert open_store(url).read("a/b") == b"1"


def test_a_lying_disk_keeps_half_of_what_it_said_to_have_synced(tmp_path):
    (tmp_path / "store").mkdir()
    url = f"file://{tmp_path}/store"
    with injected(FaultPlan("lying", at=PUT.index("write") + 2, level="disk")):
        open_store(url).put_new("a/b", b"12345678")
    assert open_store(url).listing() == {"a/b": 4}


def test_a_folder_that_a_killed_process_made_is_synced_by_the_next_one(tmp_path):
    (tmp_path / "store" / "a").mkdir(parents=True)  # its name may be in memory alone
    url = f"file://{tmp_path}/store"
    synced = []

    class Noting(SystemDisk):
        def sync(self, path):
            synced.append(path)
            super().sync(path)

    before = use_disk(Noting())
    try:
        store = open_store(url)
        store.put_new("a/b", b"1")
        assert tmp_path / "store" in synced
        synced.clear()
        store.put_new("a/c", b"1")
        assert tmp_path / "store" not in synced  # once is enough
    finally:
        use_disk(before)


def test_a_fault_that_a_level_does_not_have_is_refused():
    with pytest.raises(ValueError, match="power: a store has kill, kill_after"):
        FaultPlan("power")
    assert "timeout" not in KINDS["disk"]


def test_several_plans_count_the_same_operations_each_for_itself(tmp_path):
    url = f"file://{tmp_path}/store"
    first, second = FaultPlan("eio", at=1), FaultPlan("lost_answer", at=3)
    below = FaultPlan("lying", at=1, level="disk")
    with injected(first, second, below) as given:
        store = open_store(url)
        for name in ("a", "b", "c"):
            with contextlib.suppress(StoreUnavailable):
                store.put_new(name, b"1234")
    assert given is first
    assert first.operations == second.operations == ["put_new"] * 3
    assert (first.hit, second.hit, below.hit) == (True, True, True)
    assert sorted(open_store(url).listing()) == ["b", "c"]


def test_of_two_plans_of_one_operation_the_first_has_it(tmp_path):
    url = f"file://{tmp_path}/store"
    with injected(FaultPlan("eio", at=1), FaultPlan("kill", at=1, die=die)):
        store = open_store(url)
        with pytest.raises(StoreUnavailable):
            store.put_new("a", b"1")


def test_plans_are_gone_after_the_block(tmp_path):
    before = disk()
    with injected(FaultPlan("eio", at=1), FaultPlan("eio", at=1, level="disk")):
        assert disk() is not before
    assert disk() is before
    open_store(f"file://{tmp_path}/store").put_new("a", b"1")
