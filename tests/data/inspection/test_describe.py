"""What is known of a data set before epoch 0, and every way in which one cannot be trained on."""

import datetime as dt
import os
import random
import subprocess
import sys
import time

import fsspec
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from epochal.data.errors import ConfigError, DataError
from epochal.data.inspection import item_reader
from epochal.data.inspection.describe import (
    HowToRead,
    check_batch_size,
    check_labels,
    describe,
    files_stamp,
)


class Items(Dataset):
    """A map-style data set of any items."""

    def __init__(self, items):
        self.items = list(items)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, position):
        return self.items[position]


def pairs(count=6, *, dtype=torch.float32):
    return Items((torch.full((2,), index, dtype=dtype), index % 3) for index in range(count))


def tensors(count=6):
    return TensorDataset(torch.arange(count * 2.0).reshape(count, 2), torch.arange(count) % 3)


def fingerprint(dataset):
    return describe(dataset, name="train_data").fingerprint


def error_of(dataset):
    with pytest.raises(DataError) as caught:
        describe(dataset, name="train_data")
    assert str(caught.value).startswith("train_data: ")
    return str(caught.value)


@pytest.mark.parametrize("dataset", [pairs(), tensors()], ids=["items", "tensors"])
def test_a_description_has_count_labels_and_their_range(dataset):
    found = describe(dataset, name="train_data")
    assert found.num_samples == 6
    assert found.sample_ids is None
    assert found.labels.dtype == np.int64
    assert found.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert (found.label_min, found.label_max) == (0, 2)
    assert len(found.fingerprint) == 64


def test_golden_fingerprints_are_pinned():
    assert fingerprint(tensors()) == (
        "fba72f57ddb95093535ecfe458af942c5b01d38ae1d059255b7dc46967edea8e"
    )
    assert fingerprint(pairs()) == (
        "a00494d322d6be0eca2b9f596e6f6cde59effd4ee798024539c90170ebdd7613"
    )


def test_equal_content_has_one_fingerprint_wherever_it_is_and_however_it_is_strided():
    image, label = tensors().tensors
    turned = TensorDataset(image.T.contiguous().T, label.clone())
    assert fingerprint(turned) == fingerprint(tensors())
    assert fingerprint(Subset(tensors(9), range(6))) == fingerprint(tensors())
    assert fingerprint(pairs()) == fingerprint(Items(pairs().items))


def test_any_change_of_content_changes_the_fingerprint():
    image, label = tensors().tensors
    other = image.clone()
    other[5, 1] += 1e-6 * 11
    changed = [
        tensors(),
        TensorDataset(other, label),
        TensorDataset(image.double(), label),
        TensorDataset(image.reshape(6, 1, 2), label),
        TensorDataset(image, label + 1),
        tensors(5),
        pairs(),
        pairs(dtype=torch.float64),
        pairs(5),
        Items(reversed(pairs().items)),
        Items([*pairs(5).items, (torch.full((2,), 5.0), 0)]),
        Items((list(image.numpy()), label) for image, label in pairs().items),
        Items({"image": image, "label": label} for image, label in pairs().items),
        Items({"image": image, "target": label} for image, label in pairs().items),
    ]
    assert len({fingerprint(one) for one in changed}) == len(changed)


@pytest.mark.parametrize(
    "items",
    [
        [(1, 2), (1, 3)],
        [(True, 1), (1, 1)],
        [(1.0, 1), (-0.0, 1)],
        [("a", "bc"), ("ab", "c")],
        [(b"a", 1), ("a", 1)],
        [((1, 2), 3), ((1,), (2, 3))],
        [(np.float32(1), 1), (np.float64(1), 1)],
        [(torch.zeros(2, 3), 1), (torch.zeros(3, 2), 1)],
        [(torch.zeros(2, dtype=torch.bfloat16), 1), (torch.zeros(2, dtype=torch.float16), 1)],
        [{"a": 1, "b": 2}, {"b": 2, "a": 1}],
    ],
)
def test_parts_do_not_run_into_each_other(items):
    one, other = items
    assert fingerprint(Items([one])) != fingerprint(Items([other]))


def test_augmentation_from_the_global_generators_does_not_change_the_fingerprint():
    class Augmented(Items):
        def __getitem__(self, position):
            image, label = super().__getitem__(position)
            noise = torch.rand(2) + np.random.random() + random.random()
            return image + noise, label

    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    first = fingerprint(Augmented(pairs().items))
    drawn = torch.rand(2).tolist(), np.random.random(), random.random()
    assert fingerprint(Augmented(pairs().items)) == first
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    assert (torch.rand(2).tolist(), np.random.random(), random.random()) == drawn


OWN = np.random.default_rng(0)


def of_python():
    own = random.Random(3)
    return own.random


def of_torch():
    own = torch.Generator()
    return lambda: torch.rand(1, generator=own).item()


@pytest.mark.parametrize(
    ("draw", "cause"),
    [
        (lambda: np.random.default_rng().random(), "random bytes"),
        (lambda: time.time_ns() % 997, "the clock (time.time_ns)"),
        (lambda: dt.datetime.now(dt.UTC).microsecond, "the clock (datetime.now)"),
        (of_python(), "a random.Random of its own"),
        (of_torch(), "a torch._C.Generator that it holds"),
        (lambda: OWN.integers(1 << 20), "the numpy.random._generator.Generator of its module"),
    ],
)
def test_items_that_are_other_at_each_reading_are_refused_with_the_cause(draw, cause):
    class Unsteady(Items):
        def __getitem__(self, position):
            return torch.tensor([float(draw())]), 0

    told = error_of(Unsteady(range(3)))
    assert "another at each reading" in told
    assert cause in told
    assert "train_data.version" in told
    stated = describe(Unsteady(range(3)), name="train_data", how=HowToRead(version="v1"))
    assert stated.num_samples == 3


def test_a_transform_of_albumentations_is_named_with_its_adapter():
    albumentations = pytest.importorskip("albumentations")

    class Augmented(Items):
        transform = albumentations.Compose([albumentations.GaussNoise(p=1)])

        def __getitem__(self, position):
            image = np.full((8, 8, 3), 0.5, dtype=np.float32)
            return torch.from_numpy(self.transform(image=image)["image"]), 0

    assert "epochal.data.augment:albumentations seeds it" in error_of(Augmented(range(3)))


def test_a_stated_fingerprint_leaves_it_at_a_look_at_64_items():
    class Stated(Items):
        text = "v1"
        read = 0

        def fingerprint(self):
            return self.text

        def __getitem__(self, position):
            Stated.read += 1
            return super().__getitem__(position)

    found = describe(Stated(pairs(1000).items), name="train_data")
    assert (found.num_samples, found.sample_ids, found.labels) == (1000, None, None)
    assert Stated.read <= 64 + 8 + 1
    assert found.fingerprint == fingerprint(Stated(pairs(9).items))
    other = Stated(pairs().items)
    other.text = "v2"
    assert fingerprint(other) != found.fingerprint


def test_a_stated_version_reads_one_item_and_trusts_the_labels_that_targets_tell():
    class Told(Items):
        read = 0

        def __getitem__(self, position):
            Told.read += 1
            return super().__getitem__(position)

    how = HowToRead(version="v1")
    assert describe(Told(pairs(1000).items), name="train_data", how=how).labels is None
    assert Told.read == 1
    told = Told(pairs(1000).items)
    told.targets = [index % 3 for index in range(1000)]
    found = describe(told, name="train_data", how=how)
    assert found.labels.tolist() == told.targets
    told.targets = [0] * 1000  # items are mapped to other classes than `targets` says
    assert describe(told, name="train_data", how=how).labels is None


def test_ids_that_an_attribute_tells_are_read_from_no_item():
    class Told(Items):
        sample_ids = np.array([7, 3, 9])
        reads = 0

        def __getitem__(self, position):
            Told.reads += 1
            return {
                "input": torch.zeros(2),
                "target": 1,
                "sample_id": int(self.sample_ids[position]),
            }

    how = HowToRead(version="v1")
    found = describe(Told(range(3)), name="train_data", how=how)
    assert found.sample_ids.tolist() == [7, 3, 9]
    assert Told.reads == 0
    subset = describe(Subset(Told(range(3)), [2, 0]), name="train_data", how=how)
    assert subset.sample_ids.tolist() == [9, 7]
    Told.sample_ids = ["a", "b", "a"]
    with pytest.raises(DataError, match="items 0 and 2 have the same sample_id 'a'"):
        describe(Told(range(3)), name="train_data", how=how)
    Told.sample_ids = [0.5, 1, 2]
    with pytest.raises(DataError, match="its sample_ids are list of shape"):
        describe(Told(range(3)), name="train_data", how=how)


def test_a_stated_fingerprint_does_not_hide_sample_ids():
    class Stated(Items):
        def fingerprint(self):
            return "v1"

    found = describe(Stated({"x": 1, "sample_id": 9 - index} for index in range(4)), name="d")
    assert found.sample_ids.tolist() == [9, 8, 7, 6]


@pytest.mark.parametrize("text", [None, "", 7])
def test_a_fingerprint_that_is_no_text_is_refused(text):
    class Stated(Items):
        def fingerprint(self):
            return text

    assert repr(text) in error_of(Stated(pairs().items))


def test_items_may_bring_their_own_ids():
    items = [{"x": 1.0, "label": 1, "sample_id": one} for one in (7, np.int32(3), torch.tensor(5))]
    found = describe(Items(items), name="train_data")
    assert found.sample_ids.dtype == np.int64
    assert found.sample_ids.tolist() == [7, 3, 5]
    assert found.labels.tolist() == [1, 1, 1]


def with_ids(*ids):
    return Items({"x": 1.0, "label": 1, "sample_id": one} for one in ids)


def test_text_ids_are_hashed_to_whole_numbers_that_are_the_same_in_any_order_and_set():
    found = describe(with_ids("a/1.png", "a/2.png", "ä"), name="d")
    other = describe(with_ids("ä", "a/1.png"), name="d")
    assert found.sample_ids.dtype == np.int64
    assert (found.sample_ids >= 0).all()
    assert list(found.texts) == ["a/1.png", "a/2.png", "ä"]
    assert other.sample_ids.tolist() == found.sample_ids[[2, 0]].tolist()


def test_numbers_as_ids_have_no_texts():
    assert describe(with_ids(7, 3), name="d").texts is None


@pytest.mark.parametrize(
    ("ids", "texts"),
    [
        (("a", 4, "b"), ["item 0 has the sample_id 'a', a text", "item 1 has 4, a number"]),
        ((4, 5, "b"), ["item 2 has the sample_id 'b', a text", "item 0 has 4, a number"]),
        (("a", "b", "a"), ["items 0 and 2 have the same sample_id 'a'"]),
        (("a", ""), ["item 1 has the sample_id ''", "1 to 500 bytes"]),
        (("a", "é" * 251), ["item 1", "1 to 500 bytes"]),
        (("a", "\udcff.png"), ["item 1", "UTF-8"]),
        (("a", b"b"), ["item 1 has the sample_id b'b'", "or a text"]),
        (("a", None), ["item 1", "sample_id None"]),
    ],
)
def test_text_ids_that_do_not_name_each_sample_are_refused(ids, texts):
    told = error_of(with_ids(*ids))
    for text in texts:
        assert text in told


def test_text_ids_of_one_hash_are_refused_with_both_texts(monkeypatch):
    monkeypatch.setattr(item_reader, "text_id", len)
    told = error_of(with_ids("cat", "horse", "dog"))
    assert "'cat' of item 0 and 'dog' of item 2 have the same hash, 3" in told


def test_ids_that_are_the_positions_need_not_be_remembered():
    items = [{"x": 1.0, "sample_id": index} for index in range(4)]
    assert describe(Items(items), name="train_data").sample_ids is None


@pytest.mark.parametrize(
    "targets",
    [[0.5, 1.5], [True, False], ["a", "b"], [torch.zeros(2), torch.zeros(2)], [1, 0.5], [2**80, 1]],
)
def test_targets_that_are_not_one_whole_number_are_no_labels(targets):
    found = describe(Items((1.0, target) for target in targets), name="train_data")
    assert (found.labels, found.label_min, found.label_max) == (None, None, None)


@pytest.mark.parametrize("target", [torch.rand(4), torch.zeros(4, 2, dtype=torch.int64)])
def test_tensors_of_other_targets_have_no_labels(target):
    assert describe(TensorDataset(torch.rand(4, 2), target), name="train_data").labels is None


class OnlyIterates(IterableDataset):
    def __iter__(self):
        return iter(pairs().items)


class Silent(Items):
    def __len__(self):
        raise NotImplementedError


class Corrupt(Items):
    def __getitem__(self, position):
        if position == 4:
            raise OSError("truncated image")
        return super().__getitem__(position)


@pytest.mark.parametrize(
    ("dataset", "texts"),
    [
        (OnlyIterates(), ["OnlyIterates", "map-style", "epochal data index CONFIG.yaml --field "]),
        (iter([1]), ["list_iterator", "map-style"]),
        (None, ["NoneType"]),
        ({"a": 1}, ["dict"]),
        ((torch.zeros(3), torch.zeros(3)), ["tuple", "TensorDataset(inputs, targets)"]),
        (DataLoader(tensors()), ["DataLoader", "`dataset`"]),
        (Silent([1]), ["len(data) raised NotImplementedError"]),
        (Items([]), ["no samples"]),
        (TensorDataset(torch.zeros(0, 3)), ["no samples"]),
        (Corrupt(pairs().items), ["item 4 of 6", "OSError: truncated image"]),
        (Items([(1, object())]), ["item 0", "item[1] is a builtins.object"]),
        (Items([(1, object())]), ["item[1] is a builtins.object"]),
        (Items([{"a": {1: 2}}]), ["item['a'] has the key 1"]),
        (Items([(np.array(["a"]), 1)]), ["array of <U1"]),
        (Items([(torch.zeros(2).to_sparse(), 1)]), ["sparse"]),
        (TensorDataset(torch.eye(2).to_sparse()), ["tensor 0", "sparse"]),
        (Items([{"sample_id": 3}, {"sample_id": 4}, {"sample_id": 3}]), ["items 0 and 2", "id 3"]),
        (Items([{"sample_id": -1}]), ["item 0", "-1"]),
        (Items([{"sample_id": 1.0}]), ["1.0", "whole number"]),
        (Items([{"sample_id": True}]), ["True"]),
        (Items([{"sample_id": 2**63}]), [str(2**63)]),
        (Items([{"sample_id": [1, 2]}]), ["[1, 2]"]),
        (Items([{"sample_id": 1}, {"x": 1}]), ["only 1 of 2"]),
        (Items([{"x": 1}, {"sample_id": 1}]), ["only 1 of 2"]),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, list) else value[0],
)
def test_a_data_set_that_cannot_be_trained_on_is_refused(dataset, texts):
    text = error_of(dataset)
    assert all(part in text for part in texts), text


def test_drop_last_needs_one_whole_batch():
    check_batch_size(10, 10, drop_last=True)
    check_batch_size(10, 99, drop_last=False)
    with pytest.raises(ConfigError, match=r"loader.batch_size: found 11.* 10 samples"):
        check_batch_size(10, 11, drop_last=True)


def labels_of(*labels, num_classes=3, ignore_index=None, at_hand=True):
    check_labels(
        min(labels),
        max(labels),
        labels_N=np.array(labels) if at_hand else None,
        num_classes=num_classes,
        ignore_index=ignore_index,
        name="train_data",
    )


@pytest.mark.parametrize("at_hand", [True, False])
def test_labels_within_the_classes_or_ignored_pass(at_hand):
    labels_of(0, 1, 2, at_hand=at_hand)
    labels_of(1, at_hand=at_hand)
    labels_of(0, -100, 2, ignore_index=-100, at_hand=at_hand)
    labels_of(0, 2, 255, ignore_index=255, at_hand=at_hand)
    check_labels(None, None, labels_N=None, num_classes=3, ignore_index=None, name="d")


@pytest.mark.parametrize("at_hand", [True, False])
@pytest.mark.parametrize(
    ("labels", "ignored", "found"),
    [((1, 2, 3), None, 3), ((0, -1), None, -1), ((0, -100), None, -100), ((0, 9, -1), -1, 9)],
)
def test_labels_outside_the_classes_are_named(labels, ignored, found, at_hand):
    with pytest.raises(DataError) as caught:
        labels_of(*labels, ignore_index=ignored, at_hand=at_hand)
    text = str(caught.value)
    assert f"train_data: found the label {found}" in text
    assert "from 0 to 2" in text
    assert ("1 of " in text) == at_hand


def test_labels_that_are_all_ignored_are_refused():
    with pytest.raises(DataError, match="every label is -100"):
        labels_of(-100, -100, ignore_index=-100)


def test_a_stamp_changes_with_size_and_time_and_not_with_order_or_place(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for name, text in (("a.bin", "abc"), ("b.bin", "de")):
            path = tmp_path / folder / name
            path.write_text(text)
            os.utime(path, ns=(10**18, 10**18))
    stamp = files_stamp(["./a.bin", "./b.bin"], tmp_path / "one")
    assert stamp == files_stamp(["./b.bin", "./a.bin", "./a.bin"], tmp_path / "two")
    assert stamp == [["a.bin", 3, 10**18], ["b.bin", 2, 10**18]]
    os.utime(tmp_path / "one/a.bin", ns=(10**18, 10**18 + 1))
    assert files_stamp(["./a.bin", "./b.bin"], tmp_path / "one") != stamp
    (tmp_path / "two/b.bin").write_text("def")
    os.utime(tmp_path / "two/b.bin", ns=(10**18, 10**18))
    assert files_stamp(["./a.bin", "./b.bin"], tmp_path / "two") != stamp


def test_a_folder_stands_for_all_files_below_it(tmp_path):
    (tmp_path / "data/deep").mkdir(parents=True)
    (tmp_path / "data/x").write_text("1")
    (tmp_path / "data/deep/y").write_text("22")
    assert [(one[0], one[1]) for one in files_stamp(["./data"], tmp_path)] == [
        ("data/deep/y", 2),
        ("data/x", 1),
    ]


def test_an_address_is_stamped_too():
    fsspec.filesystem("memory").pipe_file("/stamps/x", b"abc")
    [first] = files_stamp(["memory://stamps/x"], None)
    assert first[:2] == ["memory://stamps/x", 3]
    time.sleep(0.01)
    fsspec.filesystem("memory").pipe_file("/stamps/x", b"abd")
    assert files_stamp(["memory://stamps/x"], None) != [first]


@pytest.mark.parametrize("name", ["./absent", "./empty", "memory://absent/x", "nothing://x"])
def test_a_declared_file_that_is_missing_is_named(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as caught:
        files_stamp([name], tmp_path)
    assert f"files: '{name}'" in str(caught.value)


def test_collect_imports_nothing_heavy_until_data_is_read():
    code = (
        "import sys, epochal.data.inspection.describe;"
        "print([one for one in ('torch', 'pyarrow', 'sklearn', 'numpy') if one in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
