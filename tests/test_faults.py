"""A sample of the proof: faults at I/O operations of a whole run, then the same bytes."""

import pytest
from proof import KINDS, Proof

from epochal.data.errors import StoreUnavailable
from epochal.data.store import open_store
from epochal.data.testing import FaultPlan, injected


@pytest.fixture(scope="module")
def proof(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("proof")
        patch.setenv("HOME", str(folder))
        yield Proof(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_after_a_fault_to_the_same_bytes(kind, proof):
    count = proof.sweep(kind, every=9)
    assert count.points
    assert count.mismatches == []
    if kind in {"kill", "torn"}:
        # Commits inside epochs are made beside the training: a life may have fewer operations
        # than the one that was counted, and end well before its fault comes.
        assert count.killed > count.points // 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_after_a_fault_at_any_operation(kind, proof):
    assert proof.sweep(kind).mismatches == []


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
