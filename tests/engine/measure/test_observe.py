"""What a step's logits tell of its samples, however many of them are looked at together."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal.engine.measure.observe import FEW_CLASSES, LANES, Observer
from epochal.engine.model.step import StepOutput

CLASSES = st.sampled_from([2, 3, 10, 31, FEW_CLASSES, FEW_CLASSES + 1])


def observed(logits_NC, label_N, sizes, *, flushed=()):
    """Columns of batches of these sizes; flushed: after which of them the columns are made."""
    observer = Observer()
    ids_N = np.arange(len(label_N), dtype=np.int64)
    start = 0
    for index, size in enumerate(sizes):
        rows = slice(start, start + size)
        loss_B = torch.nn.functional.cross_entropy(
            logits_NC[rows], label_N[rows], reduction="none", ignore_index=-100
        )
        observer.take(ids_N[rows], StepOutput(loss_B, logits_NC[rows]), label_N[rows])
        if index in flushed:
            observer.flush()
        start += size
    return observer.columns()


def drawn(classes, rows, seed, *, ignored=0.1):
    draw = torch.Generator().manual_seed(seed)
    label_N = torch.randint(0, classes, (rows,), generator=draw)
    label_N[torch.rand(rows, generator=draw) < ignored] = -100
    return torch.randn(rows, classes, generator=draw) * 4, label_N


@settings(deadline=None, max_examples=40)
@given(
    CLASSES,
    st.lists(st.integers(1, 2 * LANES), min_size=1, max_size=12),
    st.sets(st.integers(0, 11)),
    st.integers(0, 99),
)
def test_numbers_of_a_sample_do_not_depend_on_who_waits_beside_it(classes, sizes, flushed, seed):
    logits_NC, label_N = drawn(classes, sum(sizes), seed)
    together = observed(logits_NC, label_N, [sum(sizes)])
    apart = observed(logits_NC, label_N, sizes, flushed=flushed)
    for name, column in together.items():
        if name != "loss":  # made by the step, batch by batch
            np.testing.assert_array_equal(apart[name], column, err_msg=name)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("classes", [2, 10, FEW_CLASSES])
def test_nor_on_the_number_of_threads(classes, threads):
    logits_NC, label_N = drawn(classes, 9 * LANES * LANES + 5, seed=7)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = observed(logits_NC, label_N, [len(label_N)])
    finally:
        torch.set_num_threads(before)
    rows = slice(1000, 1037)
    few = observed(logits_NC[rows], label_N[rows], [37])
    for name in ("confidence", "p_true", "margin", "el2n", "correct", "label"):
        np.testing.assert_array_equal(found[name][rows], few[name], err_msg=name)


@pytest.mark.parametrize("classes", [2, 10, FEW_CLASSES, FEW_CLASSES + 1, 300])
def test_numbers_are_those_of_their_definitions(classes):
    logits_NC, label_N = drawn(classes, 203, seed=classes)
    logits_NC[5] = torch.inf  # a diverged model: not a number, and no error
    logits_NC[6] = 0.0  # of equals the first class is the prediction
    found = observed(logits_NC, label_N, [100, 103])

    known_N = (label_N >= 0).numpy()
    exact_NC = logits_NC.double()
    p_NC = exact_NC.softmax(1)
    row_N, index_N = torch.arange(len(label_N)), label_N.clamp(min=0)
    others_NC = exact_NC.clone()
    others_NC[row_N, index_N] = -torch.inf
    onehot_NC = torch.nn.functional.one_hot(index_N, classes)
    expected = {
        "p_true": p_NC[row_N, index_N],
        "margin": exact_NC[row_N, index_N] - others_NC.max(1).values,
        "el2n": (p_NC - onehot_NC).norm(dim=1),
    }
    for name, column in expected.items():
        values = np.where(known_N, column.numpy(), np.nan)
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(found["confidence"], p_NC.max(1).values, rtol=1e-5)
    right_N = (logits_NC.softmax(1).argmax(1) == label_N).numpy() & known_N
    np.testing.assert_array_equal(found["correct"], right_N)
    np.testing.assert_array_equal(found["label"], np.where(known_N, label_N, -1))
