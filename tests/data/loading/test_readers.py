"""Who reads the items: measured, and what cannot be is refused."""

import multiprocessing
import os
import threading

import numpy as np
import pytest
import torch
from support.numbers.drawing_data import Drawing, Steady, few_processors
from torch.utils.data import Subset, TensorDataset

from epochal.data.errors import ConfigError, TrainingFailed
from epochal.data.loading import readers as readers_module
from epochal.data.loading.readers import (
    HERE,
    Readers,
    check_threads,
    measured_readers,
    quickest,
)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(readers_module, "_MEASURED_S", 0.2)
    monkeypatch.setattr(readers_module, "_processors", lambda: 4)


def measured(dataset, **given):
    rows = np.arange(len(dataset))
    return measured_readers(dataset, rows, sample_ids_N=rows, batch_size=8, **given)


def ways(found):
    return [tried for tried, _ in found.rates]


THREADS, WORKERS = Readers(threads=4), Readers(workers=4)


@pytest.mark.parametrize(
    ("rates", "ahead", "expected"),
    [
        ([100, 300, 250], False, THREADS),
        ([100, 300, 400], False, WORKERS),
        ([100, 300, 310], False, THREADS),  # as quick by less
        ([100, 95, 105], False, HERE),
        ([100, 95, 40], True, THREADS),  # on a GPU what reads beside is better
        ([100, 40, 95], True, WORKERS),
        ([100, 2, 3], True, HERE),
    ],
)
def test_the_quickest_reads_and_of_two_alike_the_one_that_needs_less(rates, ahead, expected):
    ways = [HERE, THREADS, WORKERS]
    assert quickest(list(zip(ways, rates, strict=True)), ahead=ahead) == expected


@few_processors
def test_all_ways_are_tried_that_there_may_be():
    found = measured(Steady(2000))
    assert ways(found) == [HERE, THREADS, WORKERS]
    assert found.readers == quickest(found.rates)
    assert ways(measured(Steady(200), processes=2, threads=False)) == [HERE, Readers(workers=2)]
    assert all(rate > 0 for _, rate in found.rates)
    assert found.words.startswith(f"{found.readers.words} (samples a second: ")
    assert multiprocessing.active_children() == []


def test_tensors_are_not_measured():
    tensors = TensorDataset(torch.zeros(8, 2), torch.zeros(8))
    assert measured(tensors) is None
    assert measured(Subset(tensors, [1, 2])) is None


@few_processors
def test_what_is_measured_is_not_read_in_this_process():
    here = os.getpid()

    class Elsewhere(Steady):
        def __getitem__(self, position):
            assert os.getpid() != here
            return super().__getitem__(position)

    torch.manual_seed(3)
    before = torch.default_generator.get_state()
    assert measured(Elsewhere(200)) is not None
    assert torch.default_generator.get_state().equal(before)


@few_processors
@pytest.mark.parametrize("count", [1, 2, 9])
def test_few_samples_are_measured_too(count):
    assert measured(Steady(count)) is not None


@few_processors
def test_slow_items_are_measured_in_smaller_batches():
    class Slow(Steady):
        def __getitem__(self, position):
            threading.Event().wait(0.1)
            return super().__getitem__(position)

    rows = np.arange(1000)
    source = readers_module._Measure(Slow(1000), rows, rows, None)
    assert source.seconds_of_one() > 0.05
    measured_readers(Slow(1000), rows, sample_ids_N=rows, batch_size=10**6, threads=False)


@few_processors
def test_an_item_that_cannot_be_read_is_named():
    class Broken(Steady):
        def __getitem__(self, position):
            raise OSError("truncated image")

    with pytest.raises(TrainingFailed, match="sample 0 of the data set could not be read"):
        measured(Broken(200))


def test_threads_need_a_set_that_says_that_they_may_read_it():
    check_threads(Steady(), named="train_data")
    check_threads(Subset(Steady(), [0]), named="train_data")
    check_threads(TensorDataset(torch.zeros(8, 2)), named="train_data")
    with pytest.raises(ConfigError, match="loader.threads: train_data does not say"):
        check_threads(Drawing(), named="train_data")
