"""What must be equal for items to be put into one batch, and where it is not."""

import numpy as np
import pytest
import torch

from epochal.data.inspection.item_form import difference, form


@pytest.mark.parametrize(
    ("first", "other"),
    [
        (1, 2.5),
        (torch.tensor(1), 1),
        (np.float32(1), True),
        (torch.zeros(2, 3), np.zeros((2, 3), dtype=np.float32)),
        ({"a": 1, "b": "x"}, {"b": "y", "a": 2}),
        ((torch.zeros(2), 1), [torch.ones(2), 2]),
    ],
)
def test_items_that_can_be_put_into_one_batch_have_one_form(first, other):
    assert form(first) == form(other)
    assert difference(form(first), form(other)) == ""


@pytest.mark.parametrize(
    ("first", "other", "words"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4), "item is (2, 3) and (2, 4)"),
        ((torch.zeros(2), 1), (torch.zeros(2), "one"), "item[1] is a number and str"),
        ({"a": (1, torch.zeros(2))}, {"a": (1, torch.zeros(3))}, "item['a'][1] is (2,) and (3,)"),
        ({"a": 1}, {"b": 1}, "item has the keys ['a'] and ['b']"),
        ((torch.zeros(2), 1), (torch.zeros(2).double(), 1), "item[0] is of float32 and float64"),
        ((1, torch.zeros(2)), (1, 2), "item[1] is of shape (2,) and a number"),
        ((1, 2), (1, 2, 3), "item has 2 and 3 parts"),
        (1, (1,), "item is a number and ['a number']"),
    ],
)
def test_a_difference_of_forms_is_told_with_its_place(first, other, words):
    assert difference(form(first), form(other)) == words
