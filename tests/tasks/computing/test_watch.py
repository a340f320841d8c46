"""What is told of a stage while it computes: its updates, its batches, where it goes on."""

import pytest
from support.runs.bare_run import Notices
from support.runs.project import Project

from epochal.data.errors import TrainingFailed
from epochal.tasks.computing import watch
from epochal.tasks.computing.watch import PassWatch
from epochal.tasks.config.load import load_config
from epochal.tasks.running.open import open_run


class Told(Notices):
    """Keeps what is told, in order."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def doing(self, text):
        self.calls.append(("doing", text))

    def planned(self, stages, done):
        self.calls.append(("planned", len(stages), len(done)))

    def resumed(self, epoch, update, num_updates):
        self.calls.append(("resumed", epoch, update, num_updates))

    def live(self, live):
        self.calls.append(("live", live.epoch, live.update, live.num_updates, live.samples))

    def counted(self, what, done, total):
        self.calls.append(("counted", what, done, total))

    def of(self, kind):
        return [call[1:] for call in self.calls if call[0] == kind]


@pytest.fixture
def project(tmp_path, home, monkeypatch):
    monkeypatch.setattr(watch, "SHOW_EVERY_S", -1.0)
    return Project(tmp_path / "project", epochs=1, checkpoint={"every_updates": 1})


def told_of(project, **sets):
    """What a run of all its stages tells, whether it ends well or not."""
    told = Told()
    overrides = [f"{name.replace('__', '.')}={value}" for name, value in sets.items()]
    run = open_run(load_config(project.config, overrides=overrides), reporter=told)
    try:
        for stage in run.stages():
            run.run_stage(stage)
    except TrainingFailed:
        pass
    finally:
        run.close()
    return told


def test_updates_and_batches_are_told_with_how_many_there_are(project):
    told = told_of(project, ema="{decay: 0.9}", gradients__accumulate=1)
    updates = [(0, number, 12, min(16 * number, 180)) for number in range(1, 13)]
    assert told.of("live") == updates
    assert told.of("counted")[:6] == [
        ("batches of validation", number, 6) for number in range(1, 7)
    ]
    assert told.of("counted")[6:] == [
        ("batches of validation of the average", number, 6) for number in range(1, 7)
    ]
    assert told.of("planned") == [(4, 0)]


def test_an_epoch_that_goes_on_tells_where(project, monkeypatch):
    monkeypatch.setenv("FAIL_AT_CALL", "8")  # in the fourth update
    assert told_of(project).of("resumed") == []
    monkeypatch.delenv("FAIL_AT_CALL")
    told = told_of(project)
    ((epoch, update, num_updates),) = told.of("resumed")
    assert (epoch, num_updates) == (0, 6)
    assert 1 <= update <= 3


def test_what_takes_time_before_the_stages_is_named(project):
    texts = [text for (text,) in told_of(project).of("doing")]
    assert [text for text in texts if "train_data" in text] == [
        "opening train_data",
        "reading train_data",
    ]
    assert texts[0].startswith("starting the trainer")
    assert "building the model, and trying a batch" in texts
    assert texts.index("looking up what is done") > texts.index("reading train_data")


def test_a_pass_tells_now_and_then_and_asks_each_time(monkeypatch):
    now = [0.0]
    told, asked = [], []
    monkeypatch.setattr(watch, "SHOW_EVERY_S", 3.0)
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])

    class Link:
        def report(self, what, /, **body):
            told.append((what, body["done"], body["total"]))

    each = PassWatch(Link(), "batches", 10, after=lambda: asked.append(1))
    for _ in range(10):
        now[0] += 1.0
        each()
    assert len(asked) == 10
    assert told == [("counted", 3, 10), ("counted", 6, 10), ("counted", 9, 10)]
