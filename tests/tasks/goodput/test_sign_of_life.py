"""A sign of life: what one process leaves, the next one reads, or nothing at all."""

import json
from dataclasses import asdict

import pytest

from epochal.tasks.goodput.sign_of_life import Sign, SignOfLife

SIGN = Sign("a" * 64, 12.5, 2.25, ("c" * 16, "d" * 16), 3, 1)


def text(**changes):
    """A sign as it is written, with these changes."""
    return json.dumps({**asdict(SIGN), **changes})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "home" / "alive" / "x.json"


def test_the_last_sign_is_read_by_another_process_and_gone_at_the_end(path):
    signs = SignOfLife(path)
    assert signs.read() is None
    signs.write(Sign("b" * 64, 99999.25, 0.0, ("e" * 16,) * 3))
    signs.write(SIGN)
    assert SignOfLife(path).read() == SIGN
    assert path.stat().st_mode & 0o077 == 0
    signs.end()
    assert not path.exists()
    signs.end()
    signs.write(SIGN)
    assert SignOfLife(path).read() == SIGN


def test_each_run_of_each_store_has_a_file_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for store, name in (("file:///a", "x"), ("file:///a", "y"), ("file:///b", "x")):
        SignOfLife.of_run(store, name).write(SIGN)
    assert len(list((tmp_path / ".epochal" / "alive").iterdir())) == 3


@pytest.mark.parametrize(
    "found",
    [
        "",
        "{",
        "[]",
        "[" * 500,
        text(key="../x"),
        text(key=None),
        text(seconds="1"),
        text(seconds=-1),
        text(commit_seconds=None),
        text(commits="ab"),
        text(commits=[1]),
        text(commits=["x" * 100]),
        text(commits=["x"] * 4),
        text(resumed=True),
        text(unknown_losses=-1),
        json.dumps({"key": "a" * 64, "seconds": 1, "commits": []}),
    ],
)
def test_what_is_no_sign_is_none(path, found):
    path.parent.mkdir(parents=True)
    path.write_text(found)
    assert SignOfLife(path).read() is None


def test_a_home_that_cannot_be_written_ends_no_training(path):
    path.parent.parent.mkdir()
    path.parent.write_text("a file where a folder should be")
    signs = SignOfLife(path)
    signs.write(SIGN)
    assert signs.read() is None
    signs.end()


def test_a_link_in_the_place_of_the_file_is_not_followed(path, tmp_path):
    path.parent.mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    path.symlink_to(elsewhere)
    SignOfLife(path).write(SIGN)
    assert not elsewhere.exists()
