"""A remembered listing is used while the folders are as they were, and never else."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from support.images import put_files

from epochal.data.files import listing, remembered
from epochal.data.files.local_cache import FOLDER_VARIABLE
from epochal.data.files.remembered import forget, open_listing

FILES = {f"{name}/{number}.png": name.encode() * number for name in "abc" for number in range(1, 5)}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(remembered, "MIN_FILES", 1)
    monkeypatch.setattr(remembered, "SETTLED_NS", 0)
    put_files(tmp_path / "data", FILES)
    return tmp_path / "data"


@pytest.fixture
def walks(monkeypatch):
    """How often a folder was listed."""
    count = []
    walk = listing._walk

    def counted(*arguments, **more):
        count.append(1)
        return walk(*arguments, **more)

    monkeypatch.setattr(listing, "_walk", counted)
    return count


def opened(root):
    """Names with sizes."""
    found = open_listing(str(root), extensions=[".png"])
    sizes = found.sizes_N.tolist()
    return {found.text(position): size for position, size in enumerate(sizes)}


def touch(folder):
    """Gives the folder a time of its own: two changes within one tick of the clock have one."""
    status = folder.stat()
    os.utime(folder, ns=(status.st_atime_ns, status.st_mtime_ns - 1_000_000))


def cached():
    (path,) = (Path(os.environ[FOLDER_VARIABLE]) / "listings").iterdir()
    return path


def test_a_second_opening_lists_nothing(root, walks):
    first = open_listing(str(root), extensions=[".png"])
    stamps = first.stamps_N
    second = open_listing(str(root), extensions=[".png"])
    assert len(walks) == 1
    assert opened(root) == {name: len(data) for name, data in FILES.items()}
    assert np.array_equal(second.stamps_N, stamps)
    assert second.names.folders == first.names.folders
    assert pickle.loads(pickle.dumps(second)).text(5) == first.text(5)


def add(root):
    (root / "b/9.png").write_bytes(b"999")
    touch(root / "b")


def remove(root):
    (root / "b/2.png").unlink()
    touch(root / "b")


def rename(root):
    (root / "b/2.png").rename(root / "b/22.png")
    touch(root / "b")


def move(root):
    (root / "b/2.png").rename(root / "c/22.png")
    touch(root / "b")
    touch(root / "c")


def rename_class(root):
    (root / "b").rename(root / "z")
    touch(root)


def new_class(root):
    put_files(root, {"new/1.png": b"1"})
    touch(root)


def write_over(root):
    (root / "a/1.png").write_bytes(b"another size")


def behind_its_time(root):
    before = (root / "b").stat()
    (root / "b/9.png").write_bytes(b"999")
    os.utime(root / "b", ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [add, remove, rename, move, rename_class, new_class, write_over, behind_its_time],
    ids=lambda change: change.__name__,
)
def test_what_changed_is_listed_anew(root, walks, change):
    opened(root)
    change(root)
    now = {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*.png")}
    assert opened(root) == now
    assert len(walks) == 2
    assert opened(root) == now
    assert len(walks) == 2  # and remembered again


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign", "folder"])
def test_a_damaged_file_is_as_good_as_none(root, walks, damage):
    before = opened(root)
    path = cached()
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    data = {"cut": data[:-9], "empty": b"", "foreign": b"no listing" * 9}.get(damage, bytes(data))
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        path.write_bytes(data)
    assert opened(root) == before
    assert len(walks) == 2


def test_a_folder_that_has_just_changed_is_not_remembered(root, monkeypatch, walks):
    monkeypatch.setattr(remembered, "SETTLED_NS", 10**15)
    opened(root)
    opened(root)
    assert len(walks) == 2


def test_a_folder_that_changes_while_it_is_listed_is_not_remembered(root, walks):
    found = open_listing(str(root), extensions=[".png"])
    add(root)
    _ = found.sizes_N
    assert opened(root)["b/9.png"] == 3


def test_what_is_forgotten_is_listed_anew(root, walks):
    opened(root)
    forget(open_listing(str(root), extensions=[".png"]))
    opened(root)
    assert len(walks) == 2


def test_other_extensions_are_another_listing(root):
    opened(root)
    (root / "a/1.jpg").write_bytes(b"1")
    assert len(open_listing(str(root), extensions=[".jpg"])) == 1


def test_a_cache_that_cannot_be_written_is_no_error(root, monkeypatch, walks):
    monkeypatch.setenv(FOLDER_VARIABLE, str(root / "a/1.png/cache"))
    assert opened(root) == opened(root)
    assert len(walks) == 2
