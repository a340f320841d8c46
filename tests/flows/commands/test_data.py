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

    class Damaged(list):
        def __init__(self):
            super().__init__((torch.full((6,), row / 10), row % 3) for row in range(8))
            self.samples = [(f"photos/{row}.png", row % 3) for row in range(8)]

        def __getitem__(self, row):
            if row == 1:
                raise OSError("image file is truncated")
            x, y = super().__getitem__(row)
            return (x * float("nan") if row == 4 else x), ("dog" if row == 6 else y)

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
    assert done.json["train_data"] == {
        "samples": 12,
        "bad": [],
        "duplicates": 0,
        "num_classes": 3,
        "classes": [{"label": label, "class": None, "count": 4} for label in range(3)],
        "ignored": 0,
        "repeats": {"count": 0, "other_labels": 0, "samples": []},
    }


def test_duplicates_and_items_in_both_are_notes_with_positions_and_labels(checked):
    train = rows([*range(10), 4, 5], [*(value % 3 for value in range(10)), 1, 0])
    done = checked(train_data=train, validation_data=rows([70, 7, 71]))
    assert done.code == 0, done.err
    assert done.json["train_data"]["repeats"] == {
        "count": 2,
        "other_labels": 1,
        "samples": [
            {"position": 11, "first": 5, "labels": [0, 2]},
            {"position": 10, "first": 4, "labels": [1, 1]},
        ],
    }
    assert done.json["validation_data"]["in_train_data"]["samples"] == [
        {"position": 1, "first": 7, "labels": [1, 1]}
    ]
    assert [note.split(":")[0] for note in done.json["notes"]] == ["train_data", "validation_data"]
    assert "note: train_data: 2 of 12 samples" in " ".join(done.err.split())


def test_labels_that_are_no_classes_are_listed_in_both_data_sets_with_exit_3(checked):
    done = checked(
        train_data=rows(range(4), [0, 1, 3, 2]), validation_data=rows(range(50, 53), [0, 7, 1])
    )
    assert done.code == 3
    assert done.json["refused"] == []
    (train,), (validation,) = (done.json[name]["bad"] for name in ("train_data", "validation_data"))
    assert train["sample_id"] == 2
    assert "its label is 3, but the model gives 3 logits" in train["error"]
    assert (validation["sample_id"], validation["path"]) == (1, None)


def test_ignored_labels_are_counted_apart(checked):
    done = checked(train_data=rows(range(5), [0, -100, 1, 2, -100]))
    assert done.code == 0, done.err
    found = done.json["train_data"]
    assert (found["ignored"], found["num_classes"]) == (2, 3)


def test_items_of_another_form_are_bad_and_classes_have_their_names(checked):
    done = checked("--set", "loader.batch_size=4", train_data={"target": "rows:Ragged"})
    assert done.code == 3
    assert "item[0] is (7,) and (6,) in most items" in " ".join(done.out.split())
    assert "1 [b]dog" in done.out


def test_bad_samples_are_listed_with_path_and_cause_and_the_rest_is_checked(checked):
    done = checked(train_data={"target": "rows:Damaged"})
    assert done.code == 3
    found = done.json["train_data"]
    assert (found["samples"], found["duplicates"], done.json["refused"]) == (8, 0, [])
    told = {one["sample_id"]: (one["path"], one["error"]) for one in found["bad"]}
    assert told.keys() == {1, 4, 6}
    assert told[1][0] == "photos/1.png"
    assert "truncated" in told[1][1]
    assert "not finite" in told[4][1]
    assert "label is no whole number" in told[6][1]


def test_every_data_set_that_cannot_be_read_is_named(checked):
    done = checked(train_data={"target": "rows:broken"}, validation_data={"target": "rows:absent"})
    assert done.code == 2
    assert ["no such disk" in text for text in done.json["refused"]] == [True, False]
    assert "has no 'absent'" in done.json["refused"][1]
    assert not {"train_data", "validation_data"} & done.json.keys()


def test_a_scoring_set_is_listed_and_must_have_the_samples_of_training(checked):
    scoring = {"policy": "easy_skip", "confidence": 0.7, "scoring": {"data": rows(range(11))}}
    done = checked(sampling=scoring)
    assert done.code == 2
    (told,) = done.json["refused"]
    assert "found 11 samples, train_data has 12" in told
    assert done.json["sampling.scoring.data"]["samples"] == 11


def test_the_command_and_its_options_have_help():
    done = call("data", "check", "-h")
    assert done.code == 0
    found = typer.main.get_command(cli.app).commands["data"].commands["check"]
    assert found.help
    assert all(parameter.help for parameter in found.params)
    assert "check" in call("data", "-h").out
