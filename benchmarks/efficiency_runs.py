"""One run of `sample_efficiency.py`: the product's own parts, without Prefect, MLflow and a store.

`engine.train_epoch` trains, `data.mining` plans from file to file; batches come from tensors in
memory.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from efficiency_sets import TaskSet
from torch import Tensor, nn

from epochal.data.config.loader import SamplingConfig
from epochal.data.hashing import hash_u64
from epochal.data.loading.order import MicroBatchPlan, epoch_order, micro_batches
from epochal.data.mining.shards import Mined, mine_files
from epochal.data.samples.table import SampleTable, read_plan
from epochal.data.tables.schemas import OBSERVATIONS, SAMPLES
from epochal.data.tables.writing import read_table, write_table
from epochal.data.types import Batch
from epochal.engine import Recipe, TrainingState, supervised_step, train_epoch
from epochal.engine.model.build import build_model

# N samples of the set, K of them in an epoch

WEIGHT_DECAY, MOMENTUM = 5e-4, 0.9


@dataclass
class Result:
    """What a run cost and reached. kept: the share of each epoch. cpu_s: without the test.

    precision: of the suspects, the share whose label is wrong, at their number in the end.
    """

    accuracy: float
    gradients: int
    extra_forwards: int
    updates: int
    cpu_s: float
    kept: list[float] = field(default_factory=list)
    label_noise: float | None = None
    suspects: int = 0
    precision: float | None = None

    @property
    def record(self) -> dict[str, Any]:
        """As a JSON line holds it."""
        return asdict(self)


def train_once(
    task: TaskSet, config: SamplingConfig, *, seed: int, length: float | None = None
) -> Result:
    """Trains from that seed's weights; the last epoch's model is measured, no best one is picked.

    length: epochs of a shorter schedule, a fraction of one at the end; none: those of the task.
    """
    epochs = math.ceil(length or task.epochs)
    length = float(length or task.epochs)
    ids_N = np.arange(len(task.labels_N), dtype=np.int64)
    model = build_model(task.model, seed=seed)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=task.rate,
        momentum=MOMENTUM,
        nesterov=True,
        weight_decay=WEIGHT_DECAY,
    )
    state = TrainingState(model=model, optimizer=optimizer)
    step = supervised_step(nn.CrossEntropyLoss)
    found = Result(0.0, 0, 0, 0, 0.0)
    plan: SampleTable | None = None
    with tempfile.TemporaryDirectory() as folder:
        tables, mined = _Tables(Path(folder), config, ids_N, epochs, seed), None
        begun = time.process_time()
        for epoch in range(epochs):
            part = min(1.0, length - epoch)
            keep_N = None if plan is None else plan["keep"]
            order_K = epoch_order(seed=seed, epoch=epoch, sample_ids_N=ids_N, keep_N=keep_N)
            size = config.batch_size(task.batch_size, kept=len(order_K), total=len(ids_N))
            cut = micro_batches(order_K[: round(part * len(order_K))], batch_size=size)
            weights_N = None if plan is None else plan["weight"]

            def rate(t: float, start: int = epoch, part: float = part) -> float:
                return _cosine((start + (t - start) * part) / length)

            result = train_epoch(
                state,
                _batches(task, cut, weights_N, seed=seed, epoch=epoch),
                Recipe(step, rate=rate, seed=seed),
                epoch=epoch,
                num_updates=cut.num_updates,
            )
            found.gradients += result.num_samples
            found.updates += result.num_updates
            found.kept.append(result.num_samples / len(ids_N))
            if config.policy != "none" and epoch + 1 < epochs:
                mined = tables.mine(epoch, result.observations)
                plan = read_plan(tables.newest)
        found.cpu_s = time.process_time() - begun
        if mined is not None:
            found.label_noise, found.suspects = mined.noise, mined.suspects
            found.precision = _precision(tables.newest, task)
    found.accuracy = _accuracy(model, task)
    return found


@dataclass
class _Tables:
    """The sample tables of a run, each in a file, as mine stages write them."""

    folder: Path
    config: SamplingConfig
    ids_N: npt.NDArray[np.int64]
    epochs: int
    seed: int
    newest: Path | None = None

    def mine(self, epoch: int, observations: dict[str, npt.NDArray[Any]]) -> Mined:
        """Makes the table after `epoch`, from the one before."""
        seen, after = (self.folder / f"{name}-{epoch}" for name in ("observations", "samples"))
        write_table(observations, seen, schema=OBSERVATIONS, metadata={})
        mined = mine_files(
            self.newest,
            seen,
            after,
            self.config,
            sample_ids_N=self.ids_N,
            epoch=epoch,
            epochs=self.epochs,
            seed=self.seed,
            metadata=lambda _: {},
        )
        self.newest = after
        return mined


def _batches(
    task: TaskSet,
    plan: MicroBatchPlan,
    weights_N: npt.NDArray[np.float32] | None,
    *,
    seed: int,
    epoch: int,
) -> Iterator[Batch]:
    ids_K = plan.order_K
    images_K = augmented(task, ids_K, seed=seed, epoch=epoch)
    labels_K = task.labels_N[torch.from_numpy(ids_K)]
    for index in range(plan.num_micro_steps):
        rows = slice(*plan.offsets_M1[index : index + 2].tolist())
        ids_B = ids_K[rows]
        yield Batch(
            data=(images_K[rows], labels_K[rows]),
            sample_ids_B=ids_B,
            window=plan.window(index),
            index=index,
            weights_B=None if weights_N is None else torch.from_numpy(weights_N[ids_B]),
        )


def augmented(task: TaskSet, ids_K: npt.NDArray[np.int64], *, seed: int, epoch: int) -> Tensor:
    """The images in this order, mirrored and moved by what (seed, epoch, id) says."""
    rows_K = torch.from_numpy(ids_K)
    if not task.shift and not task.flip:
        return task.images_N1HW[rows_K]
    height, width = task.images_N1HW.shape[2:]
    lot_K = hash_u64(ids_K, "augment", seed, epoch)
    shifts = np.uint64(2 * task.shift + 1)
    down_K, right_K = lot_K % shifts, lot_K // shifts % shifts
    mirror_K = (lot_K // (shifts * shifts) % np.uint64(2)).astype(bool) & task.flip
    column_KW = np.broadcast_to(np.arange(width), (len(ids_K), width))
    column_KW = np.where(mirror_K[:, None], width - 1 - column_KW, column_KW)
    column_KW = column_KW + right_K[:, None].astype(np.int64)
    row_KH = np.arange(height) + down_K[:, None].astype(np.int64)
    padded = nn.functional.pad(task.images_N1HW[:, 0], [task.shift] * 4)
    return padded[
        rows_K[:, None, None],
        torch.from_numpy(row_KH)[:, :, None],
        torch.from_numpy(column_KW)[:, None, :],
    ].unsqueeze(1)


def _cosine(t: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(t, 1.0)))


def _precision(path: Path, task: TaskSet) -> float | None:
    """Of the lowest mean margins, as many as there are wrong labels, the share that are wrong."""
    wrong_N = (task.labels_N != task.truth_N).numpy()
    count = int(wrong_N.sum())
    if not count:
        return None
    columns = read_table(path, schema=SAMPLES).columns
    mean_N = columns["margin_sum"] / columns["n_seen"]
    return float(wrong_N[np.argsort(mean_N, kind="stable")[:count]].mean())


@torch.no_grad()
def _accuracy(model: nn.Module, task: TaskSet) -> float:
    model.eval()
    right = 0
    for images, labels in zip(
        task.test_images.split(1000), task.test_labels.split(1000), strict=True
    ):
        right += int((model(images).argmax(1) == labels).sum())
    return right / len(task.test_labels)
