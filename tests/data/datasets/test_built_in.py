"""Built-in data sets: fixed, stratified, disjoint splits; strict readers."""

import gzip
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from epochal.data.datasets.built_in import digits, idx_images, stratified
from epochal.data.errors import DataError
from epochal.data.inspection.describe import describe


def rows_of(dataset):
    return {image.numpy().tobytes() + bytes([int(label)]) for image, label in dataset}


def test_digits_are_images_and_labels_in_tensors():
    for split, count in (("train", 1257), ("validation", 540)):
        dataset = digits(split)
        images, labels = dataset.tensors
        assert type(dataset) is TensorDataset
        assert (images.shape, images.dtype) == ((count, 1, 8, 8), torch.float32)
        assert (labels.shape, labels.dtype) == ((count,), torch.int64)
        assert (images.min(), images.max()) == (0, 1)
        counts = torch.bincount(labels)
        assert len(counts) == 10
        assert counts.max() - counts.min() <= 8


def test_the_two_splits_are_disjoint_and_together_everything():
    train, validation = rows_of(digits("train")), rows_of(digits("validation"))
    assert not train & validation
    assert len(train | validation) == 1797


def test_a_split_is_fixed_by_its_seed():
    assert digits("train").tensors[0].equal(digits("train").tensors[0])
    assert rows_of(digits("validation", seed=1)) != rows_of(digits("validation"))
    assert len(digits("validation", validation_fraction=0.5)) == 899


def test_the_fingerprint_of_the_default_split_is_pinned():
    assert describe(digits("train"), name="train_data").fingerprint == (
        "02fd7ae734b98ad084aec29a44ff36cad19a8aa3ec309bfc9a23ce5d4b6c6850"
    )


@pytest.mark.parametrize("split", ["test", "", "Train", None])
def test_an_unknown_split_is_named_beside_the_known_ones(split):
    with pytest.raises(DataError) as caught:
        digits(split)
    assert repr(split) in str(caught.value)
    assert "train, validation" in str(caught.value)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1, 7])
def test_a_fraction_outside_is_refused(fraction):
    with pytest.raises(DataError, match="validation_fraction"):
        digits("train", validation_fraction=fraction)


@given(
    st.lists(st.integers(-5, 5), min_size=1, max_size=80), st.floats(0, 1), st.integers(0, 2**32)
)
def test_a_stratified_choice_has_its_size_and_each_class_its_share(labels, share, seed):
    labels = np.array(labels)
    count = round(share * len(labels))
    rows = stratified(labels, count=count, seed=seed)
    assert len(set(rows.tolist())) == len(rows) == count
    assert rows.tolist() == sorted(rows.tolist())
    for label in np.unique(labels):
        exact = (labels == label).sum() * count / len(labels)
        assert abs((labels[rows] == label).sum() - exact) < 1 + 1e-9


IMAGES = np.arange(20 * 5 * 4, dtype=np.uint8).reshape(20, 5, 4)
LABELS = np.arange(20, dtype=np.uint8) % 4


def idx(array, *, code=8):
    return struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def folder(tmp_path):
    """The four files; those of the training part are gzipped."""
    for prefix, part in (("train", slice(0, 12)), ("t10k", slice(12, 20))):
        for kind, array in (("images-idx3", IMAGES), ("labels-idx1", LABELS)):
            data, name = idx(array[part]), f"{prefix}-{kind}-ubyte"
            if prefix == "train":
                (tmp_path / f"{name}.gz").write_bytes(gzip.compress(data))
            else:
                (tmp_path / name).write_bytes(data)
    return tmp_path


@pytest.mark.parametrize(
    ("split", "part"),
    [("train", slice(0, 12)), ("test", slice(12, 20)), ("validation", slice(12, 20))],
)
def test_idx_files_are_read_gzipped_or_not(folder, split, part):
    images, labels = idx_images(str(folder), split).tensors
    assert images.dtype == torch.float32
    assert images.numpy().tolist() == (IMAGES[part, None] / np.float32(255)).tolist()
    assert labels.dtype == torch.int64
    assert labels.tolist() == LABELS[part].tolist()


def test_a_limit_is_stratified_and_fixed(folder):
    labels = idx_images(str(folder), "train", limit=8).tensors[1]
    assert torch.bincount(labels).tolist() == [2, 2, 2, 2]
    images = [idx_images(str(folder), "train", limit=8, seed=seed).tensors[0] for seed in (0, 0, 1)]
    assert images[0].equal(images[1])
    assert not images[0].equal(images[2])
    for limit in (0, 13):
        with pytest.raises(DataError, match="limit"):
            idx_images(str(folder), "train", limit=limit)


def test_idx_splits_and_folders_that_are_not_there_are_named(folder, tmp_path):
    with pytest.raises(DataError, match="train, test"):
        idx_images(str(folder), "t10k")
    with pytest.raises(DataError, match="neither train-images-idx3-ubyte nor"):
        idx_images(str(tmp_path / "absent"), "train")


GOOD = idx(IMAGES[12:])


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "begins with nothing"),
        (GOOD[:10], "shape"),
        (GOOD[:-1], "159 bytes"),
        (GOOD + b"\0", "more bytes"),
        (idx(IMAGES[12:], code=13), "00000d03"),
        (idx(LABELS[12:]), "00000801"),
        (struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**31, 2**31), "names the shape"),
        (struct.pack(">HBB3I", 0, 8, 3, 0, 5, 4), "names the shape"),
        (idx(IMAGES[13:]), "7 images but 8 labels"),
    ],
)
def test_an_idx_file_of_another_form_is_refused(folder, data, text):
    (folder / "t10k-images-idx3-ubyte").write_bytes(data)
    with pytest.raises(DataError) as caught:
        idx_images(str(folder), "test")
    assert text in str(caught.value)


@pytest.mark.parametrize("damage", ["cut", "flipped", "plain"])
def test_a_damaged_gzip_file_is_refused(folder, damage):
    path = folder / "train-images-idx3-ubyte.gz"
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[:-20]
    elif damage == "flipped":
        data[len(data) // 2] ^= 0xFF
    else:
        data = b"no gzip"
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz"):
        idx_images(str(folder), "train")
