"""Items under the names of the default step; all else of the data set stays as it was."""

import pickle

import pytest
import torch
from torch.utils.data import TensorDataset, default_collate

from epochal.data.config.dataset import BatchNames
from epochal.data.errors import DataError
from epochal.data.inspection.describe import describe
from epochal.data.loading.named_items import named


class Dicts:
    targets = (0, 1, 2, 0)

    def __len__(self):
        return 4

    def __getitem__(self, position):
        return {"samples": position / 2, "targets": position % 3, "sample_id": 10 + position}


class Whole(Dicts):
    """Reads whole batches, and at sizes."""

    def __getitems__(self, positions):
        return [self[position] for position in positions]

    def item_at_size(self, position, *, height, width):
        return {**self[position], "samples": (height, width)}

    def fingerprint(self):
        return "v1"


KEYS = BatchNames(input="samples", target="targets")


def test_keys_are_mapped_and_the_rest_of_an_item_stays():
    item = named(Dicts(), KEYS, field="train_data")[3]
    assert item == {"sample_id": 13, "input": 1.5, "target": 0}
    assert default_collate([item, item])["target"].tolist() == [0, 0]


def test_places_in_a_tuple_are_mapped():
    data = named([("a.png", 1.0, {"x": 1}, 7)], BatchNames(input=1, target=3), field="train_data")
    assert data[0] == {"input": 1.0, "target": 7}


def test_tensors_stay_tensors():
    tensors = torch.randn(5, 2), torch.arange(5), torch.ones(5)
    data = named(TensorDataset(*tensors), BatchNames(input=0, target=2), field="train_data")
    assert type(data) is TensorDataset
    assert torch.equal(data.tensors[1], tensors[2])


def test_what_else_a_data_set_has_is_passed_on():
    plain, whole = (named(kind(), KEYS, field="train_data") for kind in (Dicts, Whole))
    assert len(plain) == 4
    assert plain.targets == (0, 1, 2, 0)
    assert not hasattr(plain, "__getitems__")
    assert not hasattr(plain, "item_at_size")
    assert not hasattr(plain, "fingerprint")
    assert whole.__getitems__([0, 3]) == [plain[0], plain[3]]
    assert whole.item_at_size(1, height=2, width=3)["input"] == (2, 3)


def test_a_worker_can_be_sent_it():
    assert pickle.loads(pickle.dumps(named(Whole(), KEYS, field="train_data")))[3]["input"] == 1.5


def test_labels_are_found_under_the_name_and_other_names_make_another_fingerprint():
    other = BatchNames(input="targets", target="samples")
    for kind in (Dicts, Whole):
        one, two = (describe(named(kind(), names, field="x"), name="x") for names in (KEYS, other))
        assert one.fingerprint != two.fingerprint
    assert one.labels.tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize(
    ("items", "names", "words"),
    [
        ([{"a": 1}], KEYS, "batch: items of train_data have no 'samples'; they have a"),
        ([(1, 2)], BatchNames(input=0, target=2), "found 2, but items of train_data are tuples"),
        ([(1, 2)], KEYS, "expected places from 0 to 1"),
        ([3], KEYS, "batch: items of train_data are of type int"),
    ],
)
def test_a_name_that_items_lack_is_told_with_what_they_have(items, names, words):
    with pytest.raises(DataError) as caught:
        named(items, names, field="train_data")[0]
    assert words in str(caught.value)
