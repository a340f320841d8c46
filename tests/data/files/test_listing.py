"""Listings: the same names and sizes wherever the files lie, in torchvision's order."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.images import put_files

from epochal.data.errors import DataError
from epochal.data.files import listing as module
from epochal.data.files.listing import Names, Part, list_files, order_of
from epochal.data.hashing import ContentDigest

FILES = {
    "cat/7.png": b"1234567",
    "cat/b/1.PNG": b"1",
    "cat-big/2.png": b"22",
    "dog/x/y/3.jpg": b"333",
    "dog/notes.txt": b"no image",
    "dog/.hidden.png": b"hidden",
    ".git/4.png": b"hidden too",
    "5.png": b"55555",
}
EXTENSIONS = [".png", ".jpg"]


def names_of(listing):
    return [listing.text(position) for position in range(len(listing))]


def digest_of(listing):
    content = ContentDigest("test")
    listing.add_to(content)
    return content.hexdigest()


def test_names_and_sizes_are_the_same_on_every_storage(store_url):
    put_files(store_url, FILES)
    listing = list_files(store_url, extensions=EXTENSIONS)
    assert names_of(listing) == [
        "5.png",
        "cat/7.png",
        "cat/b/1.PNG",
        "cat-big/2.png",
        "dog/x/y/3.jpg",
    ]
    assert listing.sizes_N.tolist() == [5, 7, 1, 2, 3]
    assert len(set(listing.stamps_N.tolist())) > 1 or store_url.startswith("file")
    assert names_of(list_files(store_url, extensions=EXTENSIONS, in_root=False))[0] == "cat/7.png"


def test_what_is_listed_has_one_digest_on_every_storage(tmp_path, s3_endpoint):
    flat = {name: data for name, data in FILES.items() if name.startswith("cat")}
    digests = set()
    for root in (tmp_path, "memory://listing-digest", "s3://epochal-tests/listing-digest"):
        put_files(root, flat)
        digests.add(digest_of(list_files(str(root), extensions=EXTENSIONS)))
    assert len(digests) == 1


def test_another_size_is_another_digest(tmp_path):
    put_files(tmp_path, FILES)
    before = digest_of(list_files(str(tmp_path), extensions=EXTENSIONS))
    os.utime(tmp_path / "cat/7.png", (1, 1))
    assert digest_of(list_files(str(tmp_path), extensions=EXTENSIONS)) == before
    (tmp_path / "cat/7.png").write_bytes(b"12345678")
    assert digest_of(list_files(str(tmp_path), extensions=EXTENSIONS)) != before


def as_torchvision(root):
    """The order of torchvision.datasets.folder.make_dataset, retold."""
    found = []
    for name in sorted(entry.name for entry in os.scandir(root) if entry.is_dir()):
        for folder, _, files in sorted(os.walk(Path(root) / name, followlinks=True)):
            found += [str(Path(folder, file).relative_to(root)) for file in sorted(files)]
    return found


SEGMENT = st.text("ab-_.A", min_size=1, max_size=3).filter(lambda name: name[0] != ".")


@given(st.sets(st.lists(SEGMENT, min_size=2, max_size=4).map(tuple), min_size=1, max_size=12))
def test_the_order_is_torchvisions(tmp_path_factory, paths):
    root = tmp_path_factory.mktemp("order")
    for path in paths:
        place = root.joinpath(*path[:-1])
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{path[-1]}.png").write_bytes(b"")
    listing = list_files(str(root), extensions=[".png"], in_root=False)
    assert names_of(listing) == as_torchvision(root)


@given(
    st.dictionaries(st.binary(max_size=3), st.lists(st.binary(min_size=1, max_size=4), max_size=5))
)
def test_packed_names_are_given_back(folders):
    ordered = sorted(folders, key=order_of)
    names = Names.of(Part.of(folder, folders[folder]) for folder in ordered)
    wanted = [
        folder + b"/" + name if folder else name for folder in ordered for name in folders[folder]
    ]
    assert [names[position] for position in range(len(names))] == wanted
    assert [names.in_folder(number) for number in range(len(ordered))] == [
        folders[folder] for folder in ordered
    ]


def test_processes_tell_the_same_sizes_and_times(tmp_path, monkeypatch):
    put_files(tmp_path, FILES | {f"many/{number}.png": b"x" * number for number in range(50)})
    alone = list_files(str(tmp_path), extensions=EXTENSIONS)
    sizes, stamps = alone.sizes_N, alone.stamps_N
    monkeypatch.setattr(module, "MANY_FILES", 0)
    listing = list_files(str(tmp_path), extensions=EXTENSIONS)
    assert np.array_equal(listing.sizes_N, sizes)
    assert np.array_equal(listing.stamps_N, stamps)


@pytest.mark.parametrize("many", [0, 1000])
def test_a_file_that_vanished_is_named(tmp_path, monkeypatch, many):
    put_files(tmp_path, FILES)
    monkeypatch.setattr(module, "MANY_FILES", many)
    listing = list_files(str(tmp_path), extensions=EXTENSIONS)
    (tmp_path / "cat-big/2.png").unlink()
    with pytest.raises(DataError, match=r"cat-big/2\.png"):
        _ = listing.sizes_N


def test_links_are_followed(tmp_path):
    put_files(tmp_path / "far", {"x/1.png": b"1"})
    (tmp_path / "near").mkdir()
    (tmp_path / "near/class").symlink_to(tmp_path / "far/x")
    assert names_of(list_files(f"{tmp_path}/near", extensions=EXTENSIONS)) == ["class/1.png"]


def test_a_link_that_leads_back_is_refused(tmp_path):
    put_files(tmp_path, {"cat/1.png": b"1"})
    (tmp_path / "cat/again").symlink_to(tmp_path)
    with pytest.raises(DataError, match="'cat/again' is a link to a folder that it lies in"):
        list_files(str(tmp_path), extensions=EXTENSIONS)


def test_a_pipe_or_a_dead_link_of_an_images_name_is_no_file(tmp_path):
    put_files(tmp_path, {"cat/1.png": b"1"})
    os.mkfifo(tmp_path / "cat/2.png")
    (tmp_path / "cat/3.png").symlink_to("nowhere")
    assert names_of(list_files(str(tmp_path), extensions=EXTENSIONS)) == ["cat/1.png"]


@pytest.mark.skipif(sys.platform == "darwin", reason="names are UTF-8 there")
def test_a_name_of_any_bytes_is_listed(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / os.fsdecode(b"cat/\xff\n.png")).write_bytes(b"123")
    listing = list_files(str(tmp_path), extensions=EXTENSIONS)
    assert listing.names[0] == b"cat/\xff\n.png"
    assert listing.sizes_N.tolist() == [3]


@pytest.mark.parametrize("root", ["", "nothing", "memory://nothing-there"])
def test_a_root_that_is_missing_is_named(tmp_path, root):
    root = root if "://" in root else str(tmp_path / "no" / root)
    with pytest.raises(DataError) as caught:
        list_files(root, extensions=EXTENSIONS)
    assert root in str(caught.value)


def test_a_file_is_no_root(tmp_path):
    put_files(tmp_path, {"1.png": b"1"})
    with pytest.raises(DataError, match="found a file"):
        list_files(f"{tmp_path}/1.png", extensions=EXTENSIONS)


def test_a_bucket_that_is_missing_is_named(s3_endpoint):
    with pytest.raises(DataError, match="s3://no-such-bucket/x"):
        list_files("s3://no-such-bucket/x", extensions=EXTENSIONS)
