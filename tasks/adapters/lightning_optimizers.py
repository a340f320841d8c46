"""What configure_optimizers of a LightningModule gives: its optimizer, and its rates over time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from epochal.data.errors import TargetError, passes_through
from epochal.data.traces import in_one_line
from epochal.engine.config.optimizer import ONE_OPTIMIZER
from epochal.engine.schedule.names_of_torch import instead_of
from epochal.tasks.adapters.lightning_modules import is_lightning, module_of

_MADE_UP = 1000
"""Updates and epochs that configure_optimizers is told of where only its optimizer matters."""

_OWN_RATE = "initial_lr"  # where a scheduler of torch keeps a group's base rate


@dataclass(frozen=True)
class Configured:
    """What configure_optimizers gave."""

    optimizer: Optimizer
    scheduler: Any
    interval: str
    frequency: int

    @property
    def rate(self) -> float:
        """Of its first group, before a scheduler changes it."""
        group = self.optimizer.param_groups[0]
        return float(group.get(_OWN_RATE, group["lr"]))

    @property
    def described(self) -> str:
        """The scheduler and when it is stepped; empty where there is none."""
        return "" if self.scheduler is None else _described(self)

    def schedule(
        self, module: Mapping[str, Any], *, updates: int, epochs: int
    ) -> dict[str, Any] | None:
        """The config's `schedule` that it is, step for step. module: its target."""
        if self.scheduler is None:
            return None
        if isinstance(self.scheduler, ReduceLROnPlateau):
            return _as_plateau(self.scheduler)
        return {
            "kind": "custom",
            "target": "epochal.tasks.adapters:lightning_schedule",
            "args": {"module": dict(module), "updates": updates, "epochs": epochs},
        }


def lightning_optimizer(
    params: Sequence[Any], lr: float, scheduler: Literal["schedule", "none"] | None = None
) -> Optimizer:
    """The optimizer of configure_optimizers, for `optimizer:` beside `lightning` as the model.

    lr: the rate of its first group; where it differs from the module's, all groups' rates are
    multiplied alike, so that `--set optimizer.args.lr` and sweeps act. scheduler: needed where
    configure_optimizers returns one: `schedule` says that `schedule:` of the config stands for it,
    `none` that the run does without.

    Raises TargetError for several optimizers, none, or a scheduler that nothing stands for.
    """
    module = module_of(params)
    name = type(module).__name__
    found = configured(module, updates=_MADE_UP, epochs=_MADE_UP)
    if found.scheduler is not None and scheduler is None:
        raise TargetError(
            f"optimizer: configure_optimizers of {name} returns {_described(found)} beside its "
            f"optimizer; {_what_instead(found)}, and say so: optimizer.args.scheduler: schedule "
            "(or none, to do without)"
        )
    if found.scheduler is None and scheduler is not None:
        raise TargetError(
            f"optimizer.args.scheduler: found {scheduler!r}, and configure_optimizers of {name} "
            "returns no scheduler; leave it out"
        )
    if getattr(found.scheduler, "cycle_momentum", False):
        raise TargetError(
            f"optimizer: {_described(found)} moves the momentum with the rate, which is all that a "
            "schedule does: give it cycle_momentum=False"
        )
    optimizer = found.optimizer
    _unwrap(optimizer)
    base = optimizer.param_groups[0]["lr"]
    for group in optimizer.param_groups:
        group["lr"] = lr if group["lr"] == base else group["lr"] * (lr / base)
    optimizer.defaults["lr"] = lr
    return optimizer


def lightning_schedule(
    t: float, module: Any, updates: int | None = None, epochs: int | None = None
) -> float:
    """The factor of the rate at fractional epoch t by the module's own scheduler, step for step.

    For `schedule: {kind: custom, …}`. module: `{target: …, args: …}` as of the model. updates: of
    an epoch, where the scheduler is stepped by update. epochs: of the run, where
    configure_optimizers asks its trainer. It needs torch wherever the run is planned; the kinds
    of `schedule:` do not.

    Raises TargetError for a scheduler that goes by a metric, changes other options than the rate,
    or treats groups differently.
    """
    kept = vars(module).setdefault("_epochal_factors", {})
    if (updates, epochs) not in kept:
        kept[updates, epochs] = _Factors(module, updates=updates, epochs=epochs)
    factors: _Factors = kept[updates, epochs]
    return factors.at(t)


class _Factors:
    """The factors of a scheduler, made as far as they are asked for."""

    def __init__(self, module: Any, *, updates: int | None, epochs: int | None) -> None:
        if not is_lightning(module):
            raise TargetError(
                f"schedule.args.module: found a {type(module).__name__}, expected a LightningModule"
            )
        asked = None if updates is None or epochs is None else updates * epochs
        found = configured(module, updates=asked, epochs=epochs)
        name = type(module).__name__
        if found.scheduler is None:
            raise TargetError(
                f"schedule: configure_optimizers of {name} returns no scheduler; leave `schedule` "
                "out, or choose a kind"
            )
        if isinstance(found.scheduler, ReduceLROnPlateau):
            raise TargetError(f"schedule: {_described(found)}: {_what_instead(found)}")
        if found.interval == "step" and updates is None:
            raise TargetError(
                f"schedule.args.updates: {_described(found)}; give the number of updates of an "
                "epoch"
            )
        self._found = found
        self._steps_per_epoch = updates if found.interval == "step" else 1
        groups = found.optimizer.param_groups
        self._base = [group.get(_OWN_RATE, group["lr"]) for group in groups]
        self._others = [_others(group) for group in groups]
        self._factors = [self._factor()]
        vars(found.optimizer)["_opt_called"] = True  # or each step of the scheduler would warn

    def at(self, t: float) -> float:
        assert self._steps_per_epoch is not None
        # A rounding of t at the edge of an update must not fall into the one before.
        step = math.floor(t * self._steps_per_epoch + 1e-6) // self._found.frequency
        while len(self._factors) <= step:
            self._found.scheduler.step()
            self._factors.append(self._factor())
        return self._factors[step]

    def _factor(self) -> float:
        groups = self._found.optimizer.param_groups
        factors: list[float] = [
            float(group["lr"]) / base for group, base in zip(groups, self._base, strict=True)
        ]
        if any(not math.isclose(one, factors[0], rel_tol=1e-9) for one in factors):
            raise TargetError(
                f"schedule: {_described(self._found)} gives its groups rates that do not keep "
                "their ratio; a run has one factor for all"
            )
        if [_others(group) for group in groups] != self._others:
            raise TargetError(
                f"schedule: {_described(self._found)} changes other options than the rate, which "
                "is all that a schedule does: OneCycleLR(cycle_momentum=False), for one"
            )
        return factors[0]


def _others(group: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: deepcopy(value)
        for name, value in group.items()
        if name not in {"params", "lr", _OWN_RATE, "max_lr", "min_lr"}
    }


def configured(module: Any, *, updates: int | None, epochs: int | None) -> Configured:
    """What configure_optimizers gives. updates: of the run, for its trainer. TargetError."""
    name = type(module).__name__
    with _trainer_of(module, updates=updates, epochs=epochs):
        try:
            made = module.configure_optimizers()
        except BaseException as error:  # the user's code may raise anything
            if passes_through(error) or isinstance(error, TargetError):
                raise
            raise TargetError(
                f"optimizer: configure_optimizers of {name} raised {in_one_line(error)}"
            ) from error
    optimizers, schedulers = _parsed(made, name)
    if len(optimizers) != 1:
        raise TargetError(
            f"optimizer: configure_optimizers of {name} returns {len(optimizers) or 'no'} "
            f"optimizer{'' if len(optimizers) == 1 else 's'}; {ONE_OPTIMIZER}"
        )
    if len(schedulers) > 1:
        raise TargetError(
            f"optimizer: configure_optimizers of {name} returns {len(schedulers)} schedulers for "
            "one optimizer; chain them by torch's SequentialLR or ChainedScheduler"
        )
    stated = schedulers[0] if schedulers else None
    if isinstance(stated, Mapping):
        return Configured(
            optimizers[0],
            stated["scheduler"],
            str(stated.get("interval", "epoch")),
            int(stated.get("frequency", 1)),
        )
    return Configured(optimizers[0], stated, "epoch", 1)


def _parsed(made: Any, name: str) -> tuple[list[Any], list[Any]]:
    """Optimizers and schedulers, of every form that Lightning takes."""
    match made:
        case None:
            return [], []
        case Optimizer():
            return [made], []
        case Mapping() if "optimizer" in made:
            scheduler = made.get("lr_scheduler")
            return [made["optimizer"]], [] if scheduler is None else [scheduler]
        case (list() | tuple() as first, list() | tuple() as second):
            return list(first), list(second)
        case list() | tuple():
            pairs = [_parsed(one, name) for one in made]
            return [one for some, _ in pairs for one in some], [
                one for _, some in pairs for one in some
            ]
        case _:
            raise TargetError(
                f"optimizer: configure_optimizers of {name} returns a {type(made).__name__}; "
                "expected an optimizer, or what else Lightning takes"
            )


class _Trainer(SimpleNamespace):
    """What configure_optimizers may ask its trainer for."""

    def __getattr__(self, name: str) -> Any:
        raise TargetError(
            f"optimizer: configure_optimizers asks self.trainer.{name}, which nothing here fills; "
            "it may ask max_epochs, max_steps, estimated_stepping_batches and num_training_batches"
        )


@contextmanager
def _trainer_of(module: Any, *, updates: int | None, epochs: int | None) -> Iterator[None]:
    told: dict[str, Any] = {"accumulate_grad_batches": 1}
    if updates is not None:
        told |= {"estimated_stepping_batches": updates, "max_steps": updates}
    if epochs is not None:
        told["max_epochs"] = epochs
    if updates is not None and epochs:
        told["num_training_batches"] = max(1, updates // epochs)
    before = module._trainer  # noqa: SLF001 - its setter takes Lightning's own Trainer alone
    vars(module)["_trainer"] = _Trainer(**told)
    try:
        yield
    finally:
        vars(module)["_trainer"] = before


def _unwrap(optimizer: Optimizer) -> None:
    """Takes back what a scheduler's making changed: the rates, and the counting of steps."""
    for group in optimizer.param_groups:
        if _OWN_RATE in group:
            group["lr"] = group.pop(_OWN_RATE)
    for name in ("step", "_opt_called"):
        vars(optimizer).pop(name, None)


def _as_plateau(one: ReduceLROnPlateau) -> dict[str, Any]:
    """The schedule of the same numbers, by the metric that the config names."""
    return {
        "kind": "plateau",
        "factor": one.factor,
        "patience": one.patience,
        "threshold": one.threshold,
        "threshold_mode": one.threshold_mode,
        "cooldown": one.cooldown,
        "mode": one.mode,
    }


def _described(found: Configured) -> str:
    every = f"every {found.frequency} " if found.frequency > 1 else "each "
    unit = {"step": "update", "epoch": "epoch"}.get(found.interval, found.interval)
    return f"{type(found.scheduler).__name__}, stepped {every}{unit}"


def _what_instead(found: Configured) -> str:
    kind = type(found.scheduler).__name__
    instead = instead_of(kind)
    if isinstance(found.scheduler, ReduceLROnPlateau):
        parts = (f"{name}: {value}" for name, value in _as_plateau(found.scheduler).items())
        return f"write schedule: {{{', '.join(parts)}}}"
    return (
        'write schedule: {kind: custom, target: "epochal.tasks.adapters:lightning_schedule", args: '
        "{module: <as of the model>, updates: <of an epoch>}}, which is it step for step, or a "
        f"kind that needs no torch to be planned: {instead}"
    )
