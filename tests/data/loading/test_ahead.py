"""What a data set is told of the blocks that are read next."""

import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.numbers.drawing_data import Steady, batches, few_processors

from epochal.data.loading.ahead import telling
from epochal.data.loading.order import micro_batches


class Blocks(Steady):
    """Notes what it is told and what is read, and each item has what was told before."""

    def __init__(self, count, size):
        super().__init__(count)
        self.blocks = np.append(np.arange(0, count, size), count)
        self.told = []
        self.size = size

    def will_read(self, blocks):
        self.told.append((os.getpid(), list(blocks)))

    def __getitem__(self, position):
        wanted = self.told[-1]
        assert wanted[0] == os.getpid()
        known = set().union(*(blocks for _, blocks in self.told))
        assert position // self.size in known
        return torch.tensor(position), 0


@few_processors
@pytest.mark.parametrize("readers", [{}, {"workers": 3}, {"threads": 3}], ids=str)
def test_every_block_is_told_in_the_process_that_reads_before_it_is_read(readers):
    found = batches(Blocks(400, 5), batch_size=3, **readers)
    assert sum(batch.num_samples for batch in found) == 400


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 300),
    size=st.integers(1, 40),
    batch_size=st.integers(1, 20),
    start=st.integers(0, 5),
    turn=st.integers(1, 3),
)
def test_blocks_are_told_in_the_order_of_their_first_rows_each_once(
    count, size, batch_size, start, turn
):
    dataset = Blocks(count, size)
    order = np.random.default_rng(count).permutation(count)
    plan = micro_batches(order, batch_size=batch_size)
    steps = range(min(start, plan.num_micro_steps), plan.num_micro_steps, turn)
    tell = telling(dataset, plan, steps)
    for step in steps:
        tell(step)
        _, last = dataset.told[-1]
        assert len(set(last)) == len(last)
        assert {*(plan.slice(step) // size).tolist()} <= {*last}
    rows = [row for step in steps for row in plan.slice(step).tolist()]
    if steps and len(dataset.blocks) <= 33:
        assert dataset.told[0][1] == list(dict.fromkeys(row // size for row in rows))
        assert len(dataset.told) == 1


def test_a_long_epoch_is_looked_at_a_part_at_a_time():
    dataset = Blocks(100_000, 10)
    plan = micro_batches(np.arange(100_000), batch_size=10)
    tell = telling(dataset, plan, range(plan.num_micro_steps))
    tell(0)
    assert [blocks for _, blocks in dataset.told] == [list(range(32))]
    tell(1)
    assert dataset.told[-1][1] == list(range(1, 33))
