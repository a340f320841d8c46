"""The classes that batches are balanced by: the labels of the items, wherever they are told."""

import numpy as np
import pytest
from torch.utils.data import ConcatDataset, Dataset, Subset

from epochal.data.config.batches import BatchesConfig
from epochal.data.errors import DataError
from epochal.data.inspection.labels import class_labels
from epochal.data.loading.batch_sampler import sampler_order


class Items(Dataset):
    """Items with `targets` beside them, as torchvision has it. read: positions that were read."""

    def __init__(self, targets, transform=lambda target: target):
        self.targets = targets
        self.target_transform = transform
        self.read = []

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, row):
        self.read.append(row)
        return row, self.target_transform(self.targets[row])


class Wrapped(Dataset):
    """Another data set with its labels turned, that passes its attributes on."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, row):
        value, target = self.inner[row]
        return value, 1 - target


def labels(dataset, read=None):
    return class_labels(dataset, count=len(dataset), read_N=read, name="train_data").tolist()


MANY = [0, 1, 2] * 100


def test_targets_that_the_items_have_too_are_taken_without_reading_all():
    items = Items(MANY)
    assert labels(items) == MANY
    assert len(items.read) < 70


def test_a_target_transform_maps_the_classes_that_are_balanced():
    items = Items(MANY, transform=lambda target: min(target, 1))
    found = labels(items)
    assert found == [min(target, 1) for target in MANY]
    drawn = sampler_order(
        BatchesConfig(class_balanced=True), seed=1, epoch=0, sample_ids_N=np.arange(len(found)),
        labels_N=np.array(found),
    )  # fmt: skip
    assert np.bincount(np.array(found)[drawn]).tolist() == [150, 150]
    assert labels(Items(np.array(MANY), transform=int)) == MANY


def test_labels_that_were_read_of_the_items_go_before_what_an_attribute_says():
    items = Items([1, 0, 1])
    assert labels(items, np.array([3, 3, 4])) == [3, 3, 4]
    assert items.read == []


@pytest.mark.parametrize("only", [0, 1, 2, 40])
def test_a_mapping_of_a_single_rare_class_is_noticed(only):
    targets = [*range(41), *[3] * 5000]
    mapped = Items(targets, transform=lambda target: 99 if target == only else target)
    assert labels(mapped) == [99 if target == only else target for target in targets]


def test_subsets_chains_and_wrappers_have_the_labels_of_their_items():
    inner = Items([0, 1, 2, 1])
    twos = Items([0, 1], transform=lambda target: target + 5)
    assert labels(Subset(inner, [3, 0])) == [1, 0]
    assert labels(ConcatDataset([inner, Subset(inner, [2])])) == [0, 1, 2, 1, 2]
    assert labels(ConcatDataset([inner, twos])) == [0, 1, 2, 1, 5, 6]
    assert labels(Wrapped(Items([0, 1, 1]))) == [1, 0, 0]
    assert labels(Subset(Wrapped(Items([0, 1, 1])), [0, 1])) == [1, 0]


def test_without_usable_targets_the_items_are_read():
    for targets in (None, "abc", [[1], [2, 3], []], [0.5, 1.0, 2.0], [1, 2]):
        dataset = [(0, 4), (1, 2), (2, 0)]
        items = type("Plain", (list,), {"targets": targets})(dataset)
        assert labels(items) == [4, 2, 0]


def test_labels_below_zero_are_no_class_and_a_single_class_is_one():
    assert labels(Items([-1, 0, -100])) == [-1, 0, -100]
    assert labels(Items([7, 7])) == [7, 7]
    with pytest.raises(DataError, match="no item has a class"):
        labels(Items([-1, -1]))
    with pytest.raises(DataError, match="not every item has a whole number in train_data"):
        labels([(0, 1), (1, 1.5)])
