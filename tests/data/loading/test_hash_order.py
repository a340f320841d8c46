"""Sorting by hashes in digits and buckets: exactly what a comparison sort gives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal.data.hashing import hash_u64
from epochal.data.loading import hash_order as module
from epochal.data.loading.order import epoch_order, hash_order

IDS = {
    "as they come": np.arange,
    "shuffled": lambda count: np.random.default_rng(1).permutation(count),
    "beyond what floats hold": lambda count: 2**53 + 3 * np.arange(count),
    "beyond what half of an int64 holds": lambda count: 2**40 + 2**33 * np.arange(count),
}


def by_comparison(ids, *stream):
    return np.lexsort((ids, hash_u64(ids, *stream)))


@pytest.mark.parametrize("count", [0, 1, 2, 1000, 60_000])
@pytest.mark.parametrize("kind", IDS)
def test_the_order_is_that_of_a_comparison_sort(kind, count):
    ids = IDS[kind](count).astype(np.int64)
    assert np.array_equal(hash_order(ids, "order", 7, 3), by_comparison(ids, "order", 7, 3))


@pytest.mark.parametrize("rows", [1, 7, 1000, 4096])
def test_buckets_change_nothing(monkeypatch, rows):
    ids = IDS["shuffled"](20_011).astype(np.int64)
    expected = hash_order(ids, "order", 7, 3)
    monkeypatch.setattr(module, "BUCKET_ROWS", rows)
    monkeypatch.setattr(module, "ONE_BUCKET_ROWS", rows)
    assert np.array_equal(hash_order(ids, "order", 7, 3), expected)


@given(st.lists(st.integers(0, 3), max_size=60), st.lists(st.integers(0, 3), max_size=60))
def test_equal_upper_halves_and_equal_hashes_are_told_apart(upper, lower):
    count = min(len(upper), len(lower))
    halves = np.array([upper[:count], lower[:count]], dtype=np.uint64)
    hashes = (halves[0] << np.uint64(32)) + halves[1]
    ids = np.random.default_rng(count).permutation(count)
    found = module._sorted_rows(hashes, ids)
    assert np.array_equal(found, np.lexsort((ids, hashes)))


@pytest.mark.parametrize("rows", [100, 1 << 21])
def test_the_order_of_an_epoch_is_of_those_that_are_kept(monkeypatch, rows):
    monkeypatch.setattr(module, "BUCKET_ROWS", rows)
    monkeypatch.setattr(module, "ONE_BUCKET_ROWS", rows)
    ids = IDS["beyond what floats hold"](5000)
    keep = np.random.default_rng(0).random(5000) < 0.4
    whole = epoch_order(seed=7, epoch=3, sample_ids_N=ids)
    kept = epoch_order(seed=7, epoch=3, sample_ids_N=ids, keep_N=keep)
    assert np.array_equal(kept, whole[keep[whole]])
