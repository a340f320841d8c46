"""Mixtures: shares by weight, every sample before one comes again, nothing but a function."""

import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Subset, TensorDataset

from epochal.data import datasets
from epochal.data.config.batches import BatchesConfig
from epochal.data.datasets.mixture import mixed_rows, mixture, shares
from epochal.data.datasets.table import table
from epochal.data.errors import DataError
from epochal.data.loading.batch_sampler import mixture_of, sampler_order, sampler_plan


def plain(*values):
    return TensorDataset(torch.tensor(values), torch.zeros(len(values)))


class Told:
    """Items that are read one by one, and what they tell."""

    def __init__(self, values, **known):
        self.values = values
        vars(self).update(known)

    def __len__(self):
        return len(self.values)

    def __getitem__(self, row):
        return self.values[row]

    def __getitems__(self, rows):
        return [self.values[row] for row in rows]

    def fingerprint(self):
        return str(self.values)


def rows(mixed, epoch, count=None, seed=3, keep=None, ids=None):
    return mixed.rows_of_epoch(
        seed=seed,
        epoch=epoch,
        count=len(mixed) if count is None else count,
        sample_ids_N=np.arange(len(mixed)) if ids is None else ids,
        keep_N=keep,
    )


def test_samples_are_those_of_all_sets_one_after_another():
    mixed = mixture([Told("abc"), Told("de")], [1, 1])
    assert [mixed[place] for place in (0, 2, 3, -1)] == ["a", "c", "d", "e"]
    assert mixed.__getitems__([4, 0, 3, 2]) == ["e", "a", "d", "c"]
    assert mixed.path_of(4) == "set 1 sample 1"
    assert datasets.mixture is mixture
    assert not hasattr(mixture([Told("abc"), plain(1)]), "__getitems__")
    assert not hasattr(mixture([Told("abc"), Told("de")]), "rows_of_epoch")
    with pytest.raises(IndexError):
        mixed[5]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    data=st.data(),
    seed=st.integers(0, 2**40),
    count=st.integers(1, 80),
    epoch=st.integers(0, 6),
)
def test_each_set_has_its_share_and_its_samples_come_evenly(sizes, data, seed, count, epoch):
    numbers = st.lists(st.floats(0, 9), min_size=len(sizes), max_size=len(sizes))
    weights = data.draw(numbers.filter(lambda given: sum(given) > 1e-6))
    first = np.append(0, np.cumsum(sizes))
    rows_S = [np.arange(low, high) for low, high in pairwise(first)]
    ids = np.arange(int(first[-1])) * 7 + 1
    share = shares(np.array(weights), count)
    assert share.sum() == count
    assert (np.abs(share - np.array(weights) / sum(weights) * count) < 1 + 1e-6).all()

    def of(epoch):
        return mixed_rows(
            rows_S, [(0, weights)], seed=seed, epoch=epoch, count=count, sample_ids_N=ids
        )

    drawn = [of(one) for one in range(epoch + 1)]
    assert np.array_equal(drawn[-1], of(epoch))
    number = np.searchsorted(first, drawn[-1], side="right") - 1
    assert np.bincount(number, minlength=len(sizes)).tolist() == share.tolist()
    times = np.bincount(np.concatenate(drawn), minlength=int(first[-1]))
    for own in rows_S:
        assert times[own].max() - times[own].min() <= 1


def test_weights_may_change_from_an_epoch_on():
    mixed = mixture([Told(range(10)), Told(range(10))], {0: [1, 0], "2": [1, 3]})
    own = [(rows(mixed, epoch) < 10).sum() for epoch in range(4)]
    assert own == [20, 20, 5, 5]
    later = np.concatenate([rows(mixed, epoch) for epoch in (2, 3)])
    assert sorted(np.bincount(later, minlength=20)[10:].tolist()) == [3] * 10


def test_samples_come_again_in_another_order():
    both = [(0, [1.0])]
    rows_S, ids = [np.arange(50)], np.arange(50)
    drawn = mixed_rows(rows_S, both, seed=1, epoch=0, count=150, sample_ids_N=ids)
    given = {
        tuple(mixed_rows(rows_S, both, seed=1, epoch=one, count=25, sample_ids_N=ids).tolist())
        for one in range(0, 8, 2)
    }
    assert len({frozenset(one) for one in given}) == 4
    assert np.bincount(drawn).tolist() == [3] * 50


def test_passes_that_are_sorted_one_by_one_and_together_are_the_same(monkeypatch):
    given = {"seed": 4, "epoch": 1, "count": 200, "sample_ids_N": np.arange(30) * 11}
    rows_S = [np.arange(10), np.arange(10, 30)]
    together = mixed_rows(rows_S, [(0, [3, 1])], **given)
    monkeypatch.setattr(sys.modules[mixed_rows.__module__], "FEW", 1000)
    assert np.array_equal(mixed_rows(rows_S, [(0, [3, 1])], **given), together)


def test_only_samples_that_are_kept_come_and_their_sets_keep_their_shares():
    mixed = mixture([Told(range(10)), Told(range(10))], [1, 1])
    keep = np.arange(20) % 10 == 4
    assert sorted(set(rows(mixed, 0, count=8, keep=keep).tolist())) == [4, 14]
    keep[:10] = False
    assert set(rows(mixed, 0, count=8, keep=keep).tolist()) == {14}
    with pytest.raises(DataError, match="kept"):
        rows(mixed, 0, keep=np.zeros(20, dtype=bool))


def test_of_a_subset_of_a_mixture_an_epoch_has_its_rows_in_the_mixtures_shares():
    mixed = mixture([Told(range(10)), Told(range(10))], [3, 1])
    subset = Subset(mixed, [1, 4, 5, 12, 19])
    order = mixture_of(subset)(seed=3, epoch=0, count=8, sample_ids_N=np.array([1, 4, 5, 12, 19]))
    assert np.bincount(order, minlength=5).tolist() == [2, 2, 2, 1, 1]
    assert mixture_of(Subset(plain(1, 2), [0])) is None
    assert mixture_of(mixed) is not None


def test_the_order_of_an_epoch_has_the_mixtures_rows_and_counts_repeats():
    mixed = mixture([Told(range(3)), Told(range(9))], [3, 1])
    order = sampler_order(
        BatchesConfig(), seed=1, epoch=0, sample_ids_N=np.arange(12), mixed=mixed.rows_of_epoch
    )
    assert (order < 3).sum() == 9
    plan = sampler_plan(
        BatchesConfig(), order, batch_size=4, accumulate=1, drop_last=False, seed=1, epoch=0,
        repeated=True,
    )  # fmt: skip
    assert sorted(plan.repeats_K[order < 3].tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    twice = sampler_order(
        BatchesConfig(repeats=2, truncate=True), seed=1, epoch=0, sample_ids_N=np.arange(12),
        mixed=mixed.rows_of_epoch,
    )  # fmt: skip
    short = sampler_order(
        BatchesConfig(), seed=1, epoch=1, sample_ids_N=np.arange(12), mixed=mixed.rows_of_epoch,
        epoch_samples=4,
    )  # fmt: skip
    assert ((short < 3).sum(), len(short)) == (3, 4)
    assert len(twice) == 12
    assert np.array_equal(twice[::2], twice[1::2])
    with pytest.raises(DataError, match="class_balanced"):
        sampler_order(
            BatchesConfig(class_balanced=True), seed=1, epoch=0, sample_ids_N=np.arange(12),
            labels_N=np.zeros(12, dtype=np.int64), mixed=mixed.rows_of_epoch,
        )  # fmt: skip


def test_labels_classes_and_lengths_are_passed_on_where_all_sets_have_them(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,no\n2,yes\n")
    (tmp_path / "b.csv").write_text("x,y\n3,yes\n")
    both = [table(str(tmp_path / name), "y", classes=["no", "yes"]) for name in ("a.csv", "b.csv")]
    mixed = mixture(both, [1, 1])
    assert mixed.targets.tolist() == [0, 1, 1]
    assert mixed.classes == ["no", "yes"]
    assert mixed.path_of(2) == "b.csv row 0"
    assert mixed.unread
    assert mixed.stamp() == mixture(both).stamp()
    assert not hasattr(mixed, "lengths")
    counted = mixture([Told("ab", lengths=np.array([1, 2])), Told("c", lengths=np.array([3]))])
    assert counted.lengths.tolist() == [1, 2, 3]
    assert not hasattr(counted, "stamp")
    assert not counted.unread
    with pytest.raises(DataError, match="classes"):
        mixture([both[0], table(str(tmp_path / "b.csv"), "y")])


def test_the_fingerprint_names_sets_and_weights():
    sets = [Told("abc"), plain(1, 2)]
    names = {
        mixture(sets).fingerprint(),
        mixture(sets, [1, 1]).fingerprint(),
        mixture(sets, [1, 2]).fingerprint(),
        mixture(sets, {0: [1, 1], 3: [1, 2]}).fingerprint(),
        mixture(sets[::-1], [1, 1]).fingerprint(),
        mixture([Told("abc"), plain(1, 3)], [1, 1]).fingerprint(),
    }
    assert len(names) == 6
    assert mixture([Told("abc"), plain(1, 2)], [1, 1]).fingerprint() in names


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1], "2 numbers"),
        ([1, -1], "2 numbers"),
        ([0, 0], "not all 0"),
        ([1, True], "2 numbers"),
        ({1: [1, 1]}, "expected 0 and"),
        ({}, "expected 0 and"),
        ({"a": [1, 1]}, "epochs from 0 on"),
        ({0: [1, 1], "0": [1, 2]}, "each once"),
        (3, "2 numbers"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights, message):
    with pytest.raises(DataError, match=message):
        mixture([Told("ab"), Told("c")], weights)


def test_no_sets_are_refused():
    with pytest.raises(DataError, match="list of data sets"):
        mixture([])
