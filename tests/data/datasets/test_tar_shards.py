"""Tar shards as a data set: right samples, and what it tells of itself."""

import io
import os
import tarfile
import threading
import uuid
from functools import partial
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from support.stores.s3_server import BUCKET
from support.stores.tar_files import picture, write_shards, write_tar

from epochal.data import datasets
from epochal.data.errors import DataError
from epochal.data.indexing import build

tar_shards = partial(datasets.tar_shards, dtype="uint8")
"""Pixels as they are stored, to be compared to the last bit."""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("EPOCHAL_CACHE", str(folder))
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_shards(tmp_path / "shards")


def number_of(item):
    image, label = item
    assert image.shape == (3, 4, 5)
    assert image.dtype == torch.uint8
    assert label == int(image[0, 0, 0]) % 3
    return int(image[0, 0, 0])


def test_each_sample_is_read_at_its_place(folder):
    data = tar_shards(folder)
    assert [number_of(data[place]) for place in range(len(data))] == list(range(30))
    assert number_of(data[-1]) == 29
    assert [number_of(item) for item in data.__getitems__([7, 21, 7])] == [7, 21, 7]
    with pytest.raises(IndexError):
        data[30]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("s-001.tar", range(10, 20)),
        ("s-{001..002}.tar", range(10, 30)),
        ("s-{002,000}.tar", [*range(20, 30), *range(10)]),
        ("s-00[02].tar", [*range(10), *range(20, 30)]),
        ("*.tar", range(30)),
    ],
)
def test_a_path_may_be_one_file_or_a_pattern(folder, pattern, expected):
    data = tar_shards(f"{folder}/{pattern}")
    assert [number_of(data[place]) for place in range(len(data))] == list(expected)
    assert data.targets.tolist() == [number % 3 for number in expected]


def test_it_tells_what_is_known_without_reading_items(folder):
    data = tar_shards(folder, classes=["a", "b", "c"])
    assert data.targets.dtype == np.int64
    assert data.targets.tolist() == [number % 3 for number in range(30)]
    assert data.classes == ["a", "b", "c"]
    assert data.blocks.tolist() == [0, 10, 20, 30]
    assert data.path_of(12) == "s-001.tar 000012"
    assert data.lengths.tolist() == [len(picture(number)) for number in range(30)]
    assert not hasattr(data, "sample_ids")
    assert tar_shards(folder, ids="key").sample_ids == [f"{number:06d}" for number in range(30)]


def test_a_large_shard_has_several_blocks(tmp_path):
    members = [(f"{number}.bin", b"x" * (3 << 20)) for number in range(8)]
    write_tar(tmp_path / "a.tar", members)
    data = tar_shards(tmp_path / "a.tar", parts=["bin"])
    assert data.blocks.tolist() == [0, 3, 6, 8]


def test_an_item_may_be_of_any_parts(tmp_path):
    array = io.BytesIO()
    np.save(array, np.arange(6, dtype=np.float32).reshape(2, 3))
    parts = {
        "jpg": picture(9, kind="JPEG"),
        "seg.png": picture(2, mode="L"),
        "json": b'{"a": [1, 2]}',
        "txt": "bär".encode(),
        "npy": array.getvalue(),
        "xyz": b"\x00\x01",
    }
    write_tar(tmp_path / "a.tar", [(f"dir/k.{part}", data) for part, data in parts.items()])
    image, mask, *rest = tar_shards(tmp_path, parts=list(parts))[0]
    assert image.shape == (3, 4, 5)
    assert mask.dtype == torch.int64
    assert mask.equal(torch.full((4, 5), 2))
    assert rest[0] == {"a": [1, 2]}
    assert rest[1] == "bär"
    assert np.array_equal(rest[2], np.arange(6).reshape(2, 3))
    assert rest[3] == b"\x00\x01"
    item = tar_shards(tmp_path, parts={"input": "jpg", "target": "seg.png"})[0]
    assert list(item) == ["input", "target"]
    assert item["target"].equal(mask)


def test_a_transform_gets_the_image_or_the_whole_item(folder):
    doubled = tar_shards(folder, transform=lambda image: torch.from_numpy(np.array(image)) * 2)
    assert doubled[4][0][0, 0, 0] == 8
    assert doubled[4][1] == 1
    assert doubled.fingerprint() != tar_shards(folder).fingerprint()
    assert not doubled.thread_safe
    whole = tar_shards(folder, parts=["png", "json"], transform=lambda item: item[1]["number"])
    assert whole[17] == 17


def test_parts_of_a_split_are_disjoint_and_stratified(folder):
    parts = {
        part: tar_shards(folder, split={"part": part, "fraction": 0.3, "seed": 5})
        for part in ("train", "validation")
    }
    numbers = {part: [number_of(item) for item in data] for part, data in parts.items()}
    assert sorted(numbers["train"] + numbers["validation"]) == list(range(30))
    for part, data in parts.items():
        assert data.targets.tolist() == [number % 3 for number in numbers[part]]
        assert [int(one) for one in data.blocks] == sorted({int(one) for one in data.blocks})
        assert (data.blocks[0], data.blocks[-1]) == (0, len(data))
        assert data.path_of(1).endswith(f"{numbers[part][1]:06d}")
    assert np.bincount(parts["validation"].targets).tolist() == [3, 3, 3]


def test_the_fingerprint_is_of_the_content_and_of_what_items_are_made_of(folder, tmp_path):
    one = tar_shards(folder).fingerprint()
    elsewhere = tmp_path / "elsewhere"
    folder.rename(elsewhere)
    for path in elsewhere.iterdir():
        os.utime(path, (1, 1))
    assert tar_shards(elsewhere).fingerprint() == one
    others = [
        tar_shards(elsewhere, **options).fingerprint()
        for options in (
            {"parts": ["png", "json"]},
            {"label": "json"},
            {"label": None},
            {"split": {"part": "train"}},
            {"split": {"part": "train", "seed": 1}},
            {"ids": "key"},
        )
    ]
    others.append(tar_shards(f"{elsewhere}/s-00[01].tar").fingerprint())
    write_shards(elsewhere, classes=2)
    others.append(tar_shards(elsewhere).fingerprint())
    assert len({one, *others}) == len(others) + 1


@pytest.mark.parametrize("whole_below", [1 << 30, 0])
def test_another_content_of_the_same_sizes_has_another_fingerprint(
    tmp_path, monkeypatch, whole_below
):
    monkeypatch.setattr("epochal.data.indexing.shard_files.MAX_HASHED_BYTES", whole_below)
    found = []
    for value in (b"x", b"y"):
        write_tar(tmp_path / "a.tar", [(f"{row}.bin", value * 9000) for row in range(30)])
        found.append(tar_shards(tmp_path, parts=["bin"]).fingerprint())
    assert found[0] != found[1]


def test_the_stamp_changes_when_a_shard_is_written_or_added(folder):
    data = tar_shards(folder)
    before = data.stamp()
    assert tar_shards(folder).stamp() == before
    os.utime(folder / "s-001.tar", (1, 1))
    touched = data.stamp()
    write_tar(folder / "s-003.tar", [("30.png", picture(30)), ("30.cls", b"0")])
    assert len({before, touched, data.stamp()}) == 3


def test_a_second_opening_reads_no_header_and_one_more_shard_only_its_own(folder, monkeypatch):
    read = []
    real = build.read_shard

    def counted(files, number, *, name):
        read.append(files.shards[number].name)
        return real(files, number, name=name)

    monkeypatch.setattr(build, "read_shard", counted)
    first = tar_shards(folder)
    assert sorted(read) == ["s-000.tar", "s-001.tar", "s-002.tar"]
    assert tar_shards(folder).fingerprint() == first.fingerprint()
    assert len(read) == 3
    write_tar(
        folder / "s-003.tar",
        [("30.png", picture(30)), ("30.cls", b"0"), ("30.json", b"{}")],
    )
    more = tar_shards(folder)
    assert read[3:] == ["s-003.tar"]
    assert [number_of(item) for item in more] == list(range(31))
    assert more.targets.tolist() == [number % 3 for number in range(31)]


def test_a_shard_that_was_written_anew_under_an_open_data_set_is_refused(folder):
    data = tar_shards(folder)
    path = folder / "s-000.tar"
    size = path.stat().st_size
    members = [(f"{number:06d}x.png", picture(99 - number)) for number in range(10)]
    write_tar(path, members)
    with path.open("ab") as stream:
        stream.truncate(size)
    with pytest.raises(DataError, match=r"s-000\.tar has changed since its index was made"):
        data[3]


def test_threads_and_forked_processes_read_one_object(folder):
    data = tar_shards(folder)
    number_of(data[0])
    wrong = []

    def read():
        for _ in range(5):
            wrong.extend(place for place in range(30) if number_of(data[place]) != place)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for one in threads:
        one.start()
    children = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            read()
            os._exit(len(wrong))
        children.append(pid)
    for one in threads:
        one.join()
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
    assert wrong == []


def open_files():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_more_shards_than_files_may_be_open(tmp_path, monkeypatch):
    monkeypatch.setattr("epochal.data.indexing.shard_files.MAX_OPEN", 2)
    data = tar_shards(write_shards(tmp_path / "many", shards=6, samples=3))
    before = open_files()
    for place in (0, 17, 3, 9, 12, 5, 0):
        assert number_of(data[place]) == place
    assert open_files() <= before + 2


def test_told_blocks_of_a_storage_are_fetched_whole_and_once(folder, monkeypatch):
    url = f"memory://{uuid.uuid4().hex}"
    files, place = fsspec.core.url_to_fs(url)
    for path in sorted(folder.iterdir()):
        files.pipe_file(f"{place}/{path.name}", path.read_bytes())
    data = tar_shards(url)
    read = []
    real = type(files).cat_file

    def counted(self, path, start=None, end=None, **options):
        read.append((path.rpartition("/")[2], end - start))
        return real(self, path, start=start, end=end, **options)

    monkeypatch.setattr(type(files), "cat_file", counted)
    assert number_of(data[25]) == 25
    assert len(read) == 1
    assert read[0][1] < 2048
    data.will_read([2, 0])
    for number in (21, 4, 29, 0, 20):
        assert number_of(data[number]) == number
    assert sorted(name for name, _ in read[1:]) == ["s-000.tar", "s-002.tar"]


@pytest.mark.parametrize("scheme", ["memory", "s3"])
def test_shards_are_read_from_any_storage(folder, scheme, request):
    if scheme == "s3":
        request.getfixturevalue("s3_endpoint")
    url = f"{scheme}://{BUCKET}/{uuid.uuid4().hex}"
    files, place = fsspec.core.url_to_fs(url)
    for path in sorted(folder.iterdir()):
        files.pipe_file(f"{place}/{path.name}", path.read_bytes())
    for path in (url, f"{url}/s-{{000..002}}.tar", f"{url}/s-*.tar"):
        data = tar_shards(path)
        assert [number_of(data[place]) for place in (29, 0, 13)] == [29, 0, 13]
        assert data.fingerprint() == tar_shards(folder).fingerprint()
    before = data.stamp()
    files.pipe_file(f"{place}/s-000.tar", (folder / "s-001.tar").read_bytes())
    assert data.stamp() != before


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        ({"label": "jpg"}, ["no sample has a part 'jpg'", "cls, json, png"]),
        ({"image": "tif"}, ["no sample has a part 'tif'"]),
        ({"parts": "png"}, ["parts", "'png'", "[jpg, seg.png]"]),
        ({"parts": []}, ["parts"]),
        ({"parts": ["png"], "image": "png"}, ["`image` and `parts`"]),
        ({"ids": "name"}, ["ids", "position or key"]),
        ({"classes": "abc"}, ["classes"]),
        ({"split": {"part": "test"}}, ["split"]),
    ],
)
def test_a_wrong_argument_is_named(folder, options, texts):
    with pytest.raises(DataError) as caught:
        tar_shards(folder, **options)
    assert all(text in str(caught.value) for text in ["tar_shards", *texts])


def test_a_part_that_some_samples_lack_is_told_with_the_first_of_them(tmp_path):
    write_tar(tmp_path / "a.tar", [("1.png", picture(1)), ("1.cls", b"0"), ("2.png", picture(2))])
    write_tar(tmp_path / "b.tar", [("3.png", picture(1)), ("4.png", picture(1))])
    with pytest.raises(DataError, match=r"3 samples have no part 'cls', the first is '2' of a.tar"):
        tar_shards(tmp_path)
    assert len(tar_shards(tmp_path, label=None)) == 4
    with pytest.raises(DataError, match=r"first is '3' of b.tar"):
        tar_shards(f"{tmp_path}/{{b,a}}.tar")


def test_a_key_that_two_shards_have_is_no_id(tmp_path):
    for name in "ab":
        write_tar(tmp_path / f"{name}.tar", [("1.png", picture(1)), ("1.cls", b"0")])
    assert len(tar_shards(tmp_path)) == 2
    with pytest.raises(DataError, match="'1' names more than one sample"):
        tar_shards(tmp_path, ids="key")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("nowhere", "nowhere"),
        ("empty", "no file NAME.tar"),
        ("s-{000..003}.tar", "s-003.tar"),
        ("t-*.tar", "nothing there"),
        ("s-{000,000}.tar", "twice"),
        ("s-{0..99999999}.tar", "more than"),
    ],
)
def test_a_path_without_shards_is_named(folder, path, text):
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match=text):
        tar_shards(f"{folder}/{path}")


def test_a_part_that_cannot_be_decoded_is_named_with_its_shard(tmp_path):
    png = picture(3)
    write_tar(tmp_path / "a.tar", [("1.png", png[:40]), ("1.cls", b"0")])
    write_tar(tmp_path / "b.tar", [("2.png", png), ("2.cls", b"zero")])
    data = tar_shards(tmp_path)
    assert not hasattr(data, "targets")
    for place, texts in ((0, ["a.tar: 1.png"]), (1, ["b.tar: 2.cls"])):
        with pytest.raises(DataError) as caught:
            data[place]
        assert all(text in str(caught.value) for text in texts)


@pytest.mark.parametrize("cut", [0, 300, 0.5, -20])
def test_a_damaged_index_beside_shards_is_refused_and_one_in_the_cache_is_made_again(
    folder, cache, cut, caplog
):
    tar_shards(folder)
    (kept,) = (cache / "shards").iterdir()
    whole = kept.read_bytes()
    damaged = whole[: int(cut * len(whole)) if 0 < cut < 1 else cut]
    kept.write_bytes(damaged)
    assert number_of(tar_shards(folder)[12]) == 12
    assert "is damaged" in caplog.text
    assert kept.read_bytes() == whole
    (folder / build.INDEX_NAME).write_bytes(damaged)
    with pytest.raises(DataError, match=r"index\.epochal\.arrow is damaged"):
        tar_shards(folder)


def test_only_regular_files_are_samples(tmp_path):
    folder = tarfile.TarInfo("images")
    folder.type = tarfile.DIRTYPE
    write_tar(
        tmp_path / "a.tar",
        [folder, ("README", b"?"), ("._1.png", b"?"), ("images/1.png", picture(1)),
         ("images/1.cls", b"1")],
    )  # fmt: skip
    data = tar_shards(tmp_path)
    assert [number_of(item) for item in data] == [1]
