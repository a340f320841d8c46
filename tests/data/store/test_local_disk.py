"""Temporary folders: what dead processes left goes, and nothing else, whatever lies beside it."""

import os
from contextlib import suppress

import pytest

from epochal.data.errors import EpochalError, StoreUnavailable
from epochal.data.store.local_disk import private_folder, sweep, user_folder
from epochal.data.store.open import open_store

NAME = "0123456789abcdef"


def tree(folder):
    return {path: path.lstat().st_mode for path in folder.rglob("*")}


def test_what_a_dead_process_left_is_removed_and_what_a_living_one_has_stays(tmp_path):
    (tmp_path / f"{NAME}.lock").touch()
    (tmp_path / NAME / "below").mkdir(parents=True)
    with private_folder(tmp_path) as living:
        sweep(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {living.name, f"{living.name}.lock"}


def test_a_folder_whose_lock_a_loss_of_power_took_is_removed(tmp_path):
    (tmp_path / NAME / "below").mkdir(parents=True)
    with private_folder(tmp_path) as living:
        (living / "file").touch()
        sweep(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {living.name, f"{living.name}.lock"}
        assert (living / "file").exists()


NAMES = {
    "...lock": "two dots and a lock",
    "..lock": "one dot",
    ".lock": "nothing before it",
    "other.lock": "another program's",
    f"{NAME[:-1]}.lock": "too short",
    f"{NAME}0.lock": "too long",
    f"{NAME.upper()}.lock": "upper case",
    f"{NAME}.lock.lock": "twice",
}


@pytest.mark.parametrize("name", NAMES, ids=NAMES.values())
def test_names_of_another_form_stay(name, tmp_path):
    tmp = tmp_path / "store" / "tmp"
    (tmp / name.removesuffix(".lock").rstrip(".") / "kept").mkdir(parents=True)
    (tmp / name).touch()
    before = tree(tmp_path)
    sweep(tmp)
    assert tree(tmp_path) == before


def make_link(path, other):
    path.symlink_to(other)


def make_folder(path, _):
    path.mkdir()


def make_pipe(path, _):
    os.mkfifo(path)


@pytest.mark.parametrize("make", [make_link, make_folder, make_pipe])
def test_a_lock_that_is_no_regular_file_stays_and_nothing_behind_it_is_touched(make, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_bytes(b"a person's")
    tmp = tmp_path / "tmp"
    (tmp / NAME).mkdir(parents=True)
    make(tmp / f"{NAME}.lock", other / "file")
    before = tree(tmp_path)
    sweep(tmp)
    assert tree(tmp_path) == before


def test_a_link_in_the_place_of_a_private_folder_is_not_followed(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_bytes(b"a person's")
    (tmp_path / f"{NAME}.lock").touch()
    (tmp_path / NAME).symlink_to(other)
    sweep(tmp_path)
    assert (other / "file").read_bytes() == b"a person's"


def replace_by_link(folder, other):
    folder.symlink_to(other)


def replace_by_dangling_link(folder, other):
    folder.symlink_to(other / "nowhere")


def replace_by_file(folder, _):
    folder.touch()


@pytest.mark.parametrize("replace", [replace_by_link, replace_by_dangling_link, replace_by_file])
def test_a_users_folder_that_is_no_folder_is_refused_and_nothing_behind_it_is_touched(
    replace, tmp_path, monkeypatch
):
    other = tmp_path / "other"
    (other / NAME).mkdir(parents=True)
    (other / f"{NAME}.lock").touch()
    before = tree(other)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    folder = temporary / f"epochal-{os.getuid()}"
    replace(folder, other)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    store = open_store("memory://a/b")
    with pytest.raises(StoreUnavailable, match="TMPDIR"), store.scratch():
        pass
    assert tree(other) == before


def test_a_users_folder_is_theirs_alone(tmp_path):
    folder = user_folder(tmp_path)
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    assert user_folder(tmp_path).stat().st_mode & 0o777 == 0o700


def test_a_users_folder_of_somebody_else_is_refused(tmp_path, monkeypatch):
    user_folder(tmp_path)
    own = os.getuid()
    (tmp_path / f"epochal-{own}").rename(tmp_path / f"epochal-{own + 1}")
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    with pytest.raises(PermissionError, match="TMPDIR"):
        user_folder(tmp_path)


@pytest.mark.parametrize("linked", ["tmp", "stages", "runs", "damaged"])
def test_a_folder_of_a_store_that_is_a_link_is_never_written_or_deleted_through(linked, tmp_path):
    other = tmp_path / "other"
    (other / NAME).mkdir(parents=True)
    (other / f"{NAME}.lock").touch()
    (other / "object").write_bytes(b"a person's")
    root = tmp_path / "store"
    root.mkdir()
    (root / linked).symlink_to(other)
    before = tree(other)
    store = open_store(f"file://{root}")
    for act in (
        store.preflight,
        lambda: store.put_new(f"{linked}/new", b"1"),
        lambda: store.delete(f"{linked}/object"),
        lambda: store.read(f"{linked}/object"),
        lambda: store.set_aside(f"{linked}/object", "a test"),
        lambda: store.listing(linked),
    ):
        with suppress(EpochalError, FileNotFoundError):
            act()
    assert tree(other) == before
    assert all(not path.startswith(f"{linked}/") for path in store.listing())
