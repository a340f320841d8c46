"""The engine as a library: its page runs as it stands, and its helpers say what they refuse."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from support.numbers.tiny_model import Net, cross_entropy, new_state, run_epoch, samples
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from epochal.data.errors import TargetError
from epochal.engine import (
    MixingConfig,
    Recipe,
    as_batches,
    metrics_of,
    supervised_step,
    train_epoch,
    validate_epoch,
)
from epochal.engine.loop.mixing import MixedStep

PAGE = (Path(__file__).parents[2] / "docs" / "library.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)


def test_every_block_of_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for block in BLOCKS:
            exec(compile(block, "docs/library.md", "exec"), names)
    assert names["validated"].values["accuracy"] > 0.5
    assert len(names["norms"]) == names["trained"].num_updates == 4
    assert names["resumed"].updates_done == names["state"].updates_done > 0
    shown = capsys.readouterr().out
    assert "gradients/norm" in shown
    assert "kappa" in shown


def test_it_is_ten_lines():
    lines = [line for line in BLOCKS[1].splitlines() if line.strip()]
    assert len(lines) <= 10


@pytest.mark.parametrize("accumulate", [1, 2, 3, 9])
def test_batches_of_an_iterable_train_as_those_of_the_loader_do(accumulate):
    x, y = samples(45)
    state, other = new_state(), new_state()
    run_epoch(state, x, y, batch_size=8, accumulate=accumulate)
    plain = as_batches(list(zip(x.split(8), y.split(8), strict=True)), accumulate=accumulate)
    result = train_epoch(
        other,
        plain,
        Recipe(supervised_step(nn.CrossEntropyLoss), seed=5),
        epoch=0,
    )
    assert result.num_samples == 45
    for name, tensor in state.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name]), name


def test_dicts_and_loaders_are_batches_and_ids_are_the_users():
    x, y = samples(20)
    rows = torch.arange(20) + 100
    dicts = [
        {"input": x[low : low + 8], "target": y[low : low + 8], "id": rows[low : low + 8]}
        for low in range(0, 20, 8)
    ]
    plain = as_batches(dicts, sample_ids=lambda batch: batch["id"])
    found = train_epoch(new_state(), plain, Recipe(cross_entropy()), epoch=0)
    assert found.observations["sample_id"].tolist() == rows.tolist()
    loader = as_batches(DataLoader(TensorDataset(x, y), batch_size=8))
    assert loader.num_updates == 3
    assert np.concatenate([one.sample_ids_B for one in loader]).tolist() == list(range(20))
    assert [one.index for one in loader] == [0, 1, 2]  # a second pass begins anew


@pytest.mark.parametrize(
    "loss",
    [nn.CrossEntropyLoss, nn.CrossEntropyLoss(), nn.functional.cross_entropy,
     nn.CrossEntropyLoss(reduction="none")],
    ids=["class", "module", "function", "none"],
)  # fmt: skip
def test_every_form_of_a_loss_gives_one_number_per_sample(loss):
    x, y = samples(9)
    model = Net().eval()
    found = supervised_step(loss)(model, (x, y)).loss_B
    assert found.shape == (9,)
    assert torch.equal(found, nn.functional.cross_entropy(model(x), y, reduction="none"))


def test_a_loss_that_is_given_stays_as_it_was():
    loss = nn.CrossEntropyLoss(weight=torch.rand(4), ignore_index=2)
    supervised_step(loss)
    assert loss.reduction == "mean"


def test_a_recipe_that_mixes_trains_as_the_step_of_a_run_does():
    x, y = samples(24)
    mixing = MixingConfig(mixup=0.5, label_smoothing=0.1)
    state, other = new_state(), new_state()
    run_epoch(state, x, y, batch_size=8, mixing=mixing, step=MixedStep(cross_entropy()))
    step = supervised_step(nn.CrossEntropyLoss)
    run_epoch(other, x, y, batch_size=8, mixing=mixing, step=step)
    for name, tensor in state.model.state_dict().items():
        assert torch.equal(other.model.state_dict()[name], tensor), name


def test_metrics_are_named_or_made():
    class Count:
        def __init__(self):
            self.count = 0

        def update(self, outputs, _):
            self.count += len(outputs)

        def compute(self):
            return self.count

    x, y = samples(20)
    plain = as_batches([(x[:8], y[:8]), (x[8:], y[8:])])
    found = validate_epoch(
        new_state().model, plain, step=cross_entropy(), metrics=metrics_of("f1", count=Count)
    )
    assert found.values["count"] == found.num_samples == 20
    assert set(found.values) == {"f1", "count", "loss"}
    with pytest.raises(ValueError, match="no metric"):
        metrics_of("acuracy")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: as_batches(iter([])).num_updates, "no length.*num_batches"),
        (lambda: list(as_batches([("a", 1)])), "without a tensor"),
        (lambda: as_batches([], accumulate=0), "at least 1"),
        (lambda: list(as_batches([torch.ones(3)], sample_ids=lambda _: [1.0])), "integers"),
        (lambda: supervised_step(nn.MSELoss(reduction="sum")), "'sum'.*mean"),
        (lambda: supervised_step(nn.MSELoss(), reduction="mean"), "made already"),
    ],
)
def test_what_does_not_fit_says_what_was_expected(call, words):
    with pytest.raises(TargetError, match=words):
        call()


def test_a_generator_trains_if_its_number_of_batches_is_told():
    x, y = samples(20)
    plain = as_batches(iter(zip(x.split(8), y.split(8), strict=True)), num_batches=3)
    found = train_epoch(new_state(), plain, Recipe(cross_entropy()), epoch=0)
    assert found.num_updates == 3
