"""`epochal report --live`: the page is written again while the run gets on, and ends for good."""

import threading
from types import SimpleNamespace

import pytest
from support.runs.bare_run import BareRun, unfinished_project
from support.runs.project import Project, call

from epochal.flows.commands import report as command


@pytest.fixture
def waits(monkeypatch):
    """What happens while the command waits, one thing each time; then Ctrl-C."""
    things = []

    class Waiting(threading.Event):
        def wait(self, timeout=None):
            assert timeout >= command.POLL_S
            if not things:
                raise KeyboardInterrupt
            things.pop(0)()

    monkeypatch.setattr(command, "threading", SimpleNamespace(Event=Waiting))
    return things


def test_a_page_is_kept_fresh_until_ctrl_c_which_ends_well(tmp_path, home, waits):
    project = Project(tmp_path / "project", epochs=2)
    run = BareRun(project.config)
    stages = iter(list(run.run.stages()))
    run.run.run_stage(next(stages))
    page = tmp_path / "page.html"
    seen = []

    def work():
        seen.append(page.read_text())
        run.run.run_stage(next(stages))

    waits += [work, lambda: seen.append(page.read_text())]
    done = call("report", "blobs", "--store", str(project.store), "--out", str(page), "--live")
    assert (done.code, done.err) == (0, "")
    assert "kept fresh, Ctrl-C ends it" in done.out
    assert ["<dd>0 of 2</dd>" in text for text in seen] == [True, False]
    assert ["<dd>1 of 2</dd>" in text for text in seen] == [False, True]
    assert all('data-live="5"' in text for text in seen)
    assert "data-live" not in page.read_text()


def test_a_page_is_written_again_for_each_commit_of_an_epoch_and_for_nothing_else(
    tmp_path, home, waits
):
    project = unfinished_project(tmp_path)
    page = tmp_path / "page.html"
    seen = []

    def look():
        seen.append((page.read_text(), page.stat().st_ino))

    def work():
        look()
        newest = max(project.store.glob("stages/*/partial/*.json"))
        newest.unlink()  # as if that commit were still to come

    waits += [look, work, look]
    done = call("report", "blobs", "--store", str(project.store), "--out", str(page), "--live")
    assert (done.code, done.err) == (0, "")
    texts = [text for text, _ in seen]
    assert ["Epoch 1 is at update 4 of 6" in text for text in texts] == [True, True, False]
    assert "Epoch 1 is at update 3 of 6" in texts[2]
    assert seen[0] == seen[1]


def test_a_run_that_is_done_is_written_once_for_good(tmp_path, home, waits):
    project = Project(tmp_path / "project", epochs=1)
    BareRun(project.config)()
    page = tmp_path / "page.html"
    done = call("report", "blobs", "--store", str(project.store), "--out", str(page), "--live")
    assert done.code == 0
    assert "data-live" not in page.read_text()
    assert "kept fresh" not in done.out
