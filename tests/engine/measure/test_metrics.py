"""Accuracy among the k largest logits, over any dimensions: each counted element counts alike."""

import math

import pytest
import torch

from epochal.engine.measure.metrics import TopKAccuracy


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
