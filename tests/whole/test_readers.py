"""Whole runs whose items are read by threads, processes or nobody: the same bytes, told in time."""

import pytest
import yaml
from support.runs.bare_run import BareRun
from support.runs.forked_runs import Lives
from support.runs.project import Project, environment

from epochal.data.errors import ConfigError, TrainingFailed
from epochal.data.loading import readers
from epochal.data.loading.readers import Readers
from epochal.data.testing.plan import FaultPlan
from epochal.data.traces import users_trace
from epochal.tasks.computing.work import Work

STEADY = """
    import os
    import numpy as np
    import torch
    from torch.utils.data import Dataset

    class Steady(Dataset):
        '''Items of a generator of their own; one cannot be read while BROKEN names it.'''

        thread_safe = True

        def __init__(self, split, size=38):
            self.seed, self.size = {"train": 1, "validation": 2}[split], size

        def __len__(self):
            return self.size

        def __getitem__(self, row):
            if os.environ.get("BROKEN") == str(row):
                raise OSError("truncated image")
            draw = np.random.default_rng([self.seed, row])
            return torch.from_numpy(draw.random(6, dtype=np.float32)), row % 3

    class Drawing(Steady):
        thread_safe = False

        def __getitem__(self, row):
            numbers, label = super().__getitem__(row)
            return numbers + torch.rand(()), label
"""


@pytest.fixture
def project(tmp_path, home):
    project = Project(
        tmp_path / "project",
        name="steady",
        epochs=2,
        threads=1,
        train_data={"target": "steady:Steady", "args": {"split": "train"}},
        validation_data={"target": "steady:Steady", "args": {"split": "validation", "size": 14}},
        loader={"batch_size": 4},
        gradients={"accumulate": 2},
        sampling={"policy": "none"},
        checkpoint={"every_updates": 1},
    )
    project.write("steady.py", STEADY)
    return project


def test_readers_may_change_in_the_middle_of_an_epoch(project, tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "_MEASURED_S", 0.05)
    whole = BareRun(project.config, store=f"file://{tmp_path}/whole")()
    for sets in (
        {"loader__threads": 3, "loader__prefetch": 1},
        {"loader__workers": "auto"},
        {"loader__workers": 2},
    ):
        run = BareRun(project.config, **sets)
        with environment(FAIL_AT_CALL="7"), pytest.raises(TrainingFailed):
            run()
    again = BareRun(project.config, loader__threads=2)()
    assert again.resumed
    assert again.digests == whole.digests


def test_who_reads_is_measured_once_and_said(project, monkeypatch):
    monkeypatch.setattr(readers, "_MEASURED_S", 0.05)
    run = BareRun(project.config, loader__workers="auto", loader__prefetch=5)()
    said = [text for text in run.notices if text.startswith("loader.workers: auto: train_data is")]
    assert len(said) == 1
    assert "by the training process" in said[0]
    assert "changes no number" in said[0]
    assert run.work.readers("train_data", batch_size=4).prefetch == 5
    assert run.work.measured in ways(run.work)


def ways(work: Work):
    count = readers._processors()
    assert work.group is None
    return [Readers(), Readers(threads=count), Readers(workers=count)]


def test_threads_do_not_count_where_a_set_of_the_run_draws(project, monkeypatch):
    monkeypatch.setattr(readers, "_MEASURED_S", 0.05)
    drawing = "{target: 'steady:Drawing', args: {split: validation, size: 14}}"
    run = BareRun(project.config, loader__workers="auto", validation_data=drawing)()
    (said,) = [text for text in run.notices if text.startswith("loader.workers: auto")]
    assert "thread" not in said


def test_threads_are_refused_before_the_start_to_a_set_that_does_not_say_it_is_safe(project):
    drawing = "{target: 'steady:Drawing', args: {split: validation, size: 14}}"
    with pytest.raises(ConfigError, match="loader.threads: validation_data does not say"):
        BareRun(project.config, loader__threads=2, validation_data=drawing)
    with pytest.raises(ConfigError, match="leave one out"):
        BareRun(project.config, loader__threads=2, loader__workers=1)


def test_an_item_that_a_thread_cannot_read_is_named_with_the_users_line(project):
    run = BareRun(project.config, loader__threads=2)
    with environment(BROKEN="37"), pytest.raises(TrainingFailed, match="sample 37 ") as caught:
        run()
    assert 'raise OSError("truncated image")' in users_trace(caught.value)


@pytest.mark.slow
def test_a_run_with_threads_that_is_killed_anywhere_ends_in_the_same_bytes(project, tmp_path):
    settings = yaml.safe_load(project.config.read_text())
    del settings["checkpoint"]  # it commits where it is told to
    lives = {}
    for threads in (0, 2):
        settings["loader"] = {"batch_size": 4, "threads": threads}
        config = project.folder / f"threads-{threads}.yaml"
        config.write_text(yaml.safe_dump(settings))
        lives[threads] = Lives.on_files(config, tmp_path / f"{threads}").prepare()
    assert lives[2].unbroken.found["digests"] == lives[0].unbroken.found["digests"]
    count = lives[2].sweep(FaultPlan(kind="kill"), lives[2].points("kill", every=5))
    assert count.equal == count.points == count.killed > 10
