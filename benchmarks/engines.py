"""What is compared: three workloads, and loops that train or validate each of them.

A loop takes a fresh state and the same index batches in the same order, and runs to the last one.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from epochal.data.loading.loader import train_batches, validation_batches
from epochal.data.loading.order import micro_batches
from epochal.engine import (
    GradientsConfig,
    Recipe,
    TrainingState,
    metrics_of,
    supervised_step,
    train_epoch,
    validate_epoch,
)

CLIP = 1.0


@dataclass(frozen=True)
class Workload:
    """make: builds the model. batch: samples of a micro-batch. steps: of one round."""

    name: str
    make: Callable[[], nn.Module]
    inputs: Tensor
    targets: Tensor
    batch: int
    steps: int

    def order(self, round_number: int) -> np.ndarray[Any, Any]:
        """Row numbers of a round, shape (steps * batch,)."""
        draw = np.random.default_rng(round_number)
        return draw.integers(0, len(self.targets), self.batch * self.steps)

    def fresh(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        """A new model with the same weights each time, and its optimizer."""
        torch.manual_seed(0)
        model = self.make()
        return model, torch.optim.AdamW(model.parameters(), lr=1e-3)


class CharModel(nn.Module):
    """A transformer over characters: (B, T) int64 to logits (B, C, T)."""

    def __init__(self, *, symbols: int = 64, width: int = 96, layers: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, batch_first=True)
        self.body = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, symbols)

    def forward(self, x_BT: Tensor) -> Tensor:
        """Logits of the next character, for each position."""
        mask = nn.Transformer.generate_square_subsequent_mask(x_BT.shape[1])
        logits: Tensor = self.head(self.body(self.embedding(x_BT), mask=mask))
        return logits.transpose(1, 2)


def workloads() -> dict[str, Workload]:
    draw = torch.Generator().manual_seed(1)

    def mlp() -> nn.Module:
        return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))

    def cnn() -> nn.Module:
        return nn.Sequential(
            *(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(64 * 64, 10)),
        )

    found = [
        Workload(
            "digits_mlp", mlp, torch.randn(2048, 64, generator=draw),
            torch.randint(0, 10, (2048,), generator=draw), 32, 300,
        ),
        Workload(
            "cnn32", cnn, torch.randn(512, 3, 32, 32, generator=draw),
            torch.randint(0, 10, (512,), generator=draw), 64, 12,
        ),
        Workload(
            "charlm", CharModel, torch.randint(0, 64, (256, 128), generator=draw),
            torch.randint(0, 64, (256, 128), generator=draw), 16, 12,
        ),
    ]  # fmt: skip
    return {one.name: one for one in found}


def raw(work: Workload, order: np.ndarray[Any, Any], *, norm: bool) -> None:
    """What a person writes; norm: with clip, and norm and loss kept for a log."""
    model, optimizer = work.fresh()
    criterion = nn.CrossEntropyLoss()
    kept = []
    model.train()
    for start in range(0, len(order), work.batch):
        rows = torch.from_numpy(order[start : start + work.batch])
        optimizer.zero_grad()
        loss = criterion(model(work.inputs[rows]), work.targets[rows])
        loss.backward()
        if norm:
            total = nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            kept.append((loss.detach(), total))
        optimizer.step()


def ours(work: Workload, order: np.ndarray[Any, Any]) -> None:
    """Everything on: clip, norms of all tensors and groups, losses per sample, observations."""
    model, optimizer = work.fresh()
    dataset = TensorDataset(work.inputs, work.targets)
    plan = micro_batches(order.astype(np.int64), batch_size=work.batch)
    train_epoch(
        TrainingState(model=model, optimizer=optimizer),
        train_batches(
            dataset, plan, sample_ids_N=np.arange(len(dataset), dtype=np.int64), seed=0, epoch=0
        ),
        Recipe(supervised_step(nn.CrossEntropyLoss), gradients=GradientsConfig(clip_norm=CLIP)),
        epoch=0,
        num_updates=plan.num_updates,
    )


def ignite(work: Workload, order: np.ndarray[Any, Any]) -> None:
    """pytorch-ignite with the step of the raw loop."""
    from ignite.engine import Engine

    model, optimizer = work.fresh()
    criterion = nn.CrossEntropyLoss()
    kept = []

    def step(_: Any, rows: Tensor) -> None:
        model.train()
        optimizer.zero_grad()
        loss = criterion(model(work.inputs[rows]), work.targets[rows])
        loss.backward()
        kept.append((loss.detach(), nn.utils.clip_grad_norm_(model.parameters(), CLIP)))
        optimizer.step()

    Engine(step).run(list(torch.from_numpy(order).split(work.batch)), max_epochs=1)


def accelerate(work: Workload, order: np.ndarray[Any, Any]) -> None:
    """Accelerate's prepared model and optimizer in the raw loop."""
    from accelerate import Accelerator

    model, optimizer = work.fresh()
    helper = Accelerator(cpu=True)
    model, optimizer = helper.prepare(model, optimizer)
    criterion = nn.CrossEntropyLoss()
    kept = []
    for rows in torch.from_numpy(order).split(work.batch):
        optimizer.zero_grad()
        loss = criterion(model(work.inputs[rows]), work.targets[rows])
        helper.backward(loss)
        kept.append((loss.detach(), helper.clip_grad_norm_(model.parameters(), CLIP)))
        optimizer.step()


def lightning_trainer(work: Workload, order: np.ndarray[Any, Any]) -> None:
    """Lightning's Trainer, bare: no logger, no progress bar, no checkpoint."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.built = work.fresh()

        def training_step(self, rows: Tensor, _: int) -> Tensor:
            return nn.functional.cross_entropy(self.model(work.inputs[rows]), work.targets[rows])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return self.built

    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=CLIP,
    )  # fmt: skip
    # A bare list would be taken for a collection of loaders, and each tensor for one of them.
    rows = list(torch.from_numpy(order).split(work.batch))
    trainer.fit(Module(), DataLoader(rows, batch_size=None))


def transformers_trainer(work: Workload, order: np.ndarray[Any, Any]) -> None:
    """The Trainer of transformers, bare: no report, no progress bar, no checkpoint."""
    from transformers import Trainer, TrainingArguments

    model, optimizer = work.fresh()

    class WithLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, rows: Tensor) -> dict[str, Tensor]:
            logits = self.model(work.inputs[rows])
            return {"loss": nn.functional.cross_entropy(logits, work.targets[rows])}

    with tempfile.TemporaryDirectory() as folder:
        options = TrainingArguments(
            output_dir=folder, num_train_epochs=1, per_device_train_batch_size=1, use_cpu=True,
            max_grad_norm=CLIP, report_to="none", save_strategy="no", logging_strategy="no",
            disable_tqdm=True, remove_unused_columns=False,
        )  # fmt: skip
        Trainer(
            WithLoss(),
            options,
            data_collator=lambda items: {"rows": items[0]},  # an item is a batch's rows
            train_dataset=list(torch.from_numpy(order).split(work.batch)),
            optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)),
        ).train()


PEERS: dict[str, tuple[str, Callable[[Workload, np.ndarray[Any, Any]], None]]] = {
    "ignite": ("pytorch-ignite", ignite),
    "accelerate": ("accelerate", accelerate),
    "lightning": ("lightning", lightning_trainer),
    "transformers": ("transformers", transformers_trainer),
}
"""Module → its package, and the loop that needs it; the extra `bench` has them all."""


def missing() -> dict[str, str]:
    """Module → package of the peers that are not installed, and so are not compared."""
    return {
        module: package
        for module, (package, _) in PEERS.items()
        if importlib.util.find_spec(module) is None
    }


def trainers() -> dict[str, Callable[[Workload, np.ndarray[Any, Any]], None]]:
    """Name → loop; peers only where they are installed, see `missing`."""
    found: dict[str, Callable[[Workload, np.ndarray[Any, Any]], None]] = {
        "raw": lambda work, order: raw(work, order, norm=False),
        "raw + clip, norm": lambda work, order: raw(work, order, norm=True),
        "epochal": ours,
    }
    absent = missing()
    return found | {name: loop for name, (_, loop) in PEERS.items() if name not in absent}


def raw_validation(work: Workload) -> float:
    """Loss and top-1 over the data, in order."""
    model, _ = work.fresh()
    model.eval()
    losses, right, count = [], 0, len(work.targets)
    with torch.inference_mode():
        for start in range(0, count, work.batch):
            rows = slice(start, start + work.batch)
            logits = model(work.inputs[rows])
            losses.append(nn.functional.cross_entropy(logits, work.targets[rows]))
            right += (logits.argmax(1) == work.targets[rows]).sum()
    return float(torch.stack(losses).mean())


def our_validation(work: Workload) -> float:
    """The validation stage's loop with accuracy."""
    model, _ = work.fresh()
    result = validate_epoch(
        model,
        validation_batches(
            TensorDataset(work.inputs, work.targets),
            batch_size=work.batch,
            sample_ids_N=np.arange(len(work.targets), dtype=np.int64),
        ),
        step=supervised_step(nn.CrossEntropyLoss),
        metrics=metrics_of("accuracy"),
    )
    return result.values["loss"]
