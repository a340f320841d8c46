"""The page on the step: every step that it shows trains, as it stands there."""

import re
from pathlib import Path

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project

PAGE = (Path(__file__).parents[3] / "docs" / "step.md").read_text()
STEPS = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE))
PARTS = """
    from types import SimpleNamespace

    import torch
    from torch import nn
    from torch.nn import functional
    from torch.utils.data import Dataset

    ITEMS = {
        "transformers": lambda i: {
            "input_ids": torch.arange(6) % 5, "attention_mask": torch.ones(6), "labels": i % 3},
        "tokens": lambda i: {
            "input_ids": torch.arange(6) % 3,
            "labels": torch.where(torch.arange(6) < 2 + i % 4, (torch.arange(6) + 1) % 3, -100)},
        "views": lambda i: {"first": torch.randn(6), "second": torch.randn(6)},
        "waves": lambda i: {"signal": torch.randn(6), "label": i % 3, "frequency": i / 32},
        "pairs": lambda i: (torch.randn(6), i % 3),
        "named": lambda i: {"samples": torch.randn(6), "targets": i % 3},
    }

    class Data(Dataset):
        def __init__(self, kind):
            self.kind = kind

        def __len__(self):
            return 32

        def __getitem__(self, position):
            return ITEMS[self.kind](position)

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.layer = nn.Embedding(5, 6), nn.Linear(6, 3)

        def forward(self, input_ids, attention_mask):
            mask = attention_mask.unsqueeze(-1)
            return SimpleNamespace(logits=self.layer((self.words(input_ids) * mask).sum(1)))

    class Language(Classifier):
        def forward(self, input_ids):
            return SimpleNamespace(logits=self.layer(self.words(input_ids)))

    class Both(nn.Module):
        def __init__(self, second):
            super().__init__()
            self.second, self.layer, self.other = second, nn.Linear(6, 3), nn.Linear(6, 1)

        def forward(self, x):
            found = self.other(x).squeeze(1)
            return self.layer(x), x * found[:, None] if self.second == "features" else found

    class Lightning(nn.Linear):
        def training_step(self, batch, batch_idx):
            return {"loss": functional.cross_entropy(self(batch[0]), batch[1])}

        def validation_step(self, batch, batch_idx):
            return functional.cross_entropy(self(batch[0]), batch[1])
"""
LINEAR = {"target": "torch.nn:Linear", "args": {"in_features": 6, "out_features": 3}}
PLAIN = {"sampling": {"policy": "none"}, "metrics": {"validation": ["loss"]}}
STEP_RUNS = {
    "transformers": (
        {"target": "parts:Classifier"}, {"step": {"target": "steps:TransformersStep"}},
    ),
    "tokens": (
        {"target": "parts:Language"},
        {"step": {"target": "steps:TokenStep"}, "metrics": {"validation": ["perplexity"]},
         "sampling": {"policy": "none"}},
    ),
    "pairs: own loss": (LINEAR, {"loss": {"target": "steps:focal", "args": {"gamma": 1.5}}}),
    "pairs: penalty": (
        {"target": "parts:Both", "args": {"second": "features"}},
        {"step": {"target": "steps:Penalised", "args": {"strength": 0.1}}},
    ),
    "views": (LINEAR, {"step": {"target": "steps:NTXent"}, **PLAIN}),
    "waves": (
        {"target": "parts:Both", "args": {"second": "frequency"}},
        {"step": {"target": "steps:TwoTasks", "args": {"weight": 0.2}}, **PLAIN},
    ),
    "pairs: lightning": (
        {**LINEAR, "target": "parts:Lightning"},
        {"step": {"target": "steps:LightningStep"}, **PLAIN},
    ),
    "named": (LINEAR, {"batch": {"input": "samples", "target": "targets"}}),
    "pairs: classes": (
        LINEAR,
        {"metrics": {"validation": [{"name": "kappa", "target": "steps:OfClasses", "args": {
            "metric": {"target": "torchmetrics.classification:MulticlassCohenKappa",
                       "args": {"num_classes": 3}}}}]}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STEP_RUNS)
def test_a_step_of_the_page_trains(name, tmp_path):
    model, changes = STEP_RUNS[name]
    data = {"target": "parts:Data", "args": {"kind": name.partition(":")[0]}}
    config = {"epochs": 1, "model": model, "train_data": data, "validation_data": {**data}}
    config["validation_data"]["args"] = dict(data["args"])
    project = Project(tmp_path, **config, **changes)
    project.write("parts.py", PARTS)
    (tmp_path / "steps.py").write_text(STEPS)
    run = BareRun(project.config)()
    assert run.weights
    (train,) = (one.values for one in run.view.records.values() if one.stage == "train")
    assert train["loss"] > 0


def test_the_page_says_every_field_of_what_a_step_returns():
    from epochal.engine import StepOutput

    for field in StepOutput.__dataclass_fields__:
        assert f"`{field}`" in PAGE, field
