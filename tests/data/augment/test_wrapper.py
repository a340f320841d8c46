"""A data set through a transform: seeded by sample, read in batches, telling of itself."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from epochal.data.augment import transformed
from epochal.data.config.dataset import BatchNames
from epochal.data.errors import DataError
from epochal.data.inspection.describe import describe
from epochal.data.loading.loader import train_batches
from epochal.data.loading.named_items import named
from epochal.data.loading.order import epoch_order, micro_batches
from epochal.data.loading.readers import Readers

COUNT = 12


class Known(Dataset):
    """Tells all that a data set may tell of itself."""

    targets = np.arange(COUNT) % 3
    classes = ("cat", "dog", "bird")
    sample_ids = np.arange(COUNT) * 5
    lengths = np.ones(COUNT, dtype=np.int64)
    blocks = np.array([0, 6, COUNT])
    thread_safe = True
    unread = True

    def __len__(self):
        return COUNT

    def __getitem__(self, position):
        return torch.full((3, 4, 4), float(position)), position % 3

    def fingerprint(self):
        return "known"

    def path_of(self, position):
        return f"{position}.png"

    def stamp(self):
        return "now"

    def will_read(self, blocks):
        return f"reads {blocks}"


class InBatches(Known):
    """Reads a whole batch at once."""

    asked = 0

    def __getitems__(self, positions):
        self.asked += 1
        return [self[position] for position in positions]


def drawing(image):
    return image + torch.rand(()) + np.random.random() + random.random()


class OfItems:
    takes_items = True

    def __call__(self, item):
        image, label = item
        return drawing(image), label + 10


def read(dataset, *, batch_size=4, epoch=0, workers=0):
    ids = np.arange(COUNT) * 5
    plan = micro_batches(epoch_order(seed=7, epoch=epoch, sample_ids_N=ids), batch_size=batch_size)
    readers = Readers(workers)
    found = train_batches(
        dataset, plan, sample_ids_N=ids, readers=readers, seed=7, epoch=epoch
    )  # fmt: skip
    parts = [(batch.sample_ids_B, batch.data) for batch in found]
    ids = np.concatenate([ids for ids, _ in parts])
    images, labels = (torch.cat([data[place] for _, data in parts]) for place in (0, 1))
    order = np.argsort(ids)
    return images[order], labels[order]


def test_a_sample_draws_the_same_however_it_is_read():
    expected, _ = read(transformed(Known(), drawing))
    for dataset in (transformed(Known(), drawing), transformed(InBatches(), drawing)):
        for batch_size in (1, 5, 12):
            assert torch.equal(read(dataset, batch_size=batch_size)[0], expected)
        assert torch.equal(read(dataset, workers=2)[0], expected)
        assert not torch.equal(read(dataset, epoch=1)[0], expected)


def test_whole_batches_are_read_of_what_is_wrapped():
    data = InBatches()
    read(transformed(data, drawing), batch_size=4)
    assert data.asked == 3


def test_it_tells_what_the_data_set_tells_but_that_threads_may_read_it():
    data = Known()
    found = transformed(data, drawing)
    for name in ("targets", "classes", "sample_ids", "lengths", "blocks", "unread"):
        assert getattr(found, name) is getattr(data, name)
    assert (found.fingerprint(), found.path_of(3), found.stamp()) == ("known", "3.png", "now")
    assert found.will_read([1]) == "reads [1]"
    assert len(found) == COUNT
    assert not hasattr(found, "thread_safe")
    assert not hasattr(found, "__getitems__")


def test_an_adapter_gets_the_whole_item():
    _, labels = read(transformed(Known(), OfItems()))
    assert labels.tolist() == [position % 3 + 10 for position in range(COUNT)]


def test_names_of_a_batch_go_through_it():
    dataset = named(transformed(InBatches(), OfItems()), BatchNames(input=0, target=1), field="x")
    plan = micro_batches(np.arange(4), batch_size=4)
    (batch,) = train_batches(dataset, plan, sample_ids_N=np.arange(COUNT) * 5, seed=7, epoch=0)
    assert batch.data["target"].tolist() == [10, 11, 12, 10]


def test_of_a_dict_the_image_is_transformed():
    item = {"image": torch.zeros(1), "label": 3}
    found = transformed([item], lambda image: image + 1)[0]
    assert found == {"image": torch.ones(1), "label": 3}


@pytest.mark.parametrize(
    ("data", "transform", "problem"),
    [
        (Known(), {"flip": 1}, "`transform` is a dict"),
        (iter([]), drawing, "expected a map-style data set"),
    ],
)
def test_what_is_no_data_set_or_no_transform_is_refused(data, transform, problem):
    with pytest.raises(DataError, match=problem):
        transformed(data, transform)


def test_an_item_without_an_image_is_an_error():
    with pytest.raises(DataError, match="a dict of rows"):
        transformed([{"rows": 1}], drawing)[0]


class Private:
    """A transform that keeps a generator over items."""

    def __init__(self):
        self.generator = np.random.default_rng(0)

    def __call__(self, image):
        return image + self.generator.random()


def test_a_transform_that_draws_from_a_generator_of_its_own_is_found_and_named():
    with pytest.raises(DataError, match=r"another at each reading.*numpy.random\._generator"):
        describe(transformed(Known(), Private()), name="train_data")
    assert describe(transformed(Known(), drawing), name="train_data").num_samples == COUNT
