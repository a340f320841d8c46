"""`max_updates`: how many epochs a run has then, and after how many updates its last one is cut.

The number of updates follows from the number of samples, so the limit needs epochs that all train
on the same samples. Pure integers: `plan` calls it, and no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from epochal.data.errors import ConfigError, TargetError, passes_through
from epochal.data.hashing import digest
from epochal.data.traces import in_one_line, users_line
from epochal.engine.schedule import schedule
from epochal.engine.schedule.kinds import CustomSchedule
from epochal.engine.schedule.names_of_torch import instead_of, scheduler_class
from epochal.engine.schedule.schedule import ScheduleConfig
from epochal.tasks.config.run import MAX_EPOCHS, RunConfig
from epochal.tasks.user_code.targets import built_args, resolve_target


def in_epochs(config: RunConfig, num_samples: int | None) -> ScheduleConfig | None:
    """The schedule with durations in epochs; None while the data's size must be known for it.

    num_samples: of the training data. Raises ConfigError if it does not fit into the run.
    """
    if config.schedule.unit == "epochs":
        return config.schedule
    if num_samples is None:
        return None
    rows = config.epoch_rows(num_samples)
    num_updates = config.loader.num_updates(rows, accumulate=config.gradients.accumulate)
    schedule_config = config.schedule.in_epochs(num_updates=num_updates)
    try:
        schedule_config.check(config.epochs)
    except ValueError as error:
        raise ConfigError(
            f"schedule: {error}; its unit is updates, of which an epoch has {num_updates}"
        ) from None
    return schedule_config


def rate_function(
    config: RunConfig, *, num_samples: int, lowered: float = 1.0
) -> Callable[[float], float]:
    """The factor of the base rate at a fractional epoch. Raises TargetError or ConfigError.

    lowered: what a plateau schedule multiplies it by in the epoch that is asked for.
    """
    schedule_config = in_epochs(config, num_samples)
    assert schedule_config is not None
    function = _function(config, schedule_config)
    return function if lowered == 1.0 else lambda t: lowered * function(t)


def sample_digests(config: RunConfig, num_samples: int | None) -> tuple[str, ...]:
    """A digest of 257 samples of a user's function for each epoch; none of other schedules.

    Imports and calls the function. Raises TargetError if it cannot, or gives no factors.
    """
    schedule_config = in_epochs(config, num_samples)
    if not isinstance(schedule_config, CustomSchedule):
        return ()
    function = _function(config, schedule_config)
    return tuple(
        digest("schedule-samples", schedule.samples(function, epoch))
        for epoch in range(config.epochs)
    )


def _function(config: RunConfig, schedule_config: ScheduleConfig) -> Callable[[float], float]:
    custom = None
    if isinstance(schedule_config, CustomSchedule):
        folder = Path(config.folder)
        custom = partial(
            _called,
            _no_scheduler(resolve_target(schedule_config, field="schedule", folder=folder)),
            built_args(schedule_config, field="schedule", folder=folder),
        )
    return schedule.factor_function(schedule_config, epochs=config.epochs, custom=custom)


def _no_scheduler(target: Callable[..., Any]) -> Callable[..., Any]:
    name = scheduler_class(target)
    if name is not None:
        raise TargetError(
            f"schedule.target: {getattr(target, '__name__', target)} is a scheduler of torch "
            f"({name}): {instead_of(name)}"
        )
    return target


def _called(function: Callable[..., Any], args: dict[str, Any], t: float) -> Any:
    try:
        return function(t, **args)
    except BaseException as error:  # the user's function may raise anything
        if passes_through(error):
            raise
        raise TargetError(
            f"schedule: its target raised at epoch {t:g} {in_one_line(error)}"
            f"{users_line(error)}; it is called with the fractional epoch and args: {args}"
        ) from error


def updates_of(config: RunConfig, epoch: int, *, num_samples: int) -> int:
    """The updates of a whole epoch on all samples; as `data.loading.order` cuts them."""
    accumulate = config.gradients.accumulated(epoch)
    rows = config.epoch_rows(num_samples)
    return config.loader.num_updates(rows, accumulate=accumulate)


def updates_left(config: RunConfig, epoch: int, *, num_samples: int | None) -> int | None:
    """Updates after which that epoch is cut short, or None for one that is whole."""
    if config.max_updates is None or num_samples is None:
        return None
    per_epoch = updates_of(config, epoch, num_samples=num_samples)
    before = _updates_before(config, epoch, num_samples=num_samples)
    left = config.max_updates - before
    return left if 0 < left < per_epoch else None


def _updates_before(config: RunConfig, epoch: int, *, num_samples: int) -> int:
    # Accumulation changes the number once, at `accumulate_from`.
    turn = min(config.gradients.accumulate_from, epoch)
    early = turn * updates_of(config, 0, num_samples=num_samples) if turn else 0
    return early + (epoch - turn) * updates_of(config, epoch, num_samples=num_samples)


def with_epochs(config: RunConfig, *, num_samples: int | None) -> RunConfig:
    """The config with the number of epochs that `max_updates` leaves, at most its own.

    num_samples: of the training data; None while it is not known: one epoch stands for those that
    will be, where `epochs` is left out. Raises ConfigError if the schedule does not fit into them.
    """
    if config.max_updates is None:
        return config
    if num_samples is None:
        epochs = 1 if config.epochs == MAX_EPOCHS else config.epochs
    else:
        epochs = min(config.epochs, _epochs_of(config, num_samples=num_samples))
    if epochs == config.epochs:
        return config
    planned = config.model_copy(update={"epochs": epochs})
    try:
        if num_samples is not None:
            in_epochs(planned, num_samples)
            if planned.schedule.unit == "epochs":
                planned.schedule.check(epochs)
            if planned.batch_norm is not None:
                planned.batch_norm.check(epochs)
    except ValueError as error:
        raise ConfigError(
            f"schedule, batch_norm: {error}, which max_updates: {config.max_updates} leaves of "
            f"{num_samples} samples; raise max_updates or shorten the schedule"
        ) from None
    return planned


def _epochs_of(config: RunConfig, *, num_samples: int) -> int:
    assert config.max_updates is not None
    turn = config.gradients.accumulate_from
    first = updates_of(config, 0, num_samples=num_samples)
    early = -(-config.max_updates // first)
    if early <= turn:
        return early
    done = turn * first
    later = updates_of(config, turn, num_samples=num_samples)
    return turn + -(-(config.max_updates - done) // later)
