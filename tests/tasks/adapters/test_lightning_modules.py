"""A LightningModule trained here gives Lightning's own numbers, and says what is not carried "
"over."""

import numpy as np
import pytest
import torch
from support.runs.bare_run import BareRun
from support.runs.project import Project, environment

from epochal.data.errors import TargetError, TrainingFailed
from epochal.data.tables.writing import UPDATES, read_table
from epochal.engine.config.optimizer import ONE_OPTIMIZER

pytest.importorskip("lightning")

LIT = """
    import os
    import lightning
    import torch
    from torch import nn
    from torch.nn import functional
    from torch.utils.data import DataLoader
    from blobs import blobs

    SEEN = []

    class LitNet(lightning.LightningModule):
        def __init__(self, width=16, lr=0.05):
            super().__init__()
            self.save_hyperparameters()
            self.body = nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 3))
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.scale * self.body(x)

        def training_step(self, batch, batch_idx):
            x, y = batch
            SEEN.append(batch)
            whole = sum(len(one) == 16 for one, _ in SEEN)
            if whole == int(os.environ.get("FAIL_AT", -1)):
                raise RuntimeError("the machine room is on fire")
            logits = self(x)
            loss = functional.cross_entropy(logits, y)
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch, batch_idx):
            x, y = batch
            logits = self(x)
            self.log("right", (logits.argmax(1) == y).float().mean())
            return {"loss": functional.cross_entropy(logits, y), "logits": logits, "target": y}

        def configure_optimizers(self):
            groups = [
                {"params": self.body.parameters()},
                {"params": [self.scale], "lr": self.hparams.lr / 10, "weight_decay": 0.0},
            ]
            return torch.optim.AdamW(groups, lr=self.hparams.lr)

    class Stepped(LitNet):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            total = self.trainer.estimated_stepping_batches
            scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
            }

    class ByEpoch(LitNet):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            return [optimizer], [torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=2)]

    class Plateau(LitNet):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=3)
            return {"optimizer": optimizer, "lr_scheduler": scheduler, "monitor": "right"}

    class Cycled(LitNet):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            return [optimizer], [torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 100)]

    class PerSample(LitNet):
        def training_step(self, batch):
            x, y = batch
            logits = self(x)
            losses = functional.cross_entropy(logits, y, reduction="none")
            return {"loss": losses.mean(), "losses": losses, "logits": logits, "target": y}

        def validation_step(self, batch):
            return PerSample.training_step(self, batch)

    class Wrong(PerSample):
        def training_step(self, batch):
            made = super().training_step(batch)
            return {**made, "loss": 2 * made["loss"]}

    class Manual(LitNet):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

    class Two(LitNet):
        def configure_optimizers(self):
            return [torch.optim.SGD(part.parameters(), lr=0.1) for part in self.body[::2]]

    class Hooked(LitNet):
        def on_fit_start(self):
            self.begun = True

        def on_train_epoch_end(self):
            self.ended = True

        def weight(self):
            return self.current_epoch / 10

        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * (1 + batch_idx) + self.weight()

    class Data(lightning.LightningDataModule):
        def setup(self, stage):
            self.train, self.val = blobs("train", size=70), blobs("validation", size=40)

        def train_dataloader(self):
            return DataLoader(self.train, batch_size=16, shuffle=True)

        def val_dataloader(self):
            sampler = torch.utils.data.WeightedRandomSampler([1.0] * 40, 40)
            return DataLoader(self.val, batch_size=16, sampler=sampler)
"""
ADAPTERS = "epochal.tasks.adapters"
RATE = 0.05


def module(name="LitNet", **args):
    return {"target": f"lit:{name}", "args": args}


def project(folder, name="LitNet", **changes):
    given = {
        "epochs": 3,
        "model": {"target": f"{ADAPTERS}:lightning", "args": {"module": module(name)}},
        "step": {"target": f"{ADAPTERS}:lightning_step"},
        "optimizer": {"target": f"{ADAPTERS}:lightning_optimizer", "args": {"lr": RATE}},
        "train_data": {"target": "blobs:blobs", "args": {"split": "train", "size": 70}},
        "gradients": {},
        "sampling": {"policy": "none"},
        "checkpoint": {"keep_last": 9},
        **changes,
    }
    made = Project(folder / "project", **given)
    made.write("lit.py", LIT)
    return made


def scheduled(name, **args):
    schedule = {
        "kind": "custom",
        "target": f"{ADAPTERS}:lightning_schedule",
        "args": {"module": module(name), **args},
    }
    optimizer = {
        "target": f"{ADAPTERS}:lightning_optimizer",
        "args": {"lr": RATE, "scheduler": "schedule"},
    }
    return {"schedule": schedule, "optimizer": optimizer}


def table(run, epoch, artifact, schema):
    record = run.view.record_of(run.view.stage("train", epoch))
    with run.session.stage_store.fetch_artifact(record, artifact) as path:
        return read_table(path, schema=schema).columns


def losses(run):
    """Of each update, in the order of the updates."""
    found = []
    for epoch in range(3):
        columns = table(run, epoch, "updates", UPDATES)
        found += columns["value"][columns["key"] == "train/loss"].tolist()
    return found


def by_lightning(run, name):
    """Losses and weights of Lightning's own Trainer on the same batches, from the same weights."""
    import lightning
    import lit
    from torch.utils.data import DataLoader, Sampler

    batches = lit.SEEN[-15:]  # those before are of the check before the start
    seen = []

    class Same(Sampler):
        epoch = 0

        def __iter__(self):
            Same.epoch += 1
            return iter(range(5 * Same.epoch - 5, 5 * Same.epoch))

        def __len__(self):
            return 5

    class Noted(lightning.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append(float(outputs["loss"]))

    made = getattr(lit, name)()
    made.load_state_dict(first_weights(run))
    loader = DataLoader(batches, batch_size=None, sampler=Same())
    trainer = lightning.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, callbacks=[Noted()], barebones=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(made, loader)
    return seen, made.state_dict()


def first_weights(run):
    from safetensors.torch import load_file

    record = run.view.record_of(next(one for one in run.view.stages if one.kind == "initialise"))
    with run.session.stage_store.fetch_artifact(record, "model") as path:
        return load_file(path)


@pytest.mark.filterwarnings("ignore")  # Lightning's own, about workers and logging
@pytest.mark.parametrize(
    ("name", "args"),
    [("LitNet", None), ("Stepped", {"updates": 5, "epochs": 3}), ("ByEpoch", {})],
)
def test_losses_and_weights_are_those_of_lightnings_trainer(name, args, tmp_path, home):
    run = BareRun(
        project(tmp_path, name, **({} if args is None else scheduled(name, **args))).config
    )()
    theirs, weights = by_lightning(run, name)
    assert len(theirs) == 15
    np.testing.assert_allclose(losses(run), theirs, rtol=2e-6)
    for key, value in run.work.ready_components().state.model.state_dict().items():
        torch.testing.assert_close(value, weights[key], rtol=1e-5, atol=1e-6)


def test_what_is_logged_becomes_parts_of_the_loss_and_metrics_see_the_logits(tmp_path, home):
    run = BareRun(project(tmp_path).config, epochs=1)()
    columns = table(run, 0, "updates", UPDATES)
    assert "train/loss/train_loss" in set(columns["key"])
    values = run.view.record_of(run.view.stage("validate", 0)).values["metrics"]
    assert values["loss/right"] == pytest.approx(values["accuracy"])


def test_a_killed_run_ends_in_the_bytes_of_an_unbroken_one(tmp_path, home):
    """Killed in the middle of an epoch, with what a scheduler of Lightning's would have counted."""
    changes = scheduled("Stepped", updates=5, epochs=3)
    whole = BareRun(project(tmp_path / "whole", "Stepped", **changes).config)()
    torn = project(tmp_path / "torn", "Stepped", checkpoint={"every_updates": 2}, **changes)

    with environment(FAIL_AT="7"), pytest.raises(TrainingFailed, match="machine room"):
        BareRun(torn.config)()
    again = BareRun(torn.config)()
    assert again.resumed
    assert again.weights == whole.weights
    assert again.digests == whole.digests


def test_a_loss_for_each_sample_serves_a_policy(tmp_path, home):
    sampling = {"policy": "easy_skip", "confidence": 0.6}
    run = BareRun(project(tmp_path, "PerSample", sampling=sampling).config)()
    counts = [one.record.values["samples"] for one in run.outcomes if one.stage.kind == "train"]
    assert counts[0] == 70 > min(counts)


def test_the_rate_of_the_config_acts_and_groups_keep_their_ratio(tmp_path, home):
    run = BareRun(project(tmp_path).config, optimizer__args__lr=0.2)
    assert run.work.ready_components().state.base_rates == pytest.approx((0.2, 0.02))


def test_the_data_of_a_datamodule_is_taken_and_a_sampler_of_its_own_refused(tmp_path, home):
    def data(part):
        args = {"module": {"target": "lit:Data"}, "part": part}
        return {"target": f"{ADAPTERS}:lightning_data", "args": args}

    run = BareRun(project(tmp_path, train_data=data("train")).config, epochs=1)()
    assert run.outcomes[1].record.values["samples"] == 70
    with pytest.raises(TargetError, match=r"WeightedRandomSampler.*batches\.class_balanced"):
        BareRun(project(tmp_path, validation_data=data("validation")).config)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Manual", "automatic_optimization = False"),
        ("Two", f"returns 2 optimizers; {ONE_OPTIMIZER}"),
        ("Wrong", "the mean of `losses` of training_step"),
        ("ByEpoch", "returns LinearLR, stepped each epoch"),
        ("Plateau", "write schedule: {kind: plateau, factor: 0.1, patience: 3"),
        ("Data", "expected a LightningModule"),
        ("Cycled", "returns OneCycleLR, stepped each epoch"),
        (
            "Hooked",
            "without: [on_train_epoch_end, current_epoch, batch_idx]",
        ),
    ],
)
def test_what_is_not_carried_over_is_named_before_the_start(name, told, tmp_path, home):
    with pytest.raises(TargetError) as raised:
        BareRun(project(tmp_path, name).config)
    assert told in str(raised.value)


def test_what_a_run_is_said_to_do_without_is_let_pass(tmp_path, home):
    without = ["on_train_epoch_end", "current_epoch", "batch_idx"]
    args = {"module": module("Hooked"), "without": without}
    model = {"target": f"{ADAPTERS}:lightning", "args": args}
    BareRun(project(tmp_path, model=model).config, epochs=1)()
    unknown = {**model, "args": {**args, "without": ["on_fit"]}}
    with pytest.raises(TargetError, match=r"without: on_fit: Hooked does not have or use it"):
        BareRun(project(tmp_path, model=unknown).config)
