"""Data whose files have changed: `plan` notices it by stamps, `train` by the content."""

import os

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project

from epochal.tasks.config.load import load_config
from epochal.tasks.run_data import reading
from epochal.tasks.runs.plan import make_plan

FILES = """
    from pathlib import Path
    import torch
    from torch.utils.data import TensorDataset

    def files(path):
        labels = sorted(
            (file.name, int(file.parent.name)) for file in Path(path).rglob("*.txt")
        )
        points = torch.arange(len(labels) * 6, dtype=torch.float32).reshape(-1, 6)
        return TensorDataset(points, torch.tensor([label for _, label in labels]))
"""


@pytest.fixture
def project(tmp_path, home):
    project = Project(
        tmp_path / "project",
        epochs=1,
        train_data={"target": "files:files", "args": {"path": "./photos"}},
    )
    project.write("files.py", FILES)
    for number in range(12):
        folder = project.folder / "photos" / str(number % 3)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:02d}.txt").write_text("x")
    return project


def planned(project):
    return make_plan(load_config(project.config))


def moved(project):
    """An image goes to another class."""
    photos = project.folder / "photos"
    (photos / "0" / "00.txt").rename(photos / "1" / "00.txt")


def added(project):
    (project.folder / "photos" / "0" / "99.txt").write_text("x")


@pytest.mark.parametrize("change", [moved, added])
def test_plan_looks_at_the_files_below_a_folder_that_args_name(project, change):
    BareRun(project.config)()
    before = planned(project)
    assert before.num_done == before.num_needed
    assert [note for note in before.notes if "train_data" in note] == []
    change(project)
    after = planned(project)
    assert after.num_done == 1  # the initial weights
    assert after.unread == ("train_data",)
    assert "train_data: the files that its args name have changed since it was read" in after.notes
    run = BareRun(project.config)
    assert any(text.startswith("train_data: its content has changed") for text in run.notices)
    run()
    assert planned(project).num_done == planned(project).num_needed


def test_plan_says_where_it_takes_the_data_as_it_was_last_read(project):
    BareRun(project.config)()
    assert (
        "validation_data: content taken as it was last read; `epochal train` looks again"
        in planned(project).notes
    )


def test_data_that_takes_long_to_read_is_read_again_where_its_files_have_changed(
    project, monkeypatch
):
    monkeypatch.setattr(reading, "QUICK_READ_S", -1.0)  # everything takes long
    BareRun(project.config)()
    cached = BareRun(project.config)
    assert any(text.startswith("train_data: reading it took") for text in cached.notices)
    moved(project)
    run = BareRun(project.config)
    assert any(text.startswith("train_data: its content has changed") for text in run.notices)


def test_a_file_that_was_only_touched_is_read_again_and_nothing_is_computed(project):
    BareRun(project.config)()
    os.utime(project.folder / "photos" / "0" / "00.txt", (1, 1))
    assert planned(project).unread == ("train_data",)
    assert all(one.cached for one in BareRun(project.config)().outcomes)
    assert planned(project).num_done == planned(project).num_needed
