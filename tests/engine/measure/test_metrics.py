"""Accuracy among the k largest logits, over any dimensions: each counted element counts alike."""

import math

import pytest
import torch

from epochal.data.errors import TargetError
from epochal.engine.config.numerics import MetricsConfig
from epochal.engine.measure.metrics import TopKAccuracy, build_metrics


def accuracy(k, *batches):
    metric = TopKAccuracy("accuracy", k)
    for outputs, target in batches:
        metric.update(outputs, target)
    return metric.compute()


def logits_of(*ranked, classes=4):
    """Logits of shape (B, C) whose classes come in these orders, the largest first."""
    found = torch.zeros(len(ranked), classes)
    for row, order in enumerate(ranked):
        for place, label in enumerate(order):
            found[row, label] = -float(place)
    return found


def test_the_share_is_that_of_the_elements_with_a_class_the_first_class_among_them():
    outputs = logits_of([0, 1, 2, 3], [1, 0, 2, 3], [2, 3, 0, 1], [3, 0, 1, 2])
    labels = torch.tensor([0, 0, 2, -100])
    assert accuracy(1, (outputs, labels)) == 2 / 3
    assert accuracy(2, (outputs, labels)) == 1
    assert accuracy(1, (outputs[:1], labels[:1]), (outputs[1:], labels[1:])) == 2 / 3


@pytest.mark.parametrize("k", [1, 5])
def test_positions_count_one_by_one(k):
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(3, 7, 4, generator=generator)
    labels = torch.randint(-1, 7, (3, 4), generator=generator)
    rows, flat = outputs.movedim(1, -1).reshape(-1, 7), labels.reshape(-1)
    right = [int(label) in row.topk(k).indices for row, label in zip(rows, flat, strict=True)]
    counted = int((flat >= 0).sum())
    assert accuracy(k, (outputs, labels)) == pytest.approx(sum(right) / counted)


def test_where_nothing_counts_there_is_no_accuracy():
    assert math.isnan(accuracy(1))
    assert math.isnan(accuracy(1, (torch.zeros(2, 3), torch.tensor([-1, -1]))))


class Fixed:
    """A metric that gives what it is told to."""

    def __init__(self, value):
        self.value = value

    def update(self, outputs, target):
        """Nothing."""

    def compute(self):
        return self.value


def computed(**values):
    config = MetricsConfig(
        validation=tuple({"name": name, "target": "x:y", "args": {}} for name in values)
    )
    metrics = build_metrics(config, lambda target: Fixed(values[target.name]))
    return metrics.values(metrics.fresh(), loss=0.5)


def test_the_parts_of_a_metric_keep_their_own_names_whatever_is_in_them():
    found = computed(score={"<10": 0.25, ">10": 0.75, "a b/ç": 1}, recall={"@5": 0.1, "_5": 0.2})
    assert found == {
        "score_<10": 0.25,
        "score_>10": 0.75,
        "score_a b/ç": 1.0,
        "recall_@5": 0.1,
        "recall__5": 0.2,
        "loss": 0.5,
    }


@pytest.mark.parametrize(
    "values",
    [
        {"recall": {"5": 0.1}, "recall_5": 0.2},
        {"recall": {5: 0.1, "5": 0.2}},
        {"recall": {"a": {"b": 0.1}, "a_b": 0.2}},
    ],
)
def test_two_numbers_of_one_name_are_refused(values):
    with pytest.raises(TargetError, match="two numbers are called 'recall_"):
        computed(**values)


def test_a_metric_is_not_called_as_the_best_epochs_number_is():
    with pytest.raises(ValueError, match="'epoch' is what the number of the best epoch is called"):
        computed(epoch=1)
