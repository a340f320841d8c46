"""The stage that trains an epoch: what it keeps in hand while it runs."""

from support.runs.bare_run import BareRun, unfinished_project
from support.runs.commits_given import each_stored


def test_the_commit_that_an_epoch_went_on_from_is_held_until_the_next_one(tmp_path, monkeypatch):
    project = unfinished_project(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    run, held = BareRun(project.config, checkpoint__every_updates=1), {}
    each_stored(run)

    def note(when):
        held.setdefault(when, [path.suffix for path in project.store.glob("tmp/*")])

    monkeypatch.setattr(run.session.reporter, "resumed", lambda **_: note("resumed"))
    run.session.deliver_part = lambda _: note("committed")
    run()
    assert ("train", 1) in run.resumed
    assert held == {"resumed": [".safetensors"], "committed": []}
