"""At the start it is said which inputs come more than once."""

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project

DATA = """
    import torch
    from torch.utils.data import TensorDataset

    def rows(first, count, again=0):
        values = [*range(first, first + count - again), *[first] * again]
        x = torch.tensor(values, dtype=torch.float32)[:, None].repeat(1, 6)
        return TensorDataset(x / 100, torch.tensor(values) % 3)
"""


@pytest.fixture
def notices(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def of(train, validation):
        data = {
            name: {"target": "rows:rows", "args": args}
            for name, args in (("train_data", train), ("validation_data", validation))
        }
        project = Project(tmp_path / "project", **data)
        project.write("rows.py", DATA)
        return [text for text in BareRun(project.config).notices if "samples (" in text]

    return of


def test_repeats_in_the_training_data_are_told_at_the_start(notices):
    (told,) = notices({"first": 0, "count": 100, "again": 10}, {"first": 500, "count": 20})
    assert told.startswith("train_data: 10 of 100 samples (10 %)")


def test_validation_samples_that_are_trained_on_are_told_at_the_start(notices):
    (told,) = notices({"first": 0, "count": 100}, {"first": 95, "count": 20})
    assert told.startswith("validation_data: 5 of 20 samples (25 %)")
    assert "seen in training" in told


def test_nothing_is_told_of_data_without_repeats(notices):
    assert notices({"first": 0, "count": 100}, {"first": 100, "count": 20}) == []
