"""From items to a batch: a collate of the user's, of torch's, or one that pads lengths."""

import random
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.numbers.drawing_data import Drawing, batches, few_processors, plain
from torch.utils.data import TensorDataset, default_collate

from epochal.data.errors import TargetError, TrainingFailed
from epochal.data.hashing import seed_64
from epochal.data.loading.collate import as_collate, pad
from epochal.data.loading.loader import validation_batches


class Sentences(Drawing):
    """Dicts of different lengths, with a text, and None where there is no remark."""

    def __getitem__(self, position):
        return {
            "input": torch.arange(position % 5 + 1) + position,
            "target": position % 3,
            "text": f"sentence {position}",
            "remark": None if position % 2 else "even",
        }


def draws(items):
    """Adds what all three global generators give."""
    drawn = [torch.rand(()).item(), np.random.random(), random.random()]
    data, labels = default_collate(items)
    return torch.cat([data, torch.tensor([drawn]).expand(len(items), 3)], 1), labels


def padding(**more):
    return as_collate(pad, {"keys": ["input"], **more})


LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=6)


@given(LENGTHS, st.integers(1, 5), st.sampled_from([0, -100]), st.booleans())
def test_padded_rows_are_the_items_and_then_the_value(lengths, multiple_of, value, nested):
    rest = (2,) if nested else ()
    items = [{"x": torch.randint(1, 9, (length, *rest)), "y": 1.5} for length in lengths]
    batch = pad(items, keys=["x"], value=value, multiple_of=multiple_of, lengths="n", mask="mask")
    longest = -(-max(lengths) // multiple_of) * multiple_of
    assert batch["x"].shape == (len(items), longest, *rest)
    assert list(batch) == ["x", "y", "n", "mask"]
    assert batch["y"].tolist() == [1.5] * len(items)
    assert batch["n"].tolist() == lengths == batch["mask"].sum(1).tolist()
    for row, item, length in zip(batch["x"], items, lengths, strict=True):
        assert row[:length].equal(item["x"])
        assert (row[length:] == value).all()


def test_tuples_are_padded_by_place_and_each_key_by_its_own_value():
    items = [([1, 2, 3], np.array([7]), 0), ([4], np.array([8, 9]), 1)]
    batch = pad(items, keys=[0, 1], value={"1": -100})
    assert type(batch) is tuple
    assert batch[0].tolist() == [[1, 2, 3], [4, 0, 0]]
    assert batch[1].tolist() == [[7, -100], [8, 9]]
    assert batch[2].tolist() == [0, 1]


def test_texts_and_none_reach_the_batch_as_lists():
    batch = next(batches(Sentences(), collate=padding()))
    ids = batch.sample_ids_B.tolist()
    assert batch.data["text"] == [f"sentence {one}" for one in ids]
    assert batch.data["remark"] == [None if one % 2 else "even" for one in ids]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"keys": []}, "the names of the parts"),
        ({"keys": ["x"], "multiple_of": 0}, "a number from 1"),
        ({"keys": ["z"]}, "items have no part 'z'; they have ['y', 'x']"),
        ({"keys": ["y"]}, "the part 'y' is torch.int64 of shape ()"),
        ({"keys": ["x"]}, "of shape (2, 3) and torch.int64 of shape (2, 4)"),
    ],
)
def test_what_cannot_be_padded_is_named(options, text):
    items = [{"y": 1, "x": torch.ones(2, 3 + row, dtype=torch.int64)} for row in range(2)]
    with pytest.raises(ValueError) as caught:
        pad(items, **options)
    assert text in str(caught.value)


def test_a_mask_of_tuples_is_refused():
    with pytest.raises(ValueError, match="parts of a dict"):
        pad([([1], 2)], keys=[0], mask="mask")


class Collator:
    """As those of Hugging Face: made with its settings, then called with the items."""

    def __init__(self, value=0):
        self.value = value

    def __call__(self, features):
        return pad(features, keys=["input"], value=self.value)


def factory(value=0):
    return Collator(value)


@pytest.mark.parametrize("given", [Collator, factory])
def test_a_class_and_a_factory_are_called_with_the_args_and_then_with_the_items(given):
    collate = as_collate(given, {"value": 5})
    assert collate([{"input": [1]}, {"input": [1, 2]}])["input"].tolist() == [[1, 5], [1, 2]]


def test_a_function_is_called_with_the_items_and_the_args():
    assert as_collate(default_collate, {})([1, 2]).tolist() == [1, 2]
    assert as_collate(pad, {"keys": [0]})([([1],), ([2],)])[0].tolist() == [[1], [2]]


@pytest.mark.parametrize(
    ("given", "args", "text"),
    [
        (Collator, {"wrong": 1}, "unexpected keyword argument 'wrong'"),
        (dict, {}, "returned a dict, expected a callable"),
        (pad, {"value": 1}, "its target needs keys, which args do not give"),
    ],
)
def test_what_makes_no_collate_is_refused(given, args, text):
    with pytest.raises(TargetError) as caught:
        as_collate(given, args)
    assert str(caught.value).startswith("loader.collate: ")
    assert text in str(caught.value)


@few_processors
def test_draws_of_a_collate_follow_the_micro_step_alone():
    expected = [plain(batch) for batch in batches(Drawing(), collate=draws)]
    for index, batch in enumerate(expected):
        seed = seed_64("collate", "train", 7, 0, index)
        drawn = torch.rand((), generator=torch.Generator().manual_seed(seed >> 1)).item()
        assert batch[0][0][0][-3] == pytest.approx(drawn)
    for workers in (0, 1, 3):
        found = batches(Drawing(), collate=draws, workers=workers, start=2)
        assert [plain(batch) for batch in found] == expected[2:]


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_together_have_the_batches_of_one(processes):
    found = {}
    for rank in range(processes):
        own = partial(_every_so_many, rank=rank, processes=processes)
        some = batches(Drawing(), collate=draws, own=own)
        found |= {one.index: plain(one)[0] for one in some if one.num_samples}
    assert found == {one.index: plain(one)[0] for one in batches(Drawing(), collate=draws)}


def _every_so_many(count, *, rank, processes):
    return range(count)[rank::processes]


def test_a_collate_leaves_the_generators_of_the_process_alone():
    torch.manual_seed(3)
    expected = torch.rand(())
    torch.manual_seed(3)
    next(batches(Drawing(), collate=draws))
    assert torch.rand(()).equal(expected)


def test_tensors_are_collated_too():
    dataset = TensorDataset(torch.arange(10.0), torch.arange(10))
    found = [batch.data for batch in batches(dataset, collate=lambda items: {"n": len(items)})]
    assert found == [{"n": 4}, {"n": 4}, {"n": 2}]


def test_validation_has_the_collate_too():
    options = {"batch_size": 4, "sample_ids_N": np.arange(6), "collate": padding(mask="mask")}
    shapes = [tuple(one.data["mask"].shape) for one in validation_batches(Sentences(6), **options)]
    assert shapes == [(4, 4), (2, 5)]


@few_processors
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("given", "found"),
    [
        (lambda items: None, "None"),
        (lambda items: {}, "an empty dict"),
        (lambda items: default_collate(items[1:]), "torch.float64 of shape (3, 4)"),
        (lambda items: items[0][0].sum(), "a tensor of shape ()"),
        (lambda items: [], "a list of nothing"),
    ],
)
def test_what_is_no_batch_of_the_items_is_refused(given, found, workers):
    with pytest.raises(TrainingFailed) as caught:
        list(batches(Drawing(), collate=given, workers=workers))
    text = str(caught.value)
    assert text.startswith("samples ")
    assert "could not be put into one batch by loader.collate: ValueError: " in text
    assert found.removeprefix("torch.float64 ") in text


def test_a_list_of_the_items_and_parts_of_them_are_batches():
    for kind in (list, lambda items: tuple(zip(*items, strict=True)), lambda items: {"any": 1}):
        assert len(list(batches(Drawing(), collate=kind))) == 6


def test_without_a_collate_the_error_names_it():
    with pytest.raises(TrainingFailed, match=r"epochal\.data\.loading\.collate:pad") as caught:
        next(batches(Sentences()))
    assert "loader.collate" in str(caught.value)
