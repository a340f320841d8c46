"""A run's schedule, once the size of its data and the user's own function are known. No torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from epochal.data.errors import ConfigError, TargetError
from epochal.data.hashing import digest
from epochal.engine.schedule import schedule
from epochal.engine.schedule.kinds import CustomSchedule
from epochal.engine.schedule.schedule import ScheduleConfig
from epochal.tasks.config.run import RunConfig
from epochal.tasks.user_code.targets import resolve_target, resolved_args


def in_epochs(config: RunConfig, num_samples: int | None) -> ScheduleConfig | None:
    """The schedule with durations in epochs; None while the data's size must be known for it.

    num_samples: of the training data. Raises ConfigError if it does not fit into the run.
    """
    if config.schedule.unit == "epochs":
        return config.schedule
    if num_samples is None:
        return None
    rows = config.sampler.epoch_length(num_samples)
    num_updates = config.loader.num_updates(rows, accumulate=config.gradients.accumulate)
    found = config.schedule.in_epochs(num_updates=num_updates)
    try:
        found.check(config.epochs)
    except ValueError as error:
        raise ConfigError(
            f"schedule: {error}; its unit is updates, of which an epoch has {num_updates}"
        ) from None
    return found


def rate_function(config: RunConfig, *, num_samples: int) -> Callable[[float], float]:
    """The factor of the base rate at a fractional epoch. Raises TargetError or ConfigError."""
    found = in_epochs(config, num_samples)
    assert found is not None
    return _function(config, found)


def sample_digests(config: RunConfig, num_samples: int | None) -> tuple[str, ...]:
    """A digest of 257 samples of a user's function for each epoch; none of other schedules.

    Imports and calls the function. Raises TargetError if it cannot, or gives no factors.
    """
    found = in_epochs(config, num_samples)
    if not isinstance(found, CustomSchedule):
        return ()
    function = _function(config, found)
    return tuple(
        digest("schedule-samples", schedule.samples(function, epoch))
        for epoch in range(config.epochs)
    )


def _function(config: RunConfig, found: ScheduleConfig) -> Callable[[float], float]:
    custom = None
    if isinstance(found, CustomSchedule):
        folder = Path(config.folder)
        custom = partial(
            _called,
            resolve_target(found, field="schedule", folder=folder),
            resolved_args(found.args, folder=folder),
        )
    return schedule.factor_function(found, epochs=config.epochs, custom=custom)


def _called(function: Callable[..., Any], args: dict[str, Any], t: float) -> Any:
    try:
        return function(t, **args)
    except Exception as error:  # the user's function may raise anything
        raise TargetError(
            f"schedule: its target raised {type(error).__name__} at epoch {t:g}: {error}; it is "
            f"called with the fractional epoch and args: {args}"
        ) from error
