"""What a person would write by hand: digits, torch, one MLflow `log_batch` per epoch, `torch.save`.

The other side of `pipeline.py`: the same model, updates, clipping, schedule and validation; no
resume, no cache, no observations.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import mlflow
import torch
from mlflow.entities import Metric
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent / "examples/digits"))
from model import SmallConvNet

BATCH, RATE, DECAY, CLIP, WARM_UP, COOL_DOWN = 64, 3e-3, 0.05, 1.0, 1, 3


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--tracking", required=True)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(7)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target, dtype=torch.int64)
    train, held_out = train_test_split(
        range(len(labels)), test_size=0.3, random_state=0, stratify=digits.target
    )
    x, y, vx, vy = images[train], labels[train], images[held_out], labels[held_out]

    model = SmallConvNet(width=32)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    updates = -(-len(y) // BATCH)
    total = updates * options.epochs

    def factor(update: int) -> float:
        t = (update + 0.5) / updates
        return min(1.0, t / WARM_UP, (options.epochs - t) / COOL_DOWN)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    mlflow.set_tracking_uri(options.tracking)
    client = mlflow.MlflowClient()
    experiment = mlflow.set_experiment("raw")
    run = client.create_run(experiment.experiment_id)
    step = 0
    for epoch in range(options.epochs):
        rows: list[Metric] = []
        model.train()
        for index in torch.randperm(len(y)).split(BATCH):
            optimizer.zero_grad()
            loss = criterion(model(x[index]), y[index])
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            step += 1
            now = int(time.time() * 1000)
            rows += [
                Metric("train/loss", loss.item(), now, step),
                Metric("gradients/norm", norm.item(), now, step),
                Metric("gradients/norm_clipped", min(norm.item(), CLIP), now, step),
                Metric("train/learning_rate", schedule.get_last_lr()[0], now, step),
            ]
            if step < total:
                schedule.step()
        model.eval()
        right = 0
        with torch.inference_mode():
            for index in torch.arange(len(vy)).split(BATCH):
                right += int((model(vx[index]).argmax(1) == vy[index]).sum())
        rows.append(Metric("validation/accuracy", right / len(vy), int(time.time() * 1000), step))
        client.log_batch(run.info.run_id, metrics=rows)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(state, options.folder / f"epoch-{epoch}.pt")
    client.set_terminated(run.info.run_id)
    print(f"accuracy {right / len(vy):.4f}")


if __name__ == "__main__":
    main()
