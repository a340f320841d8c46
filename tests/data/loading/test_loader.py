"""Batches: the same order and numbers with any number of workers, and no worker left behind."""

import multiprocessing
import random
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.numbers.drawing_data import COUNT, Drawing, Steady, batches, few_processors, plain
from support.runs.machine import wait_for
from torch.utils.data import Dataset, Subset, TensorDataset, default_collate

from epochal.data.errors import ConfigError, DataError, TrainingFailed
from epochal.data.loading import loader
from epochal.data.loading.items import ItemSource
from epochal.data.loading.loader import train_batches, validation_batches
from epochal.data.loading.order import epoch_order, micro_batches
from epochal.data.loading.readers import Readers
from epochal.data.traces import users_trace

# More workers than processors are asked for on purpose.


class Named(Drawing):
    """Dicts that bring their own ids."""

    def __getitem__(self, position):
        image, label = super().__getitem__(position)
        return {"image": image, "label": label, "sample_id": 100 - position}


class Whole(Drawing):
    """A batch at a time."""

    def __getitems__(self, positions):
        return [self[position] for position in positions]


class SteadyWhole(Steady):
    def __getitems__(self, positions):
        return [self[position] for position in positions]


class SteadyNamed(Steady):
    """Dicts, with images that are worth a copy by NumPy."""

    def __getitem__(self, position):
        numbers, label = super().__getitem__(position)
        image = torch.arange(3 * 80 * 80).reshape(3, 80, 80) % 251 + position
        return {"image": image.to(torch.uint8), "numbers": numbers, "label": label}


def tensors(count=COUNT):
    return TensorDataset(torch.arange(count * 6.0).reshape(count, 2, 3), torch.arange(count) % 3)


def drawn_by_id(found):
    """Sample id → the numbers that its item drew."""
    return {
        sample: row[1:]
        for batch in found
        for sample, row in zip(batch.sample_ids_B.tolist(), batch.data[0].tolist(), strict=True)
    }


def test_a_batch_has_data_ids_window_and_index_of_its_micro_step():
    dataset, ids = tensors(), np.arange(COUNT)
    order = epoch_order(seed=7, epoch=0, sample_ids_N=ids)
    plan = micro_batches(order, batch_size=4, accumulate=2)
    found = list(batches(dataset))
    assert [batch.index for batch in found] == list(range(6))
    for batch in found:
        rows = torch.from_numpy(order[batch.index * 4 : batch.index * 4 + 4])
        assert type(batch.data) is tuple
        assert batch.data[0].equal(dataset.tensors[0][rows])
        assert batch.data[1].equal(dataset.tensors[1][rows])
        assert batch.sample_ids_B.tolist() == rows.tolist()
        assert batch.window == plan.window(batch.index)
        assert batch.weights_B is None
    assert found[-1].num_samples == 3


def test_tensors_items_and_subsets_of_the_same_data_give_the_same_batches():
    dataset = tensors()

    class ByItem(Dataset):
        def __len__(self):
            return len(dataset)

        def __getitem__(self, position):
            return dataset[position]

    expected = [plain(batch) for batch in batches(dataset)]
    turned = Subset(TensorDataset(*(one.flip(0) for one in dataset.tensors)), range(COUNT)[::-1])
    for other in (ByItem(), Subset(ByItem(), range(COUNT)), Subset(dataset, range(COUNT)), turned):
        assert [plain(batch) for batch in batches(other)] == expected


def test_a_subclass_of_tensor_dataset_gives_its_own_items():
    class Doubled(TensorDataset):
        def __getitem__(self, position):
            image, label = super().__getitem__(position)
            return 2 * image, label

    one, other = next(batches(tensors())), next(batches(Doubled(*tensors().tensors)))
    assert other.data[0].equal(2 * one.data[0])


def test_dicts_and_longer_tuples_keep_their_form():
    class Triple(Drawing):
        def __getitem__(self, position):
            return (*super().__getitem__(position), f"name {position}")

    named = next(batches(Named()))
    assert set(named.data) == {"image", "label", "sample_id"}
    triple = next(batches(Triple())).data
    assert type(triple) is tuple
    assert list(triple[2]) == [f"name {int(row[0])}" for row in triple[0].tolist()]


@few_processors
@pytest.mark.parametrize(
    "dataset", [Drawing(), Named(), Whole()], ids=lambda one: type(one).__name__
)
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_batches_are_the_same_with_any_number_of_workers(dataset, workers):
    expected = [plain(batch) for batch in batches(dataset)]
    assert [plain(batch) for batch in batches(dataset, workers=workers)] == expected
    assert multiprocessing.active_children() == []


@few_processors
@pytest.mark.parametrize(
    "dataset",
    [Steady(), SteadyWhole(), SteadyNamed(), Subset(Steady(2 * COUNT), range(COUNT))],
    ids=["items", "whole", "dicts", "subset"],
)
def test_batches_are_the_same_with_any_number_of_threads(dataset):
    expected = [plain(batch) for batch in batches(dataset)]
    assert [plain(batch) for batch in batches(dataset, workers=2)] == expected
    for threads in (1, 2, 3, 4):
        found = batches(dataset, threads=threads, prefetch=threads)
        assert [plain(batch) for batch in found] == expected
        for start in (1, 5, 6):
            rest = [plain(batch) for batch in batches(dataset, start=start, threads=threads)]
            assert rest == expected[start:]


@few_processors
@settings(max_examples=12, deadline=None)
@given(
    count=st.integers(1, 40),
    batch_size=st.integers(1, 7),
    accumulate=st.integers(1, 5),
    processes=st.integers(1, 4),
    update=st.integers(0, 3),
    threads=st.integers(0, 4),
)
def test_processes_and_threads_share_out_the_same_batches_from_any_update_on(
    count, batch_size, accumulate, processes, update, threads
):
    dataset, ids = Steady(count), np.arange(count)
    plan = micro_batches(
        epoch_order(seed=7, epoch=0, sample_ids_N=ids), batch_size=batch_size, accumulate=accumulate
    )
    start = min(update * accumulate, plan.num_micro_steps)
    options = {"sample_ids_N": ids, "seed": 7, "epoch": 0, "start": start}
    expected = {batch.index: plain(batch)[:2] for batch in train_batches(dataset, plan, **options)}
    found = {}
    for rank in range(processes):

        def own(count, rank=rank):
            return range(count * rank // processes, count * (rank + 1) // processes)

        batches = list(
            train_batches(dataset, plan, own=own, readers=Readers(threads=threads), **options)
        )
        steps = loader._OwnSteps(plan, start, own)
        assert len(steps) == len(list(steps)) == sum(batch.num_samples > 0 for batch in batches)
        found |= {batch.index: plain(batch)[:2] for batch in batches if batch.num_samples}
    assert found == expected


def test_the_first_batch_of_a_shared_epoch_waits_for_no_list_of_all():
    asked = []

    def own(count):
        asked.append(count)
        return range(1, count)

    plan = micro_batches(np.zeros(400_000, dtype=np.int64), batch_size=1, accumulate=2)
    found = train_batches(
        Steady(1),
        plan,
        sample_ids_N=np.arange(1),
        seed=7,
        epoch=0,
        own=own,
        readers=Readers(threads=2),
    )
    next(found)
    found.close()
    assert len(asked) < 20


def test_no_more_is_read_ahead_than_is_asked_for():
    read = []

    class Noting(Steady):
        def __getitem__(self, position):
            read.append(position)
            return super().__getitem__(position)

    found = batches(Noting(100), batch_size=1, threads=2, prefetch=3)
    for taken in range(1, 9):
        next(found)
        wait_for(lambda ahead=taken + 2 * 3: len(read) >= ahead)
        assert len(read) <= taken + 2 * 3
    found.close()


@few_processors
@pytest.mark.parametrize("readers", [{}, {"workers": 2}, {"threads": 2}], ids=str)
@pytest.mark.parametrize("whose", ["torch", "NumPy", "random"])
def test_a_set_for_threads_that_draws_from_a_global_generator_is_refused(whose, readers):
    draw = {"torch": lambda: torch.rand(()), "NumPy": np.random.random, "random": random.random}

    class Careless(Steady):
        def __getitem__(self, position):
            draw[whose]()
            return super().__getitem__(position)

    with pytest.raises(TrainingFailed, match=f"thread_safe = True, .* generator of {whose};"):
        list(batches(Careless(), **readers))


def test_what_another_thread_draws_meanwhile_is_not_held_against_a_set_for_threads():
    drawn = []

    class Unlucky(Steady):
        def __getitem__(self, position):
            if not drawn:
                drawn.append(random.random())  # as Prefect's threads do, in their process
            return super().__getitem__(position)

    expected = [plain(batch) for batch in batches(Steady())]
    assert [plain(batch) for batch in batches(Unlucky())] == expected


def test_threads_are_refused_to_a_set_that_does_not_say_that_they_may_read_it():
    with pytest.raises(ConfigError, match="set loader.workers"):
        next(batches(Drawing(), threads=2))


@settings(max_examples=30, deadline=None)
@given(
    dtype=st.sampled_from([torch.uint8, torch.float32, torch.float64, torch.int64, torch.bool]),
    shape=st.sampled_from([(), (5,), (3, 90, 70), (2, 130, 129)]),
    count=st.integers(1, 4),
    turned=st.booleans(),
)
def test_items_are_put_into_one_batch_as_torch_does_it(dtype, shape, count, turned):
    items = [torch.randn(shape).mul(50).to(dtype) for _ in range(count)]
    if turned and len(shape) > 1:
        items = [item.transpose(0, -1) for item in items]

    class Given(Steady):
        def __getitem__(self, position):
            return {"a": items[position], "b": (items[position].numpy(), position)}

    plan = micro_batches(np.arange(count), batch_size=count)
    dataset, ids = Given(count), np.arange(count)
    found = ItemSource(dataset, plan, sample_ids_N=ids, stream=("train",))(0)
    expected = default_collate([dataset[position] for position in range(count)])
    assert found["a"].equal(expected["a"])
    assert found["a"].dtype is expected["a"].dtype
    assert found["a"].is_contiguous()
    assert found["b"][0].equal(expected["b"][0])
    assert found["b"][1].equal(expected["b"][1])


@few_processors
@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize(
    "dataset", [tensors(), Drawing(), Whole()], ids=["tensors", "items", "whole"]
)
def test_starting_at_any_micro_step_gives_the_rest_of_the_epoch(dataset, workers):
    whole = [plain(batch) for batch in batches(dataset)]
    for start in (1, 4, 6):
        rest = [plain(batch) for batch in batches(dataset, start=start, workers=workers)]
        assert rest == whole[start:]


def test_what_an_item_draws_depends_on_seed_epoch_and_id_alone():
    ids = 5 * np.arange(COUNT) + 1000
    expected = drawn_by_id(batches(Drawing(), ids=ids))
    assert drawn_by_id(batches(Drawing(), ids=ids, batch_size=7)) == expected
    other_epoch = drawn_by_id(batches(Drawing(), ids=ids, epoch=1))
    assert not any(expected[one] == other_epoch[one] for one in expected)
    values = np.array(list(expected.values()))
    assert len(np.unique(values)) == values.size
    turned = drawn_by_id(batches(Subset(Drawing(), range(COUNT)[::-1]), ids=ids[::-1].copy()))
    assert turned == expected


def test_a_sample_that_comes_again_draws_anew():
    ids = np.arange(3)
    once = micro_batches(ids, batch_size=3)
    plan = replace(
        micro_batches(np.array([0, 1, 0, 2, 0, 1]), batch_size=2),
        repeats_K=np.array([0, 0, 1, 0, 2, 1]),
    )
    options = {"sample_ids_N": ids, "seed": 7, "epoch": 0}
    alone = drawn_by_id(train_batches(Drawing(3), once, **options))
    rows = [
        (int(row[0]), tuple(row[1:]))
        for batch in train_batches(Drawing(3), plan, **options)
        for row in batch.data[0].tolist()
    ]
    assert len({drawn for _, drawn in rows}) == 6
    assert {sample: list(drawn) for sample, drawn in reversed(rows)} == alone


@few_processors
@pytest.mark.parametrize(
    ("dataset", "readers"),
    [
        (dataset, {"workers": workers})
        for dataset in (tensors(), Drawing(), Whole())
        for workers in (0, 2)
    ]
    + [(Steady(), {"threads": 2}), (Steady(), {})],
    ids=lambda one: str(one) if isinstance(one, dict) else type(one).__name__,
)
def test_the_generators_of_this_process_stay_as_they_are(dataset, readers):
    def draw():
        return torch.rand(3).tolist(), np.random.random(3).tolist(), random.random()

    def seed():
        torch.manual_seed(5)
        np.random.seed(5)
        random.seed(5)

    seed()
    expected = [draw() for _ in range(7)]
    seed()
    first = draw()
    assert [first, *(draw() for _ in batches(dataset, **readers))] == expected


def test_weights_come_along_only_where_one_is_not_one():
    weights = np.ones(COUNT, dtype=np.float32)
    assert next(batches(tensors(), weights_N=weights)).weights_B is None
    weights[3] = 2.5
    for batch in batches(tensors(), weights_N=weights):
        assert batch.weights_B.dtype == torch.float32
        assert batch.weights_B.tolist() == weights[batch.sample_ids_B].tolist()


def test_a_weight_of_a_sample_that_is_not_kept_plays_no_part():
    weights = np.ones(4, dtype=np.float32)
    weights[3] = 0
    plan = micro_batches(np.array([2, 0, 1]), batch_size=2)
    found = train_batches(
        tensors(4), plan, sample_ids_N=np.arange(4), weights_N=weights, seed=0, epoch=0
    )
    assert [batch.weights_B for batch in found] == [None, None]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(1, 40))
def test_validation_sees_every_sample_once_in_order(count, batch_size):
    found = list(
        validation_batches(tensors(count), batch_size=batch_size, sample_ids_N=np.arange(count))
    )
    assert np.concatenate([batch.sample_ids_B for batch in found]).tolist() == list(range(count))
    assert all(batch.window.last for batch in found)
    assert [batch.window.num_samples for batch in found] == [batch.num_samples for batch in found]


def test_validation_takes_the_first_samples_if_it_is_given_fewer_ids():
    found = list(validation_batches(Named(), batch_size=2, sample_ids_N=np.array([100, 99])))
    assert [batch.data["sample_id"].tolist() for batch in found] == [[100, 99]]


@few_processors
def test_validation_draws_the_same_numbers_each_time_and_with_workers():
    ids = np.arange(COUNT)
    runs = [
        [
            plain(batch)
            for batch in validation_batches(
                Drawing(), batch_size=5, sample_ids_N=ids, readers=Readers(workers=workers)
            )
        ]
        for workers in (0, 0, 3)
    ]
    assert runs[0] == runs[1] == runs[2]


class Broken(Steady):
    def __getitem__(self, position):
        if position == 9:
            raise OSError("truncated image")
        return super().__getitem__(position)


class Uneven(Steady):
    def __getitem__(self, position):
        return torch.zeros(position), 0


class Short(SteadyWhole):
    def __getitems__(self, positions):
        return super().__getitems__(positions)[1:]


@few_processors
@pytest.mark.parametrize("readers", [{}, {"workers": 2}, {"threads": 2}], ids=str)
@pytest.mark.parametrize(
    ("dataset", "texts"),
    [
        (Broken(), ["sample 1009 ", "read", "OSError: truncated image"]),
        (Uneven(), ["samples", "put into one batch", "RuntimeError"]),
        (Short(), ["3 items for 4 positions"]),
    ],
    ids=["raises", "shapes", "too few"],
)
def test_an_item_that_cannot_be_used_is_named_the_same_with_and_without_workers(
    dataset, texts, readers
):
    with pytest.raises(TrainingFailed) as caught:
        list(batches(dataset, ids=np.arange(COUNT) + 1000, **readers))
    assert all(text in str(caught.value) for text in texts)
    assert "Traceback" not in str(caught.value)
    assert multiprocessing.active_children() == []
    if isinstance(dataset, Broken):
        trace = users_trace(caught.value)
        assert "in __getitem__" in trace
        assert 'raise OSError("truncated image")' in trace
        assert "threads.py" not in trace


def test_an_error_of_ours_is_passed_on():
    class Refusing(Drawing):
        def __getitem__(self, position):
            raise DataError("item without a label")

    with pytest.raises(DataError, match="without a label"):
        list(batches(Refusing()))


def test_tensors_cost_at_most_three_times_direct_indexing():
    count = 8192
    dataset = TensorDataset(torch.randn(count, 64), torch.randint(0, 10, (count,)))
    order = torch.randperm(count)

    def direct():
        for start in range(0, count, 32):
            index = order[start : start + 32]
            _ = dataset.tensors[0][index], dataset.tensors[1][index]

    def ours():
        for _ in batches(dataset, batch_size=32):
            pass

    assert best_of(ours) < 3 * best_of(direct)


def best_of(function, rounds=7):
    spent = []
    for _ in range(rounds):
        begun = time.process_time()
        function()
        spent.append(time.process_time() - begun)
    return min(spent)
