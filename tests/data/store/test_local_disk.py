"""Temporary folders: what dead processes left goes, and nothing else, whatever lies beside it."""

import errno
import fcntl
import os
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from epochal.data.errors import EpochalError, StoreUnavailable
from epochal.data.store.local_disk import (
    private_folder,
    second_name,
    sweep,
    user_folder,
)
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


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_a_second_name_stays_while_it_is_read_and_goes_with_the_process_that_read(tmp_path):
    (tmp_path / "object.bin").write_bytes(b"1")
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    dead = tmp / f"held-{NAME}.bin"
    os.link(tmp_path / "object.bin", dead)
    with second_name(tmp_path / "object.bin", tmp) as one:
        with second_name(tmp_path / "object.bin", tmp) as other:
            sweep(tmp)  # who reads a file holds it: whichever of its names
            assert names_in(tmp) == {dead.name, one.name, other.name}
        sweep(tmp)
        assert one.read_bytes() == b"1"
    sweep(tmp)
    assert names_in(tmp) == set()
    assert (tmp_path / "object.bin").read_bytes() == b"1"


def test_a_second_name_that_a_sweep_meets_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    (tmp_path / "object").write_bytes(b"1")
    tmp, opened, met = tmp_path / "tmp", os.open, []
    tmp.mkdir()

    def after_a_sweep(path, flags, *mode):
        if Path(path).parent == tmp and not met:
            met.append(path)
            Path(path).unlink()
        return opened(path, flags, *mode)

    monkeypatch.setattr(os, "open", after_a_sweep)
    with second_name(tmp_path / "object", tmp) as name:
        assert name.read_bytes() == b"1"
    assert met
    assert names_in(tmp) == set()


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.ENOSYS, errno.EWOULDBLOCK])
def test_where_nothing_can_be_locked_nothing_is_left_and_nothing_stays_open(
    error, tmp_path, monkeypatch
):
    (tmp_path / "object").write_bytes(b"1")
    tmp = tmp_path / "tmp"
    tmp.mkdir()

    def refused(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", refused)
    before = len(names_in(Path("/dev/fd")))
    ways = [lambda: second_name(tmp_path / "object", tmp)]
    if error != errno.EWOULDBLOCK:  # there a private folder takes another name
        ways.append(lambda: private_folder(tmp))
    for way in ways:
        with pytest.raises(OSError, match=os.strerror(error)), way():
            pass
    assert names_in(tmp) == set()
    assert len(names_in(Path("/dev/fd"))) == before


def test_what_cannot_be_removed_is_no_error_and_left_to_a_sweep(tmp_path, monkeypatch):
    (tmp_path / "object").write_bytes(b"1")
    tmp = tmp_path / "tmp"
    tmp.mkdir()

    def refused(self, **_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    before = len(names_in(Path("/dev/fd")))
    with ExitStack() as stack:
        stack.enter_context(second_name(tmp_path / "object", tmp))
        stack.enter_context(private_folder(tmp))
        with monkeypatch.context() as read_only:
            read_only.setattr(Path, "unlink", refused)
            stack.close()
    assert len(names_in(Path("/dev/fd"))) == before
    assert len(names_in(tmp)) == 2
    sweep(tmp)
    assert names_in(tmp) == set()


NAMES = {
    "held-": "a second name without a number",
    f"held-{NAME}.BIN": "of another form",
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
