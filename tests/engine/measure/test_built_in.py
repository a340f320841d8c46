"""The built-in metrics: what scikit-learn and torchmetrics say, whatever the batch size."""

import math

import pytest
import sklearn.metrics as reference
import torch
import torchmetrics.regression
import torchmetrics.text
from hypothesis import given, settings
from hypothesis import strategies as st
from support.runs.bare_run import BareRun
from support.runs.project import Project

from epochal.data.errors import TargetError
from epochal.engine.config.numerics import BUILT_IN_METRICS, MetricsConfig
from epochal.engine.measure.built_in import make
from epochal.tasks.runs.summary import metric_values

CLASSES, COUNT = 4, 61
OF_CLASSES = (
    "auroc", "average_precision", "f1", "precision", "recall", "balanced_accuracy",
    "calibration_error", "perplexity",
)  # fmt: skip


def logits(count=COUNT, classes=CLASSES, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    noise = torch.randn(count, classes, generator=generator)
    return (noise + torch.eye(classes)[labels]) * scale, labels


def measured(name, outputs, target, batch_size=7):
    metric = make(name)
    for low in range(0, len(target), batch_size):
        metric.update(outputs[low : low + batch_size], target[low : low + batch_size])
    return metric.compute()


def by_sklearn(name, outputs, labels):
    p, y, found = outputs.double().softmax(1), labels.numpy(), outputs.argmax(1).numpy()
    onehot = torch.eye(CLASSES)[labels]
    return {
        "auroc": lambda: reference.roc_auc_score(y, p, multi_class="ovr", average="macro"),
        "average_precision": lambda: reference.average_precision_score(onehot, p),
        "f1": lambda: reference.f1_score(y, found, average="macro"),
        "precision": lambda: reference.precision_score(y, found, average="macro"),
        "recall": lambda: reference.recall_score(y, found, average="macro"),
        "balanced_accuracy": lambda: reference.balanced_accuracy_score(y, found),
        "perplexity": lambda: math.exp(reference.log_loss(y, p)),
        "calibration_error": lambda: calibration_by_hand(p, torch.as_tensor(found == y)),
    }[name]()


def calibration_by_hand(p, right):
    confidence = p.max(1).values
    place = (confidence * 15).long().clamp(max=14)
    gaps = [(confidence[place == one].sum() - right[place == one].sum()).abs() for one in range(15)]
    return float(sum(gaps) / len(p))


@pytest.mark.parametrize("name", OF_CLASSES)
def test_each_is_what_scikit_learn_says(name):
    outputs, labels = logits()
    assert measured(name, outputs, labels) == pytest.approx(
        by_sklearn(name, outputs, labels), rel=1e-5
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [("f1", 0.6), ("precision", 2 / 3), ("recall", 5 / 9), ("balanced_accuracy", 5 / 6)],
)
def test_a_class_that_is_only_predicted_counts_but_for_balanced_accuracy(name, expected):
    outputs = torch.eye(3)[[0, 1, 2, 0]]  # of class 0 one is taken for class 2, which has none
    assert measured(name, outputs, torch.tensor([0, 1, 0, 0])) == pytest.approx(expected)


@pytest.mark.parametrize("name", [*OF_CLASSES, "confusion_matrix"])
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_the_batch_size_changes_nothing(name, scale):
    # Small logits lie in [0, 1] now and then, where torchmetrics takes them for probabilities.
    outputs, labels = logits(scale=scale)
    outputs = outputs.abs() if scale == 0.1 else outputs
    whole = measured(name, outputs, labels, batch_size=COUNT)
    for batch_size in (1, 7):
        assert measured(name, outputs, labels, batch_size) == pytest.approx(whole, rel=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["mse", "mae", "r2"]), st.integers(2, 40), st.integers(1, 41))
def test_regression_is_what_torchmetrics_says_whatever_the_batch_size(name, count, batch_size):
    generator = torch.Generator().manual_seed(count)
    target = torch.randn(count, 3, generator=generator).double()
    outputs = target + torch.randn(count, 3, generator=generator).double()
    kinds = {"mse": "MeanSquaredError", "mae": "MeanAbsoluteError", "r2": "R2Score"}
    expected = getattr(torchmetrics.regression, kinds[name])().double()
    expected.set_dtype(torch.float64)
    expected.update(outputs, target)
    found = measured(name, outputs, target, batch_size)
    assert found == pytest.approx(float(expected.compute()), rel=1e-6)


def test_r2_holds_for_small_numbers_far_from_zero():
    generator = torch.Generator().manual_seed(3)
    target = 1000 + 1e-4 * torch.randn(50, generator=generator).double()
    outputs = target + 1e-5 * torch.randn(50, generator=generator).double()
    expected = reference.r2_score(target, outputs)
    assert 0.9 < expected < 1
    assert measured("r2", outputs, target) == pytest.approx(expected, rel=1e-6)
    assert math.isnan(measured("r2", outputs, torch.ones(50).double()))


@pytest.mark.parametrize("shape", [(COUNT,), (COUNT, 1)])
def test_one_logit_measures_the_second_class(shape):
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(2, (COUNT,), generator=generator)
    logit = torch.randn(COUNT, generator=generator) + labels
    target = labels.reshape(shape).float()
    p = logit.double().sigmoid()
    for name, expected in (
        ("auroc", reference.roc_auc_score(labels, p)),
        ("average_precision", reference.average_precision_score(labels, p)),
        ("f1", reference.f1_score(labels, p > 0.5)),
        ("precision", reference.precision_score(labels, p > 0.5)),
        ("recall", reference.recall_score(labels, p > 0.5)),
        ("balanced_accuracy", reference.balanced_accuracy_score(labels, p > 0.5)),
    ):
        found = measured(name, logit.reshape(shape), target)
        assert found == pytest.approx(expected, rel=1e-5), name


def test_a_class_that_never_occurs_is_left_out():
    outputs, labels = logits()
    outputs, labels = outputs[labels != 3], labels[labels != 3]
    outputs[:, 3] = -50
    for name in ("auroc", "average_precision", "f1", "recall", "balanced_accuracy"):
        without = measured(name, outputs[:, :3], labels)
        assert measured(name, outputs, labels) == pytest.approx(without, rel=1e-5), name


def test_targets_below_zero_do_not_count():
    outputs, labels = logits()
    ignored = labels.clone()
    ignored[40:] = -100
    for name in OF_CLASSES:
        expected = measured(name, outputs[:40], labels[:40])
        assert measured(name, outputs, ignored) == pytest.approx(expected, rel=1e-6), name
        assert math.isnan(measured(name, outputs, torch.full_like(labels, -1))), name


def test_perplexity_of_sequences_is_that_of_all_their_elements():
    generator = torch.Generator().manual_seed(2)
    outputs = torch.randn(6, CLASSES, 5, generator=generator)
    target = torch.randint(CLASSES, (6, 5), generator=generator)
    expected = torchmetrics.text.Perplexity()
    expected.update(outputs.movedim(1, -1), target)
    assert measured("perplexity", outputs, target, 4) == pytest.approx(
        float(expected.compute()), rel=1e-5
    )


def test_a_confusion_matrix_gives_recalls_and_keeps_its_counts():
    outputs, labels = logits()
    metric = make("confusion_matrix")
    metric.update(outputs, labels)
    expected = reference.confusion_matrix(labels, outputs.argmax(1))
    assert metric.matrix() == expected.tolist()
    recalls = expected.diagonal() / expected.sum(1)
    assert metric.compute() == {
        f"recall_{label}": pytest.approx(value) for label, value in enumerate(recalls)
    }
    large = make("confusion_matrix")
    large.update(*logits(300, 101))
    assert large.matrix() is None
    assert len(large.compute()) == 101


@pytest.mark.parametrize(
    "name", sorted({*BUILT_IN_METRICS} - {"accuracy", "top5_accuracy", "loss"})
)
def test_what_does_not_fit_says_what_was_found(name):
    with pytest.raises(TargetError, match=rf"{name}.* found torch.float32 of shape"):
        make(name).update(torch.zeros(4, 3, 2), torch.zeros(4, 5, dtype=torch.int64))


@pytest.mark.parametrize("name", sorted({*BUILT_IN_METRICS} - {"confusion_matrix"}))
def test_each_has_its_direction(name):
    falling = {"loss", "mse", "mae", "perplexity", "calibration_error"}
    for prefix in ("", "ema/"):
        config = MetricsConfig.model_validate({"validation": [name], "best": f"{prefix}{name}"})
        assert config.best_direction == ("min" if name in falling else "max")


def test_a_matrix_is_never_the_best():
    config = MetricsConfig.model_validate({"validation": ["confusion_matrix", "f1"]})
    assert config.best_metric == "f1"
    with pytest.raises(ValueError, match="confusion_matrix' is no single number; there is f1"):
        MetricsConfig.model_validate(
            {"validation": ["confusion_matrix", "f1"], "best": "confusion_matrix"}
        )


def test_a_record_keeps_the_matrix_and_tables_for_people_leave_its_recalls_out(tmp_path, home):
    project = Project(tmp_path / "project", epochs=1, sampling={"policy": "none"})
    run = BareRun(project.config, metrics="{validation: [confusion_matrix, f1]}", ema="{}")()
    record = run.view.record_of(run.view.stage("validate", 0))
    assert set(record.values["matrices"]) == {"confusion_matrix", "ema/confusion_matrix"}
    assert sum(map(sum, record.values["matrices"]["confusion_matrix"])) == 90
    assert "confusion_matrix_recall_2" in record.values["metrics"]
    shown = metric_values(run.view.stage("validate", 0), record)
    assert list(shown) == ["f1", "loss", "ema/f1", "ema/loss"]
