"""Every built-in data set: the same batches, whoever reads them and wherever it begins."""

import numpy as np
import pytest
import torch
from support.images import encoded, picture, put_files
from support.numbers.drawing_data import few_processors
from support.stores.tar_files import write_shards

from epochal.data import datasets
from epochal.data.datasets.hugging_face import HuggingFaceRows
from epochal.data.loading.collate import pad
from epochal.data.loading.items import is_thread_safe
from epochal.data.loading.loader import train_batches, validation_batches
from epochal.data.loading.order import epoch_order, micro_batches
from epochal.data.loading.readers import Readers

BATCH, ACCUMULATE = 3, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPOCHAL_CACHE", str(root / "cache"))
        files = {f"class_{row % 3}/{row:02}.png": encoded(picture(row)) for row in range(25)}
        put_files(root / "images", files)
        rows = [{"bytes": data, "path": name} for name, data in files.items()]
        labels = [int(name[6]) for name in files]
        parquet = pytest.importorskip("pyarrow.parquet")
        table = pytest.importorskip("pyarrow").table({"image": rows, "label": labels})
        parquet.write_table(table, root / "images.parquet", row_group_size=4)
        write_shards(root / "shards")
        np.save(root / "x.npy", np.arange(66.0).reshape(22, 3))
        np.save(root / "y.npy", np.arange(22) % 4)
        csv = "a,b,kind\n" + "".join(f"{row},{row / 7},{'xyz'[row % 3]}\n" for row in range(26))
        put_files(root, {"table.csv": csv.encode(), "text/a.txt": bytes(range(65, 90)) * 9})
        yield root


def image_folder(folder):
    return datasets.image_folder(str(folder / "images"))


def parquet_images(folder):
    return datasets.parquet_images(str(folder / "images.parquet"))


def tar_shards(folder):
    return datasets.tar_shards(str(folder / "shards"))


def table(folder):
    return datasets.table(str(folder / "table.csv"), "kind", ["a", "b"])


def arrays(folder):
    return datasets.arrays(str(folder / "x.npy"), str(folder / "y.npy"))


def text(folder):
    return datasets.text(str(folder / "text"), 9)


def packed(folder):
    return datasets.packed(datasets.text(str(folder / "text"), None), 11)


def hugging_face(folder):
    source = pytest.importorskip("datasets").Dataset.from_dict(
        {"input": [list(range(row % 5 + 1)) for row in range(23)], "target": list(range(23))}
    )
    return HuggingFaceRows(source)


def mixture(folder):
    return datasets.mixture([image_folder(folder), parquet_images(folder)], [2, 1])


SETS = (
    *(image_folder, parquet_images, tar_shards, table, arrays),
    *(text, packed, hugging_face, mixture),
)


@pytest.fixture(params=SETS, ids=lambda one: one.__name__)
def dataset(request, folder, monkeypatch):
    monkeypatch.setenv("EPOCHAL_CACHE", str(folder / "cache"))
    return request.param(folder)


def numbers(batch):
    """All that a batch holds, as bytes."""
    data = batch.data
    parts = data.values() if isinstance(data, dict) else data
    held = [
        (str(part.dtype), tuple(part.shape), part.numpy().tobytes())
        if isinstance(part, torch.Tensor)
        else part
        for part in parts
    ]
    return batch.index, batch.sample_ids_B.tolist(), held


def found(dataset, *, start=0, own=None, **readers):
    ids = np.arange(len(dataset))
    order = epoch_order(seed=7, epoch=1, sample_ids_N=ids)
    plan = micro_batches(order, batch_size=BATCH, accumulate=ACCUMULATE)
    collate = None
    if isinstance(dataset[0], dict) and "target" in dataset[0] and len(dataset[0]) == 2:
        collate = pad_input
    batches = train_batches(
        dataset, plan, sample_ids_N=ids, seed=7, epoch=1, start=start, own=own,
        readers=Readers(**readers), collate=collate,
    )  # fmt: skip
    return [numbers(batch) for batch in batches if batch.num_samples]


def pad_input(items):
    return pad(items, keys=["input"])


@few_processors
def test_batches_are_the_same_with_threads_workers_and_processes_from_any_micro_step_on(dataset):
    assert is_thread_safe(dataset)
    expected = found(dataset)
    assert sum(len(ids) for _, ids, _ in expected) == len(dataset)
    for readers in ({"threads": 1}, {"threads": 3}, {"workers": 2}):
        assert found(dataset, **readers) == expected
    changed = []
    for number, readers in enumerate(({"threads": 2}, {}, {"threads": 4}, {"threads": 1})):
        rest = found(dataset, start=number, **readers)
        changed.append(rest[0])
        assert rest == expected[number:]
    assert changed == expected[:4]
    for processes in (2, 3, 4):
        together = []
        for rank in range(processes):

            def own(count, rank=rank, processes=processes):
                return range(count * rank // processes, count * (rank + 1) // processes)

            together += found(dataset, own=own, threads=2 if rank % 2 else 0)
        assert sorted(together, key=lambda one: one[0]) == expected


@pytest.mark.slow
@few_processors
@pytest.mark.parametrize("workers", [1, 3, 4])
def test_batches_are_the_same_with_more_workers(dataset, workers):
    assert found(dataset, workers=workers) == found(dataset)
    assert found(dataset, workers=workers, prefetch=1, start=4) == found(dataset)[4:]


def test_validation_is_the_same_with_threads(dataset):
    ids = np.arange(len(dataset))
    collate = pad_input if len(dataset[0]) == 2 and isinstance(dataset[0], dict) else None
    runs = [
        [
            numbers(batch)
            for batch in validation_batches(
                dataset, batch_size=4, sample_ids_N=ids, readers=readers, collate=collate
            )
        ]
        for readers in (Readers(), Readers(threads=3))
    ]
    assert runs[0] == runs[1]
