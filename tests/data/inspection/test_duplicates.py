"""Inputs that come more than once, in one data set and in two."""

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from epochal.data.inspection.describe import describe
from epochal.data.inspection.duplicates import (
    note_between,
    note_within,
    repeats_between,
    repeats_within,
)


def tensors(rows):
    """One row of three numbers for each number, with the label 0."""
    x = torch.tensor(rows, dtype=torch.float32)[:, None].repeat(1, 3)
    return TensorDataset(x, torch.zeros(len(rows), dtype=torch.long))


def items(rows, labels=None):
    labels = labels or [0] * len(rows)
    return [(torch.full((3,), float(row)), label) for row, label in zip(rows, labels, strict=True)]


def dicts(rows):
    return [
        {"image": np.full(3, row), "sample_id": 100 + place, "label": place}
        for place, row in enumerate(rows)
    ]


@pytest.mark.parametrize("made", [tensors, items, dicts])
def test_repeats_are_found_with_the_place_where_they_came_first(made):
    read = describe(made([5, 6, 5, 7, 6, 5]), name="x")
    found = repeats_within(read.inputs, None)
    assert found.positions_K.tolist() == [2, 4, 5]
    assert found.first_K.tolist() == [0, 1, 0]
    other = describe(made([9, 7, 8, 5]), name="x")
    shared = repeats_between(other.inputs, read.inputs)
    assert shared.positions_K.tolist() == [1, 3]
    assert shared.first_K.tolist() == [3, 0]


@pytest.mark.parametrize("made", [tensors, items, dicts])
def test_different_inputs_are_no_repeats(made):
    read = describe(made(list(range(300))), name="x")
    assert len(repeats_within(read.inputs, None).positions_K) == 0
    assert len(repeats_between(read.inputs, describe(made([300]), name="x").inputs).first_K) == 0


def test_repeats_with_another_label_are_counted():
    read = describe(items([1, 2, 1, 2], labels=[0, 1, 1, 1]), name="train_data")
    found = repeats_within(read.inputs, read.labels)
    assert found.other_labels == 1
    assert note_within("train_data", found) == (
        "train_data: 2 of 4 samples (50 %) have an input that an earlier sample has too (position "
        "2 that of 0); 1 of them have another label than it; each counts as a sample of its own"
    )


def test_a_shared_sample_is_told_with_its_places():
    found = repeats_between(*(describe(tensors(rows), name="x").inputs for rows in ([1, 2], [2])))
    assert note_between("validation_data", "train_data", found).startswith(
        "validation_data: 1 of 2 samples (50 %) have an input that train_data has too (position 1 "
        "that of 0 there)"
    )


@pytest.mark.parametrize(("count", "noted"), [(0, False), (1, False), (2, True), (20, True)])
def test_from_a_hundredth_of_the_samples_on_they_are_noted(count, noted):
    rows = list(range(200 - count)) + [0] * count
    assert repeats_within(describe(tensors(rows), name="x").inputs, None).is_noted == noted


def test_a_data_set_that_names_its_content_is_not_read_for_it():
    class Named(list):
        def fingerprint(self):
            return "v1"

    assert describe(Named(items([1, 1])), name="x").inputs is None
