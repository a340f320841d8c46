"""What a data set tells of blocks and lengths: taken as it is, or refused by name."""

import numpy as np
import pytest
import torch
from torch.utils.data import Subset

from epochal.data.errors import DataError
from epochal.data.inspection.layout import blocks_of_rows, layout_digest, lengths_of_items


class Told:
    def __init__(self, count=10, **told):
        self.count = count
        vars(self).update(told)

    def __len__(self):
        return self.count

    def __getitem__(self, position):
        return position


def blocks(dataset):
    found = blocks_of_rows(dataset, count=len(dataset), name="train_data")
    return None if found is None else found.tolist()


def lengths(dataset):
    found = lengths_of_items(dataset, count=len(dataset), name="train_data")
    return None if found is None else found.tolist()


@pytest.mark.parametrize(
    "given", [[0, 4, 4, 10], np.array([0, 4, 4, 10], dtype=np.uint8), torch.tensor([0, 4, 4, 10])]
)
def test_blocks_are_whole_numbers_that_rise_to_the_number_of_samples(given):
    assert blocks(Told(blocks=given)) == [0, 4, 4, 10]
    assert blocks_of_rows(Told(blocks=given), count=10, name="x").dtype == np.int64


@pytest.mark.parametrize("given", [[0, 4, 9], [1, 10], [0, 7, 4, 10], [0], []])
def test_blocks_that_do_not_rise_so_are_refused(given):
    with pytest.raises(DataError, match=r"train_data: its attribute `blocks` .* 0 to 10"):
        blocks(Told(blocks=np.array(given, dtype=np.int64)))


@pytest.mark.parametrize(
    "given", [None, len, {"a": 1}, [[0, 10]], [0.0, 10.0], torch.nn.ModuleList()]
)
def test_a_word_of_the_data_sets_own_is_no_layout(given):
    assert blocks(Told(blocks=given)) is None
    assert lengths(Told(lengths=given)) is None


@pytest.mark.parametrize("given", [[1] * 9, [-1] * 10])
def test_lengths_are_one_for_each_item_from_0_on(given):
    assert lengths(Told(lengths=list(range(10)))) == list(range(10))
    with pytest.raises(DataError, match=r"train_data: its attribute `lengths` .* 10 whole numbers"):
        lengths(Told(lengths=given))


def test_a_property_that_raises_is_named():
    class Broken(Told):
        @property
        def blocks(self):
            raise OSError("the footer is gone")

    with pytest.raises(DataError, match="train_data: its `blocks` raised OSError: the footer"):
        blocks(Broken())


def test_a_subset_in_the_storages_order_has_the_blocks_of_its_rows():
    told = Told(blocks=[0, 4, 7, 10], lengths=list(range(10)))
    assert blocks(Subset(told, [1, 3, 7, 8])) == [0, 2, 2, 4]
    assert lengths(Subset(told, [8, 1])) == [8, 1]
    assert blocks(Subset(told, [3, 1])) is None
    assert blocks(Subset(Subset(told, range(1, 10)), [0, 8])) == [0, 1, 1, 2]


def test_golden_digests_are_pinned():
    values = np.array([0, 4, 10])
    assert layout_digest("blocks", values) != layout_digest("lengths", values)
    assert layout_digest("blocks", values) == (
        "bdf97d0e8f96fcaac5da532ed18e8cdace7b3b19b48084107bb169593e48aeb8"
    )
