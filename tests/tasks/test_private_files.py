"""What Epochal keeps at home is read by its owner alone, under every umask."""

import os

import pytest

from epochal.tasks.private_files import close_to_others, private_file, private_folder
from epochal.tasks.runs.find_run import remember_store, stores_file
from epochal.tasks.tracking.connection import tracker_lock, tracking_home, unreachable


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path):
    return path.stat().st_mode & 0o777


def test_new_files_and_folders_are_private(umask, tmp_path):
    assert mode(private_folder(tmp_path / "a")) == 0o700
    assert mode(private_file(tmp_path / "b")) == 0o600


def test_those_that_were_open_are_closed_and_keep_what_they_hold(umask, tmp_path):
    folder, file = tmp_path / "a", tmp_path / "b"
    folder.mkdir()
    folder.chmod(0o777)
    file.write_text("kept")
    file.chmod(0o644)
    private_folder(folder)
    private_file(file)
    assert (mode(folder), mode(file), file.read_text()) == (0o700, 0o600, "kept")
    close_to_others(tmp_path / "missing")


@pytest.mark.parametrize(
    "use",
    [
        lambda: remember_store("memory://a/b"),
        lambda: unreachable(f"sqlite:///{tracking_home() / 'mlflow.db'}"),
        lambda: tracker_lock().__enter__(),
    ],
    ids=["stores", "database", "lock"],
)
def test_whoever_makes_the_folder_at_home_makes_it_private(umask, home, use):
    use()
    assert mode(tracking_home()) == 0o700
    assert all(mode(path) == 0o600 for path in tracking_home().iterdir())
    remember_store("memory://c/d")
    assert mode(stores_file()) == 0o600
