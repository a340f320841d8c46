"""`epochal data check` lists what is in the data sets, and starts and writes nothing."""

import pytest
import typer
from support.runs.project import Project, call

from epochal.flows import cli

DATA = """
    import torch
    from torch.utils.data import TensorDataset

    def rows(values, labels=None):
        x = torch.tensor(values, dtype=torch.float32)[:, None].repeat(1, 6)
        return TensorDataset(x / 100, torch.tensor(labels or [value % 3 for value in values]))

    class Ragged(list):
        classes = ["cat", "[b]dog", "bird"]

        def __init__(self):
            super().__init__((torch.zeros(6 + (row == 3)), row % 3) for row in range(6))

    def broken():
        raise OSError("no such disk")
"""


def rows(values, labels=None):
    return {"target": "rows:rows", "args": {"values": list(values), "labels": labels}}


@pytest.fixture
def checked(tmp_path, home):
    def check(*options, **changes):
        data = {"train_data": rows(range(12)), "validation_data": rows(range(50, 56))}
        project = Project(tmp_path / "project", **{**data, **changes})
        project.write("rows.py", DATA)
        before = sorted(project.folder.rglob("*.*"))
        done = call("data", "check", str(project.config), *(options or ("--json",)))
        found = [path for path in project.folder.rglob("*.*") if "__pycache__" not in str(path)]
        assert sorted(found) == before
        assert not project.store.exists()
        return done

    return check


def test_sound_data_is_listed_with_its_classes_and_exit_0(checked):
    done = checked()
    assert done.code == 0, done.err
    assert done.json["notes"] == done.json["refused"] == []
    assert done.json["data"]["train_data"] == {
        "num_samples": 12,
        "unequal_at": None,
        "num_classes": 3,
        "classes": [{"label": label, "class": None, "count": 4} for label in range(3)],
        "ignored": 0,
        "repeats": {"count": 0, "other_labels": 0, "samples": []},
    }


def test_duplicates_and_items_in_both_are_notes_with_positions_and_labels(checked):
    train = rows([*range(10), 4, 5], [*(value % 3 for value in range(10)), 1, 0])
    done = checked(train_data=train, validation_data=rows([70, 7, 71]))
    assert done.code == 0, done.err
    assert done.json["data"]["train_data"]["repeats"] == {
        "count": 2,
        "other_labels": 1,
        "samples": [
            {"position": 11, "first": 5, "labels": [0, 2]},
            {"position": 10, "first": 4, "labels": [1, 1]},
        ],
    }
    assert done.json["data"]["validation_data"]["in_train_data"]["samples"] == [
        {"position": 1, "first": 7, "labels": [1, 1]}
    ]
    assert [note.split(":")[0] for note in done.json["notes"]] == ["train_data", "validation_data"]
    assert "note: train_data: 2 of 12 samples" in " ".join(done.err.split())


def test_labels_that_are_no_classes_are_refused_in_both_data_sets_with_exit_2(checked):
    done = checked(
        train_data=rows(range(4), [0, 1, 3, 2]), validation_data=rows(range(50, 53), [0, 7, 1])
    )
    assert done.code == 2
    (told,) = done.json["refused"]
    assert "train_data: found the label 3 (1 of 4 samples, first at position 2)" in told
    assert "validation_data: found the label 7 (1 of 3 samples, first at position 1)" in told


def test_ignored_labels_are_counted_apart(checked):
    done = checked(train_data=rows(range(5), [0, -100, 1, 2, -100]))
    assert done.code == 0, done.err
    found = done.json["data"]["train_data"]
    assert (found["ignored"], found["num_classes"]) == (2, 3)


def test_items_of_another_form_are_refused_and_listed_with_the_names_of_classes(checked):
    done = checked("--set", "loader.batch_size=4", train_data={"target": "rows:Ragged"})
    assert done.code == 2
    assert "items 0 and 3 cannot be put into one batch" in " ".join(done.err.split())
    assert "1 [b]dog" in done.out
    assert "first 3" in done.out


def test_every_data_set_that_cannot_be_read_is_named(checked):
    done = checked(train_data={"target": "rows:broken"}, validation_data={"target": "rows:absent"})
    assert done.code == 2
    assert ["no such disk" in text for text in done.json["refused"]] == [True, False]
    assert "has no 'absent'" in done.json["refused"][1]
    assert done.json["data"] == {}


def test_a_scoring_set_is_listed_and_must_have_the_samples_of_training(checked):
    scoring = {"policy": "easy_skip", "confidence": 0.7, "scoring": {"data": rows(range(11))}}
    done = checked(sampling=scoring)
    assert done.code == 2
    (told,) = done.json["refused"]
    assert "found 11 samples, train_data has 12" in told
    assert done.json["data"]["sampling.scoring.data"]["num_samples"] == 11


def test_the_command_and_its_options_have_help():
    done = call("data", "check", "-h")
    assert done.code == 0
    found = typer.main.get_command(cli.app).commands["data"].commands["check"]
    assert found.help
    assert all(parameter.help for parameter in found.params)
    assert "check" in call("data", "-h").out
