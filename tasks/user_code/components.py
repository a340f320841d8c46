"""The user's parts of a run, built: model, optimizer, loss, step, data. Checked before epoch 0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochal.data.config.loader import COLLATE
from epochal.data.errors import ConfigError, TargetError
from epochal.data.types import seed_64
from epochal.tasks.config.run import RunConfig
from epochal.tasks.user_code.files_read import noting_files
from epochal.tasks.user_code.loaded_modules import noting_modules
from epochal.tasks.user_code.targets import built_args, call_target, resolve_target, with_tensors

if TYPE_CHECKING:
    import torch
    from torch import nn

    from epochal.data.loading.collate import Collate
    from epochal.engine.model.build import Loss
    from epochal.engine.model.state import TrainingState
    from epochal.engine.model.step import Step


@dataclass
class Components:
    """What an epoch needs beside data. `state` is the only part that changes."""

    device: torch.device
    state: TrainingState
    step: Step
    loss: Loss
    metrics: Any
    collate: Collate | None = None

    @property
    def modules(self) -> dict[str, nn.Module | None]:
        """The modules of the user's by the config's field, as errors name their parts."""
        step: Any = self.step if hasattr(self.step, "named_modules") else None
        return {"model": self.state.model, "loss": self.loss.module, "step": step}


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one, else the CPU. Raises ConfigError if it is not there."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:  # an index that its integer does not hold
        raise ConfigError(f"device: found {name!r}, which torch refuses: {error}") from error
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise ConfigError(f"device: found {name!r}; this machine has {count} CUDA devices")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device: found 'mps'; this machine has no such device")
    return device


def prepare_numerics(config: RunConfig, *, gpu: int | None = None) -> torch.device:
    """Sets what the config says of threads, and gives the device.

    gpu: the index of that of a process that shares the run with others: each has one of its own.
    """
    import torch

    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = choose_device(config.device)
    if gpu is None or device.type == "cpu":
        return device
    count, processes = torch.cuda.device_count(), config.launch.processes
    needed = max(gpu + 1, config.launch.processes_here)
    if device.type != "cuda" or device.index is not None or count < needed:
        raise ConfigError(
            f"launch.processes: {processes} processes need a CUDA device each; found device: "
            f"{config.device} and {count} CUDA devices here; use as many processes, or device: cpu"
        )
    device = torch.device("cuda", gpu)
    torch.cuda.set_device(device)
    return device


def build_components(
    config: RunConfig,
    *,
    device: torch.device,
    model_on: torch.device | None = None,
    trains: bool = True,
) -> Components:
    """Model with its initial weights, optimizer, loss, step and metrics.

    model_on: where the model and its average are to be, if not on the device. trains: else there is
    no optimizer, and none of its parameters' groups.

    Raises TargetError or ConfigError, naming the field, if a part cannot be built.
    """
    from torch import nn
    from torch.optim import Optimizer

    from epochal.engine.loop.mixing import MixedStep
    from epochal.engine.measure.metrics import build_metrics
    from epochal.engine.model.batch_norm import check_batch_norm
    from epochal.engine.model.build import NoOptimizer, build_loss, build_model, build_optimizer
    from epochal.engine.model.companions import companion_parameters, companions_of
    from epochal.engine.model.ema import WeightAverage
    from epochal.engine.model.freezing import check_frozen
    from epochal.engine.model.parameter_groups import check_options, make_groups
    from epochal.engine.model.precision import compiled, new_scaler, prepared
    from epochal.engine.model.state import TrainingState
    from epochal.engine.model.step import DefaultStep
    from epochal.engine.randomness import seeded

    folder = Path(config.folder)
    model = build_model(
        lambda: call_target(config.model, field="model", folder=folder),
        seed=seed_64(config.seed, "initialise"),
    ).to(model_on or device)
    prepared(model, config.precision)
    with noting_modules("loss"), noting_files("loss"), seeded(seed_64(config.seed, "loss")):
        make_loss = resolve_target(config.loss, field="loss", folder=folder)
        loss = build_loss(
            make_loss,
            with_tensors(make_loss, built_args(config.loss, field="loss", folder=folder)),
        )
    if loss.module is not None:
        loss.module.to(device)
    plain = DefaultStep(loss)
    step: Step = plain if config.mixing is None else MixedStep(plain)
    companions = companions_of(loss=loss.made)
    if config.step is not None:
        with seeded(seed_64(config.seed, "step")):
            step = call_target(config.step, field="step", folder=folder)
        companions |= companions_of(step=step)
        if not callable(step):
            raise TargetError(
                f"step: {config.step.target!r} returned a {type(step).__name__}; expected a "
                "callable (model, batch) -> StepOutput"
            )
        if config.mixing is not None and not getattr(step, "takes_mixed_batches", False):
            raise ConfigError(
                f"mixing: step.target {config.step.target!r} is not known to take mixed batches; "
                "give its object the attribute `takes_mixed_batches = True` if it knows what an "
                "epochal.engine.MixedBatch is, or leave `mixing` out"
            )
    for companion in companions.values():
        if isinstance(companion.part, nn.Module):
            companion.part.to(device)
    beside = companion_parameters(companions, model)
    grouped = None
    if trains and config.optimizer.is_grouped:
        grouped = make_groups(model, config.optimizer, beside=beside)
    optimizer: Optimizer = NoOptimizer(model, beside=beside.values())
    if trains:
        with seeded(seed_64(config.seed, "optimizer")):
            optimizer = build_optimizer(
                model,
                resolve_target(config.optimizer, field="optimizer", folder=folder),
                built_args(config.optimizer, field="optimizer", folder=folder),
                groups=None if grouped is None else grouped.groups,
                beside=beside.values(),
            )
        check_options(optimizer, config.optimizer)
    metrics = build_metrics(
        config.metrics,
        lambda target: call_target(
            target, field=f"metrics.{getattr(target, 'name', target.target)}", folder=folder
        ),
    )
    state = TrainingState(
        model=model,
        optimizer=optimizer,
        ema=None if config.ema is None else WeightAverage(model, config.ema),
        scaler=new_scaler(config.precision, device),
        forward=compiled(model, config.precision),
        rate_names=() if grouped is None else grouped.rate_names,
        companions=companions,
    )
    check_frozen(state, config.optimizer.frozen_in(0))
    if config.batch_norm is not None:
        check_batch_norm(model)
    return Components(
        device=device,
        state=state,
        step=step,
        loss=loss,
        metrics=metrics,
        collate=build_collate(config),
    )


def build_collate(config: RunConfig) -> Collate | None:
    """What `loader.collate` says makes a batch of items; None: torch's own. Raises TargetError."""
    target, folder, field = config.loader.collate, Path(config.folder), COLLATE
    if target is None:
        return None
    from epochal.data.loading.collate import as_collate
    from epochal.engine.randomness import seeded

    with noting_modules(field), noting_files(field), seeded(seed_64(config.seed, "collate")):
        given = resolve_target(target, field=field, folder=folder)
        args = built_args(target, field=field, folder=folder)
        return as_collate(given, with_tensors(given, args))


def own_policy(config: RunConfig) -> Callable[[Any, Any], Any] | None:
    """The function of policy custom with its arguments, or None. Its errors are TargetErrors."""
    target = config.sampling.callable_target
    if target is None:
        return None
    folder = Path(config.folder)

    def call(table: Any, context: Any) -> Any:
        return call_target(target, table, context, field="sampling", folder=folder)

    return call
