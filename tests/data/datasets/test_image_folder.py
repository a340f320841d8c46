"""Folders of images: classes, items, masks, and a fingerprint that changes with the content."""

import os
import pickle
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.images import encoded, in_forks, picture, put_files

from epochal.data import datasets
from epochal.data.datasets import image_folder as function
from epochal.data.errors import DataError
from epochal.data.files import remembered
from epochal.data.files.images import Decoding
from epochal.data.inspection.describe import describe
from epochal.data.inspection.labels import targets_of
from epochal.data.inspection.told import class_names
from epochal.data.loading.items import seed_generators

image_folder = partial(datasets.image_folder, dtype="uint8")
"""Pixels as they are stored, to be compared to the last bit."""

NAMES = ["cat/1.png", "cat/2.jpg", "cat/deep/3.PNG", "dog/1.png", "dog/4.webp", "emu/7.png"]
KINDS = {"jpg": "JPEG", "webp": "WEBP"}
DATA = {
    name: encoded(picture(seed), KINDS.get(name.rpartition(".")[2], "PNG"))
    for seed, name in enumerate(NAMES)
}
LABELS = [0, 0, 0, 1, 1, 2]
MANY = {f"{name}/{number}.png": encoded(picture(number)) for name in "ab" for number in range(20)}


@pytest.fixture
def root(tmp_path):
    put_files(tmp_path / "data", DATA)
    return tmp_path / "data"


def wanted(name):
    decoding = Decoding()
    return decoding.tensor(decoding.image(DATA[name], name))


def test_items_are_the_same_on_every_storage(store_url):
    put_files(store_url, DATA)
    dataset = image_folder(store_url)
    assert (len(dataset), dataset.classes) == (6, ["cat", "dog", "emu"])
    assert (dataset.targets.dtype, dataset.targets.tolist()) == (np.int64, LABELS)
    for position, name in enumerate(NAMES):
        image, label = dataset[position]
        assert image.equal(wanted(name))
        assert label == LABELS[position]
        assert dataset.path_of(position) == name
    items = dataset.__getitems__([5, 0, 2, 0])
    assert [label for _, label in items] == [2, 0, 0, 0]
    assert all(
        image.equal(wanted(NAMES[at])) for (image, _), at in zip(items, [5, 0, 2, 0], strict=True)
    )


def test_the_fingerprint_is_the_same_on_every_storage(root, s3_endpoint):
    found = {image_folder(str(root)).fingerprint()}
    for other in ("memory://folder-print", "s3://epochal-tests/folder-print"):
        put_files(other, DATA)
        found.add(image_folder(other).fingerprint())
    assert len(found) == 1


def test_the_fingerprint_of_given_files_is_pinned(root):
    only = {name: bytes([number]) * 9 for number, name in enumerate(NAMES)}
    put_files(root, only)
    assert image_folder(str(root)).fingerprint() == (
        "9513ca1225091d07c91b188570ccd77760aa8eaf07e6d29d09571af852274ee4"
    )


def fingerprints(root, **more):
    dataset = image_folder(str(root), **more)
    return dataset.fingerprint(), dataset.stamp()


def test_times_are_in_the_stamp_alone(root):
    fingerprint, stamp = fingerprints(root)
    os.utime(root / "cat/1.png", (1, 1))
    assert fingerprints(root)[0] == fingerprint
    assert fingerprints(root)[1] != stamp


@pytest.mark.parametrize("change", ["same size", "added", "removed", "renamed", "other class"])
def test_every_change_is_another_fingerprint_and_stamp(root, change):
    before = fingerprints(root)
    data = bytearray(DATA["cat/1.png"])
    data[-1] ^= 1
    if change == "same size":
        (root / "cat/1.png").write_bytes(bytes(data))
    elif change == "added":
        put_files(root, {"dog/9.png": bytes(data)})
    elif change == "removed":
        (root / "cat/1.png").unlink()
    elif change == "renamed":
        (root / "cat/1.png").rename(root / "cat/11.png")
    else:
        (root / "cat/1.png").rename(root / "dog/11.png")
    after = fingerprints(root)
    assert after[0] != before[0]
    assert after[1] != before[1]


@pytest.mark.parametrize(
    "more",
    [
        {"mode": "L"},
        {"resize": [4, 4]},
        {"interpolation": "nearest"},
        {"dtype": "float32"},
        {"split": {"part": "train", "fraction": 0.4}},
    ],
    ids=str,
)
def test_what_is_made_of_the_files_is_in_the_fingerprint(root, more):
    assert fingerprints(root, **more)[0] != fingerprints(root)[0]


def test_of_many_files_some_are_hashed(tmp_path, monkeypatch):
    module = sys.modules["epochal.data.datasets.image_folder"]
    monkeypatch.setattr(module, "MAX_HASHED_FILES", 10)
    monkeypatch.setattr(module, "NUM_HASHED", 5)
    put_files(tmp_path, MANY)
    before = fingerprints(tmp_path)[0]
    changed = bytearray(MANY["b/9.png"])  # the last one by name
    changed[-1] ^= 1
    (tmp_path / "b/9.png").write_bytes(changed)
    assert fingerprints(tmp_path)[0] != before
    (tmp_path / "b/9.png").write_bytes(MANY["b/9.png"])
    assert fingerprints(tmp_path)[0] == before


@given(fraction=st.floats(0.1, 0.9), seed=st.integers(0, 99))
def test_parts_of_a_split_are_disjoint_and_together_everything(tmp_path_factory, fraction, seed):
    root = tmp_path_factory.getbasetemp() / "split"
    if not root.is_dir():
        put_files(root, MANY)
    parts = [
        image_folder(str(root), {"part": part, "fraction": fraction, "seed": seed})
        for part in ("train", "validation")
    ]
    names = [{part.path_of(at) for at in range(len(part))} for part in parts]
    assert not names[0] & names[1]
    assert names[0] | names[1] == MANY.keys()
    for part in parts:
        assert part.classes == ["a", "b"]
        assert part.targets.tolist() == [part[at][1] for at in range(len(part))]


def test_a_split_that_is_wrong_is_named(root):
    with pytest.raises(DataError, match=r"image_folder: split\.part"):
        image_folder(str(root), {"part": "test"})


def test_a_position_outside_is_an_index_error(root):
    dataset = image_folder(str(root))
    assert dataset[-1][1] == 2
    for position in (6, -7):
        with pytest.raises(IndexError):
            dataset[position]


def test_an_empty_class_is_refused_unless_it_is_allowed(root):
    (root / "ape").mkdir()
    with pytest.raises(DataError, match="'ape'.*allow_empty"):
        image_folder(str(root))
    dataset = image_folder(str(root), allow_empty=True)
    assert dataset.classes == ["ape", "cat", "dog", "emu"]
    assert dataset.targets.tolist() == [label + 1 for label in LABELS]


def test_what_is_hidden_or_no_image_or_in_no_class_is_left_out(root):
    put_files(root, {".git/1.png": b"1", "cat/.x.png": b"1", "cat/1.txt": b"1", "0.png": b"1"})
    assert len(image_folder(str(root))) == 6


def test_other_extensions_are_other_images(root):
    put_files(root, {"cat/9.dat": DATA["cat/1.png"]})
    dataset = image_folder(str(root), extensions=[".DAT"], allow_empty=True)
    assert (len(dataset), dataset.path_of(0)) == (1, "cat/9.dat")
    with pytest.raises(DataError, match="extensions"):
        image_folder(str(root), extensions="png")


def test_the_folder_above_the_parts_is_refused(tmp_path):
    put_files(
        tmp_path,
        {f"{part}/{name}": data for part in ("train", "val") for name, data in DATA.items()},
    )
    with pytest.raises(DataError, match=r"train, val.*/train"):
        image_folder(str(tmp_path))
    assert len(image_folder(f"{tmp_path}/train")) == 6


def test_a_folder_without_images_is_refused(tmp_path):
    put_files(tmp_path, {"cat/notes.txt": b"1", "1.png": b"1"})
    with pytest.raises(DataError, match="folder of images for each class"):
        image_folder(str(tmp_path))


def test_a_class_whose_name_is_no_text_is_refused(tmp_path):
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    (folder / "1.png").write_bytes(b"1")
    with pytest.raises(DataError, match="UTF-8"):
        image_folder(str(tmp_path))


@pytest.mark.parametrize("data", [b"", b"no image", DATA["cat/1.png"][:60]])
def test_a_file_that_is_no_whole_image_is_named(root, data):
    (root / "dog/1.png").write_bytes(data)
    with pytest.raises(DataError, match=r"dog/1\.png"):
        image_folder(str(root))[3]


def test_a_file_that_vanished_is_named(root):
    dataset = image_folder(str(root))
    (root / "dog/1.png").unlink()
    with pytest.raises(DataError, match=r"dog/1\.png"):
        dataset[3]


def test_a_file_of_another_size_than_was_listed_is_refused_and_listed_anew(root, monkeypatch):
    monkeypatch.setattr(remembered, "MIN_FILES", 1)
    monkeypatch.setattr(remembered, "NUM_CHECKED", 1)
    monkeypatch.setattr(remembered, "SETTLED_NS", 0)
    before = image_folder(str(root)).stamp()
    (root / "dog/1.png").write_bytes(DATA["cat/2.jpg"])
    dataset = image_folder(str(root))
    assert dataset.stamp() == before  # the folder's time is what it was
    with pytest.raises(DataError, match=r"dog/1\.png.*listed"):
        dataset[3]
    assert image_folder(str(root)).stamp() != before
    assert image_folder(str(root))[3][0].shape == (3, 12, 16)


def test_an_item_at_another_size_is_resized_to_it(root):
    image, label = image_folder(str(root)).item_at_size(3, 7, 9)
    assert (tuple(image.shape), label) == ((3, 7, 9), 1)


def drawing(image):
    return torch.rand(2) + np.random.rand() + image.width


def test_a_transform_is_given_the_image_of_pillow(root):
    dataset = image_folder(str(root), mode="L", transform=lambda image: (image.size, image.mode))
    assert dataset[1] == (((16, 12), "L"), 0)
    assert not dataset.thread_safe
    assert not callable(dataset.__getitems__)


def test_a_transform_is_in_the_fingerprint_by_what_it_makes(root):
    def of(transform):
        seed_generators(os.getpid())
        return image_folder(str(root), transform=transform).fingerprint()

    assert of(drawing) == of(drawing)
    assert of(drawing) != of(lambda image: drawing(image) + 1)


def test_a_transform_that_raises_is_named(root):
    with pytest.raises(DataError, match="transform: it raised ZeroDivisionError"):
        image_folder(str(root), transform=lambda _: 1 / 0).fingerprint()


MASKED = {f"{number}.jpg": encoded(picture(number), "JPEG") for number in range(3)}
MASKS = {
    f"{number}.png": encoded(Image.fromarray(np.full((12, 16), number, dtype=np.uint8)))
    for number in range(3)
}


@pytest.fixture
def masked(tmp_path):
    put_files(tmp_path / "images", MASKED | {"far/1.jpg": MASKED["1.jpg"]})
    put_files(tmp_path / "masks", MASKS | {"far/1.png": MASKS["2.png"], "more.png": b""})
    return str(tmp_path / "images"), str(tmp_path / "masks")


def test_masks_are_found_by_their_names(masked):
    dataset = image_folder(masked[0], masks=masked[1])
    assert len(dataset) == 4
    assert not hasattr(dataset, "targets")
    item = dataset[dataset_position(dataset, "far/1.jpg")]
    assert (item["input"].dtype, tuple(item["input"].shape)) == (torch.uint8, (3, 12, 16))
    assert item["target"].equal(torch.full((12, 16), 2))


def dataset_position(dataset, name):
    return [dataset.path_of(at) for at in range(len(dataset))].index(name)


def test_image_and_mask_get_one_size(masked):
    item = image_folder(masked[0], masks=masked[1], resize=[5, 6])[0]
    assert item["input"].shape[1:] == item["target"].shape == (5, 6)


def test_another_mask_is_another_fingerprint(masked):
    before = image_folder(masked[0], masks=masked[1]).fingerprint()
    put_files(masked[1], {"0.png": MASKS["1.png"]})
    assert image_folder(masked[0], masks=masked[1]).fingerprint() != before


def test_masks_that_do_not_fit_are_refused(masked):
    put_files(masked[1], {"1.png": encoded(picture(1, 4, 4, "L"))})
    with pytest.raises(DataError, match=r"masks/1\.png.*\[4, 4\]"):
        image_folder(masked[0], masks=masked[1])[1]
    put_files(masked[1], {"1.bmp": b""})
    with pytest.raises(DataError, match=r"1\.bmp.*1\.png"):
        image_folder(masked[0], masks=masked[1])
    put_files(masked[0], {"9.jpg": b""})
    Path(masked[1], "1.bmp").unlink()
    with pytest.raises(DataError, match=r"9\.jpg"):
        image_folder(masked[0], masks=masked[1])
    with pytest.raises(DataError, match="augment"):
        image_folder(masked[0], masks=masked[1], transform=drawing)


def test_forked_processes_and_threads_read_the_same(root, s3_endpoint):
    put_files("s3://epochal-tests/folder-forks", DATA)
    for place in (str(root), "s3://epochal-tests/folder-forks"):
        dataset = image_folder(place)
        assert dataset.thread_safe
        assert dataset.unread
        alone = b"".join(image.numpy().tobytes() for image, _ in map(dataset.__getitem__, range(6)))
        assert in_forks(lambda _, its=dataset: items_of(its), 4) == [alone] * 4
        assert items_of(pickle.loads(pickle.dumps(dataset))) == alone


def items_of(dataset):
    return b"".join(image.numpy().tobytes() for image, _ in dataset.__getitems__(range(6)))


def test_what_is_known_of_it_comes_from_its_listing(root):
    dataset = image_folder(str(root))
    known = describe(dataset, name="train_data")
    assert known.num_samples == 6
    assert targets_of(dataset, 6).tolist() == LABELS
    assert class_names(dataset, count=6, labels_N=dataset.targets) == ["cat", "dog", "emu"]


def test_the_package_gives_the_function():
    assert callable(function)
