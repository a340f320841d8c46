"""The trainer that is this process."""

from support.runs.epoch_commits import EpochCommits

from epochal.tasks.launch import inline


def test_what_has_stopped_one_stage_stops_no_later_one(tmp_path, monkeypatch):
    trainer = EpochCommits(tmp_path).trainer
    monkeypatch.setattr(inline, "handle", lambda worker, *_: ({"is": worker.link.stopped}, None))
    trainer.stop()
    assert trainer.request("compute", {}, {}) == ({"is": False}, None)
