"""Names of classes and files of samples, where a data set has them."""

from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import ConcatDataset, Subset

from epochal.data.inspection.told import class_names, has_paths, path_of


class Folder(list):
    """As torchvision's `ImageFolder` has it."""

    def __init__(self, labels=(0, 1, 0), classes=("cat", "dog"), files=None, attribute="samples"):
        super().__init__((float(row), label) for row, label in enumerate(labels))
        self.classes = list(classes)
        self.targets = list(labels)
        files = files or [f"/data/{row}.png" for row in range(len(labels))]
        setattr(self, attribute, [*zip(files, labels, strict=True)])


def names(dataset, labels):
    return class_names(dataset, count=len(dataset), labels_N=np.array(labels, dtype=np.int64))


def test_classes_are_named_through_subsets_and_chains():
    folder = Folder()
    assert names(folder, [0, 1, 0]) == ["cat", "dog"]
    assert names(Subset(folder, [1]), [1]) == ["cat", "dog"]
    assert names(ConcatDataset([folder, Subset(folder, [1])]), [0, 1, 0, 1]) == ["cat", "dog"]
    assert names(ConcatDataset([folder, Folder(classes=("a", "b"))]), [0, 1, 0] * 2) is None


@pytest.mark.parametrize(
    ("dataset", "labels"),
    [
        (Folder(), [1, 0, 1]),  # mapped to another class
        (Folder(labels=(0, 2, 0)), [0, 2, 0]),  # more labels than names
        (Folder(classes=(1, 2)), [0, 1, 0]),
        (Folder(classes=()), [0, 1, 0]),
        (Folder(classes=["é" * 9000, "b"]), [0, 1, 0]),  # more than is remembered of a data set
        ([(0.0, 1)], [1]),
    ],
)
def test_names_of_other_labels_are_no_names(dataset, labels):
    assert names(dataset, labels) is None


@pytest.mark.parametrize("attribute", ["samples", "imgs"])
def test_files_are_told_through_subsets_and_chains(attribute):
    folder = Folder(attribute=attribute)
    assert [path_of(folder, row) for row in range(3)] == [
        "/data/0.png",
        "/data/1.png",
        "/data/2.png",
    ]
    inside = ConcatDataset([Subset(folder, [2, 1]), folder])
    assert [path_of(inside, row) for row in (0, 1, 2, 4)] == [
        "/data/2.png", "/data/1.png", "/data/0.png", "/data/2.png",
    ]  # fmt: skip
    assert has_paths(inside)
    assert path_of(Folder(files=[Path("/x/y")] * 3), 1) == "/x/y"


def test_a_set_without_files_has_none():
    other = Folder()
    other.samples = np.zeros((3, 4))
    for dataset in ([(0.0, 1)], other, Folder(files=[b"a", 1, None])):
        assert path_of(dataset, 0) is None
        assert not has_paths(dataset)
