"""Whole runs over built-in data sets: the same bytes with workers and after an interruption."""

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project, environment

from epochal.data.errors import DataError, TrainingFailed
from epochal.data.tables.schemas import OBSERVATIONS
from epochal.data.tables.writing import read_table

MODEL = """
    import os
    import torch
    from torch import nn
    from torch.nn import functional
    from epochal.engine import StepOutput

    class Counting(nn.Module):
        calls = 0

        def count(self):
            if self.training:
                self.calls += 1
                if self.calls == int(os.environ.get("FAIL_AT_CALL", -1)):
                    raise RuntimeError("the machine room is on fire")

    class Regression(Counting):
        def __init__(self, features):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(features, 8), nn.ReLU(), nn.Dropout(0.1))
            self.head = nn.Linear(8, 1)

        def forward(self, x):
            self.count()
            return self.head(self.body(x)).squeeze(1)

    class Tokens(Counting):
        def __init__(self, size=128):
            super().__init__()
            self.embedding = nn.Embedding(size, 8)
            self.head = nn.Linear(8, size)

        def forward(self, tokens):
            self.count()
            return self.head(self.embedding(tokens))

    class Bag(Counting):
        def __init__(self):
            super().__init__()
            self.embedding = nn.EmbeddingBag(60, 8, mode="sum", padding_idx=0)
            self.head = nn.Linear(8, 2)

        def forward(self, words):
            self.count()
            return self.head(self.embedding(words))

    class TokenStep:
        def __call__(self, model, batch):
            given, labels = ("input_ids", "labels") if isinstance(batch, dict) else (0, 1)
            logits_BVT, labels_BT = model(batch[given]).transpose(1, 2), batch[labels]
            loss_BT = functional.cross_entropy(logits_BVT, labels_BT, reduction="none")
            tokens_B = (labels_BT != -100).sum(1).float()
            return StepOutput(
                loss_BT.sum(1), logits_BVT, target=labels_BT, denominator_B=tokens_B
            )
"""
WORDS = """
    import datasets
    import numpy as np

    def words(part, size):
        draw = np.random.RandomState(len(part))
        labels = [row % 2 for row in range(size)]
        return datasets.Dataset.from_dict({
            "words": [
                draw.randint(1, 30, draw.randint(1, 9)) + 30 * label for label in labels
            ],
            "label": labels,
            "source": [None if row % 3 else f"page {row}" for row in range(size)],
        })
"""
TABLE = "epochal.data.datasets:table"
TEXT = "epochal.data.datasets:text"


def parts(target, /, **args):
    return {
        f"{part}_data": {"target": target, "args": {**args, "split": {"part": part}}}
        for part in ("train", "validation")
    }


def packed_text(part):
    args = {"path": "./texts", "window": None, "split": {"part": part, "fraction": 0.3}}
    return {
        "target": "epochal.data.datasets:packed",
        "args": {"data": {"target": TEXT, "args": args}, "window": 24},
    }


def houses(name):
    return {"target": TABLE, "args": {"path": f"./{name}.csv", "target": "price"}}


REGRESSION = {
    "model": {"target": "model:Regression", "args": {"features": 3}},
    "loss": {"target": "torch.nn:MSELoss"},
    "metrics": {"validation": ["loss"], "best": "loss"},
}
LANGUAGE = {
    "model": {"target": "model:Tokens"},
    "step": {"target": "model:TokenStep"},
    "metrics": {"validation": ["loss"], "best": "loss"},
}
RUNS = {
    "table": {**REGRESSION, **parts(TABLE, path="./a.csv", target="price", normalize="train")},
    "text": {**LANGUAGE, **parts(TEXT, path="./texts", window=12, stride=9, join=True)},
    "packed": {
        **LANGUAGE,
        "train_data": packed_text("train"),
        "validation_data": packed_text("validation"),
        "loader": {"batch_size": 2},
    },
    "hugging_face": {
        "model": {"target": "model:Bag"},
        "train_data": {"target": "words:words", "args": {"part": "train", "size": 40}},
        "validation_data": {"target": "words:words", "args": {"part": "validation", "size": 12}},
        "batch": {"input": "words", "target": "label"},
        "loader": {
            "batch_size": 4,
            "collate": {
                "target": "epochal.data.loading.collate:pad", "args": {"keys": ["input"]},
            },
        },
    },
    "mixture": {
        **REGRESSION,
        "train_data": {
            "target": "epochal.data.datasets:mixture",
            "args": {
                "sets": [houses("a"), houses("b")], "weights": {"0": [1, 3], "1": [1, 1]},
            },
        },
        "validation_data": houses("b"),
    },
}  # fmt: skip


def data_project(folder, kind):
    settings = {"name": kind, "epochs": 2, "threads": 1, "loader": {"batch_size": 4}}
    settings |= {"gradients": {"accumulate": 2}, "sampling": {"policy": "none"}}
    project = Project(folder, **{**settings, **RUNS[kind]})
    project.write("model.py", MODEL)
    project.write("words.py", WORDS)
    for name, size in (("a", 40), ("b", 9)):
        rows = (f"{row},{row % 5},{row * row % 7},{row * 0.5}\n" for row in range(size))
        project.write(f"{name}.csv", "area,rooms,age,price\n" + "".join(rows))
    (folder / "texts").mkdir(exist_ok=True)
    for number in range(14):
        project.write(f"texts/{number}.txt", f"a page of the number {number}. " * (1 + number % 3))
    return project


QUICK = ("packed", "mixture")
"""Of the others the parts are tested where they are; packed documents are over texts."""


@pytest.mark.parametrize(
    "kind",
    [*QUICK, *(pytest.param(one, marks=pytest.mark.slow) for one in RUNS if one not in QUICK)],
)
def test_the_bytes_are_those_of_an_unbroken_run_with_any_number_of_workers(kind, tmp_path, home):
    project = data_project(tmp_path / "project", kind)
    whole = BareRun(project.config, store=f"file://{tmp_path}/whole", loader__workers=2)()
    often = {"checkpoint__every_updates": 1}
    calls = max(3, int(whole.view.records[whole.view.stage("train", 0).key].values["updates"]) * 2)
    with environment(FAIL_AT_CALL=str(calls + 3)), pytest.raises(TrainingFailed):
        BareRun(project.config, **often)()
    again = BareRun(project.config, **often)()
    assert again.resumed
    assert again.digests == whole.digests


def test_one_label_of_two_names_is_refused_at_the_start(tmp_path, home):
    def colours(name):
        return {"target": TABLE, "args": {"path": f"./{name}.csv", "target": "colour"}}

    data = {"train_data": colours("all"), "validation_data": colours("some")}
    project = Project(tmp_path / "project", **data)
    for name, rows in (("all", "1,blue\n2,green\n3,red\n"), ("some", "1,blue\n2,red\n")):
        project.write(f"{name}.csv", f"x,colour\n{rows}")
    with pytest.raises(DataError, match="validation_data: the label 1 is 'red' here, but 'green'"):
        BareRun(project.config)


def test_a_mixture_trains_on_samples_as_often_as_its_weights_say(tmp_path, home):
    project = data_project(tmp_path / "project", "mixture")
    run = BareRun(project.config)()
    seen = []
    for epoch in (0, 1):
        record = run.view.record_of(run.view.stage("train", epoch))
        assert record.values["samples"] == 49
        with run.session.stage_store.fetch_artifact(record, "observations") as path:
            ids = read_table(path, schema=OBSERVATIONS).columns["sample_id"]
        assert set(ids.tolist()) >= set(range(40, 49))
        seen.append(set(ids[ids < 40].tolist()))
    assert [len(one) for one in seen] == [12, 25]  # a quarter of 49 rows, then half of them
    assert not seen[0] & seen[1]
