"""What the first samples show before the start, and what the message says to do about it."""

import textwrap

import pytest
import torch
from support.runs.bare_run import BareRun
from support.runs.project import Project

from epochal.data.errors import ConfigError, DataError, TargetError

PARTS = """
    import torch
    from torch import nn
    from torch.utils.data import Dataset, TensorDataset

    class Net(nn.Module):
        def __init__(self, output="plain"):
            super().__init__()
            self.output, self.layer, self.calls = output, nn.Linear(6, 3), 0
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            logits = self.layer(x)
            if self.training:
                self.seen += 1
            match self.output:
                case "tuple":
                    return logits, x
                case "tuple in training":
                    return (logits, x) if self.training else logits
                case "fails in training":
                    assert not self.training, "no dropout is planned"
                case "detached":
                    return logits.detach()
                case "classes last":
                    return logits[:, None].repeat(1, 5, 1)
                case "channels last":
                    return logits[:, None, None].repeat(1, 5, 4, 1)
                case "classes second":
                    return logits[:, :, None, None].repeat(1, 1, 5, 4)
                case "a column":
                    return logits[:, :1]
            return logits

    def data(inputs="plain", targets="plain"):
        x, y = torch.randn(40, 6), torch.arange(40) % 3
        x = {"plain": x, "double": x.double(), "bytes": (10 * x).to(torch.uint8)}[inputs]
        y = {
            "plain": y, "column": y[:, None], "float": y.float(), "int": y.int(),
            "one-hot": nn.functional.one_hot(y, 3), "two": y % 2,
            "sequence": y[:, None].repeat(1, 5), "map": y[:, None, None].repeat(1, 5, 4),
        }[targets]
        return TensorDataset(x, y)

    class Ragged(Dataset):
        def __len__(self):
            return 40

        def __getitem__(self, position):
            return torch.rand(6 + (position == 17)), position % 3
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Opens a run of that output of the model and that data: the checks, and nothing after them."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def run(output="plain", *, inputs="plain", targets="plain", **changes):
        data = {name: {"target": "parts:data", "args": {"inputs": inputs, "targets": targets}}
                for name in ("train_data", "validation_data")}  # fmt: skip
        net = {"target": "parts:Net", "args": {"output": output}}
        config = {**data, "model": net, "sampling": {"policy": "none"}, **changes}
        project = Project(tmp_path / "project", **config)
        project.write("parts.py", PARTS)
        return BareRun(project.config)

    return run


def refused(start, *given, error=TargetError, **changes):
    with pytest.raises(error) as caught:
        start(*given, **changes)
    return str(caught.value)


@pytest.mark.parametrize(
    ("output", "data", "words"),
    [
        ("classes last", {"targets": "sequence"}, "return logits.transpose(1, 2) from the model"),
        ("channels last", {"targets": "map"}, "return logits.movedim(-1, 1) from the model"),
        ("plain", {"targets": "column"}, "target.squeeze(-1) in the data set"),
        ("plain", {"targets": "float"}, "found torch.float32: target.long() in the data set"),
        ("plain", {"targets": "int"}, "found torch.int32: target.long() in the data set"),
        ("plain", {"targets": "one-hot"}, "or give classes, target.argmax(-1)"),
        ("tuple", {}, "use a `step:` that takes the part that is trained on out of it"),
        ("plain", {"inputs": "double"}, "the items are torch.float64, the weights torch.float32"),
        ("plain", {"inputs": "bytes"}, "give them as torch.float32"),
    ],
)
def test_what_a_loss_does_not_take_comes_with_the_cure(start, output, data, words):
    message = refused(start, output, **data)
    assert words in message
    assert "; found " in message


@pytest.mark.parametrize("loss", ["BCEWithLogitsLoss", "MSELoss"])
def test_a_column_of_outputs_against_a_row_of_targets_is_no_matter_of_classes(start, loss):
    message = refused(start, "a column", targets="two", loss={"target": f"torch.nn:{loss}"})
    assert "squeeze(" in message
    assert "label" not in message


def test_a_loss_between_numbers_takes_whole_numbers(start):
    numbers = {"target": "torch.nn:BCEWithLogitsLoss"}
    assert start(targets="one-hot", loss=numbers, metrics={"validation": ["loss"]})().weights


@pytest.mark.parametrize("args", [{}, {"num_classes": 3, "input_format": "index"}])
def test_a_metric_of_classes_that_gets_logits_says_what_to_set(start, args):
    metric = {"name": "iou", "target": "torchmetrics.segmentation:MeanIoU", "args": args}
    metrics = {"validation": [metric]}
    message = refused(start, "classes second", targets="map", metrics=metrics)
    assert "give it args {input_format: mixed}, which takes the argmax" in message
    metric["args"] = {"num_classes": 3, "input_format": "mixed"}
    assert start("classes second", targets="map", metrics=metrics, epochs=1)().weights


def test_a_model_that_is_different_in_training_is_found_before_the_start(start):
    message = refused(start, "tuple in training")
    assert "train_data in training mode raised TypeError" in message
    assert "a tuple of 2" in message
    assert "no dropout is planned" in refused(start, "fails in training")


def test_a_loss_without_a_gradient_is_found_before_the_start(start):
    assert "depends on no parameter that trains" in refused(start, "detached")


def test_trying_the_training_mode_leaves_the_model_as_it_was(start):
    model = start().work.components.state.model
    assert model.training
    assert model.calls == 0
    assert torch.equal(model.seen, torch.zeros(()))
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("field", ["train_data", "validation_data"])
def test_items_of_unequal_shape_are_found_before_the_start(start, field):
    message = refused(start, error=DataError, **{field: {"target": "parts:Ragged"}})
    assert message.startswith(f"{field}: items 0 and 17 cannot be put into one batch")
    assert "item[0] is (6,) and (7,)" in message
    assert "pad them in the data set" in message


def test_items_of_unequal_shape_may_come_one_by_one(start):
    ragged, loader = {"target": "parts:Ragged"}, {"batch_size": 16, "validation_batch_size": 1}
    assert start(validation_data=ragged, loader=loader)
    loader = {"batch_size": 1, "validation_batch_size": 16}
    refused(start, error=DataError, validation_data=ragged, loader=loader)


def test_a_policy_still_needs_one_loss_for_each_sample(start):
    loss, sampling = {"target": "torch.nn:CrossEntropyLoss", "args": {"reduction": "mean"}}, {}
    assert "one loss per sample" in refused(
        start, error=ConfigError, loss=loss, sampling={**sampling, "policy": "easy_skip"}
    )


LOSSES = """
    import torch
    from torch import nn
    from torch.nn import functional as F

    WEIGHT = torch.tensor([1.0, 5.0, 0.05])

    class Focal(nn.Module):
        def __init__(self, by_weight=True, reduction="mean"):
            super().__init__()
            self.by_weight, self.reduction = by_weight, reduction

        def forward(self, logits_BC, target_B):
            losses_B = F.cross_entropy(logits_BC, target_B, reduction="none")
            losses_B = WEIGHT[target_B] * (1 - (-losses_B).exp()) ** 2 * losses_B
            if self.reduction == "none":
                return losses_B
            return losses_B.sum() / (WEIGHT[target_B].sum() if self.by_weight else len(target_B))

    class Wrapped(nn.Module):
        # Keeps its reduction where nobody sees it.
        def __init__(self, reduction="mean"):
            super().__init__()
            self.inner = nn.CrossEntropyLoss(weight=WEIGHT.clone(), reduction=reduction)

        def forward(self, logits_BC, target_B):
            return self.inner(logits_BC, target_B)

    class Noisy(nn.Module):
        def __init__(self, reduction="mean"):
            super().__init__()
            self.reduction = reduction

        def forward(self, logits_BC, target_B):
            noisy_BC = logits_BC + torch.randn_like(logits_BC)
            return F.cross_entropy(noisy_BC, target_B, reduction=self.reduction)

    class Learned(nn.Module):
        def __init__(self, reduction="mean"):
            super().__init__()
            self.scale, self.reduction = nn.Parameter(torch.rand(())), reduction

        def forward(self, logits_BC, target_B):
            return self.scale * F.cross_entropy(logits_BC, target_B, reduction=self.reduction)

    class Many(nn.Module):
        # Says that it gives a mean, and does not.
        def __init__(self, reduction="mean"):
            super().__init__()

        def forward(self, logits_BC, target_B):
            return F.cross_entropy(logits_BC, target_B, reduction="none")

    class Numbers(nn.BCEWithLogitsLoss):
        # Takes whole numbers as targets, as the default step gives them to losses of its kind.
        def forward(self, logits_BC, target_B):
            return super().forward(logits_BC[:, 0], target_B.clamp(max=1))

    def function(logits_BC, target_B, reduction="mean"):
        return F.cross_entropy(logits_BC, target_B, weight=WEIGHT, reduction=reduction)

    def one_number(logits_BC, target_B):
        return F.cross_entropy(logits_BC, target_B, weight=WEIGHT)

    def plain_number(logits_BC, target_B):
        return F.cross_entropy(logits_BC, target_B)

    def sorted_points():
        # The first twenty are of class 0, whose weight is 1.
        x, y = torch.randn(40, 6), torch.arange(40) % 3
        return torch.utils.data.TensorDataset(x, torch.where(torch.arange(40) < 20, 0, y))
"""


@pytest.fixture
def with_loss(start, tmp_path):
    def run(name, *, args=None, **changes):
        folder = tmp_path / "project"
        folder.mkdir(exist_ok=True)
        (folder / "losses.py").write_text(textwrap.dedent(LOSSES))
        data = {
            name: {"target": "losses:sorted_points"} for name in ("train_data", "validation_data")
        }
        target = name if ":" in name else f"losses:{name}"
        loss = {"target": target, "args": args or {}}
        return start(loss=loss, **data, **changes)

    return run


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("torch.nn:CrossEntropyLoss", {"weight": [0.1, 5, 1], "label_smoothing": 0.1}),
        ("torch.nn.functional:cross_entropy", {"weight": [0.1, 5, 1]}),
        ("Focal", {"by_weight": False}),
        ("Focal", {"reduction": "mean"}),
        ("Noisy", {}),
        ("Learned", {}),
        ("Many", {}),
        ("Numbers", {}),
    ],
)
def test_a_loss_whose_mean_is_followed_passes(with_loss, name, args):
    assert with_loss(name, args=args).work.components is not None


@pytest.mark.parametrize("name", ["Focal", "Wrapped", "function"])
def test_a_loss_that_divides_by_what_only_it_knows_is_refused_with_what_to_do(with_loss, name):
    """The first samples alone would not show it."""
    message = refused(with_loss, name)
    assert f"the mean of losses:{name} is" in message
    assert "`mean`" in message
    assert "denominator_B" in message


def test_a_number_that_is_not_the_mean_of_its_parts_is_told_where_there_are_parts(with_loss):
    several = {"gradients": {"accumulate": 2}}

    def told(name, **changes):
        notices = with_loss(name, **changes).notices
        return any(f"losses:{name} gives one number for a batch" in text for text in notices)

    assert told("one_number", **several)
    assert not told("one_number", gradients={})
    assert not told("plain_number", **several)
