"""Data files that were cut, flipped or mixed up: an error that names the file, or a right read."""

import io
import tarfile
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.stores.malformed_bytes import mangled, mutated, told
from support.stores.tar_files import write_shards, write_tar

from epochal.data import datasets
from epochal.data.errors import DataError, EpochalError
from epochal.data.indexing import build
from epochal.data.types import Target
from epochal.tasks.user_code.targets import call_target

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

FEW = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)

image_folder = partial(datasets.image_folder, dtype="uint8")
tar_shards = partial(datasets.tar_shards, dtype="uint8")
"""Pixels as they are stored, to be compared to the last bit."""
MANY = settings(FEW, max_examples=3000)
"""Longer ones are marked slow."""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EPOCHAL_CACHE", str(tmp_path / "cache"))


def image_bytes(kind, mode="RGB"):
    stream = io.BytesIO()
    values = np.random.default_rng(0).integers(0, 256, (23, 17, 3), dtype=np.uint8)
    Image.fromarray(values).convert(mode).save(stream, kind)
    return stream.getvalue()


IMAGES = {
    "png": image_bytes("PNG"),
    "palette.png": image_bytes("PNG", "P"),
    "jpg": image_bytes("JPEG"),
    "webp": image_bytes("WEBP"),
    "gif": image_bytes("GIF"),
    "bmp": image_bytes("BMP"),
    "tiff": image_bytes("TIFF"),
    "ppm": image_bytes("PPM"),
}


def check_image(kind, data, folder):
    path = folder / f"0.{kind}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    try:
        image, label = image_folder(str(folder.parent), extensions=[f".{kind}"])[0]
    except DataError as error:
        told(error, folder.parent)
        return
    assert image.dtype == torch.uint8
    assert image.ndim == 3
    assert image.shape[0] == 3
    assert label == 0


@pytest.mark.filterwarnings("ignore")  # Pillow's own, of odd tags
@pytest.mark.parametrize("kind", IMAGES)
def test_a_mangled_image_is_read_or_named(kind, tmp_path):
    @FEW
    @given(mangled(IMAGES[kind]))
    def check(data):
        check_image(kind, data, tmp_path / "images" / "class")

    check()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", IMAGES)
def test_a_mangled_image_is_read_or_named_each_time(kind, tmp_path):
    @MANY
    @given(mangled(IMAGES[kind]).flatmap(mangled_again))
    def check(data):
        check_image(kind, data, tmp_path / "images" / "class")

    check()


def mangled_again(data):
    return st.one_of(st.just(data), mangled(data)) if data else st.just(data)


def small_archive(form):
    stream = io.BytesIO()
    comments = {"comment": "x"} if form == tarfile.PAX_FORMAT else {}
    with tarfile.open(fileobj=stream, mode="w", format=form, pax_headers=comments) as archive:
        for number in range(4):
            for part, size in (("bin", 700), ("cls", 1)):
                name = ("long/" * 25 if number == 2 else "") + f"{number}.{part}"
                info = tarfile.TarInfo(name)
                info.size = size
                archive.addfile(info, io.BytesIO(str(number).encode() * size))
    content = stream.getvalue().rstrip(b"\0")
    return content + bytes(-len(content) % 512 + 1024)


ARCHIVES = {
    "gnu": small_archive(tarfile.GNU_FORMAT),
    "pax": small_archive(tarfile.PAX_FORMAT),
    "ustar": small_archive(tarfile.USTAR_FORMAT),
}


def by_tarfile(data):
    """Sample → part → bytes, as Python's own reader has them; None where it fails."""
    found = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                if member.isreg():
                    key, _, part = member.name.rpartition("/")[2].partition(".")
                    folder = member.name.rpartition("/")[0]
                    found.setdefault(f"{folder}/{key}" if folder else key, {})[part.lower()] = (
                        archive.extractfile(member).read()
                    )
    except (tarfile.TarError, ValueError, EOFError, UnicodeError):
        return None
    return found


def check_archive(data, path, number):
    path.write_bytes(data)
    opened = None
    try:
        opened = tar_shards(path, parts=["bin", "cls"], ids="key")
        items = [opened[place] for place in range(len(opened))]
    except DataError as error:
        told(error, "tar_shards")
        return
    expected = by_tarfile(data)
    if expected is None:
        return
    for key, (body, label) in zip(opened.sample_ids, items, strict=True):
        assert expected[key]["bin"] == body
        assert int(expected[key]["cls"]) == label


@pytest.mark.parametrize("form", ARCHIVES)
def test_a_mangled_archive_is_read_as_by_tarfile_or_named(form, tmp_path):
    @FEW
    @given(mangled(ARCHIVES[form]), st.integers(0, 3))
    def check(data, number):
        check_archive(data, tmp_path / "a.tar", number)

    check()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("form", ARCHIVES)
def test_a_mangled_archive_is_read_as_by_tarfile_or_named_each_time(form, tmp_path):
    @MANY
    @given(mangled(ARCHIVES[form]).flatmap(mangled_again), st.integers(0, 3))
    def check(data, number):
        check_archive(data, tmp_path / "a.tar", number)

    check()


def check_under_an_open_set(data, path, whole):
    path.write_bytes(whole)
    opened = tar_shards(path, parts=["bin", "cls"], ids="key")
    path.write_bytes(data)
    expected = by_tarfile(data)
    for place in range(len(opened)):
        try:
            body, label = opened[place]
        except DataError as error:
            told(error, path.name)
            continue
        key = opened.sample_ids[place]
        if expected is not None and key in expected:
            assert expected[key].get("bin", body) == body
            assert expected[key].get("cls", str(label).encode()) == str(label).encode()


@pytest.mark.parametrize("form", ARCHIVES)
def test_an_archive_that_is_mangled_while_it_is_open_gives_no_other_sample(form, tmp_path):
    @FEW
    @given(mangled(ARCHIVES[form]))
    def check(data):
        check_under_an_open_set(data, tmp_path / "a.tar", ARCHIVES[form])

    check()


@pytest.fixture
def indexed(tmp_path):
    folder = write_shards(tmp_path / "shards", shards=2, samples=5)
    path = folder / build.INDEX_NAME
    build.write_beside(str(folder), to=None, name="test")
    return folder, path, path.read_bytes()


def check_index(data, folder, path):
    path.write_bytes(data)
    try:
        opened = tar_shards(folder)
        items = [opened[place] for place in range(len(opened))]
    except DataError as error:
        told(error, path.name)
        return
    assert [int(image[0, 0, 0]) for image, _ in items] == list(range(10))
    assert opened.targets.tolist() == [number % 3 for number in range(10)]


def test_a_mangled_index_gives_right_samples_or_is_named(indexed):
    folder, path, whole = indexed

    @FEW
    @given(mangled(whole))
    def check(data):
        check_index(data, folder, path)

    check()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_mangled_index_gives_right_samples_or_is_named_each_time(indexed):
    folder, path, whole = indexed

    @MANY
    @given(mangled(whole).flatmap(mangled_again))
    def check(data):
        check_index(data, folder, path)

    check()


def test_mangled_arrays_and_texts_in_a_shard_are_read_or_named(tmp_path):
    array = io.BytesIO()
    np.save(array, np.arange(12, dtype=np.float32).reshape(3, 4))

    @FEW
    @given(
        st.tuples(
            mangled(array.getvalue()), mangled(b'{"a": [1, 2.5, null]}'), mangled("bär".encode())
        )
    )
    def check(parts):
        path = write_tar(
            tmp_path / "a.tar",
            [(f"1.{part}", data) for part, data in zip(("npy", "json", "txt"), parts, strict=True)],
        )
        for part in ("npy", "json", "txt"):
            try:
                tar_shards(path, parts=[part])[0]
            except DataError as error:
                told(error, "a.tar")

    check()


ARGS = {
    "tar_shards": {
        "path": "./shards",
        "image": "png",
        "label": "cls",
        "classes": ["a", "b", "c"],
        "ids": "key",
        "split": {"part": "train", "fraction": 0.2, "seed": 0},
        "mode": "RGB",
        "resize": [4, 5],
        "parts": None,
    },
    "image_folder": {
        "path": "./images",
        "split": {"part": "train", "fraction": 0.2, "seed": 0},
        "extensions": [".png"],
        "mode": "RGB",
        "resize": [4, 5],
    },
}


@pytest.mark.parametrize("name", ARGS)
def test_mutated_arguments_of_a_data_set_are_refused_by_name_or_taken(name, tmp_path):
    write_shards(tmp_path / "shards", shards=1)
    for label in "ab":
        (tmp_path / "images" / label).mkdir(parents=True)
        (tmp_path / "images" / label / "1.png").write_bytes(IMAGES["png"])

    @FEW
    @given(mutated(ARGS[name]))
    def check(args):
        try:
            target = Target.model_validate(
                {"target": f"epochal.data.datasets:{name}", "args": args}
            )
        except ValueError:  # of the config's own reading
            return
        try:
            call_target(target, field="train_data", folder=tmp_path)
        except EpochalError as error:
            assert any(one in str(error) for one in (name, "args", "path")), error  # noqa: PT017

    check()
