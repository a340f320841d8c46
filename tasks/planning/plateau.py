"""A plateau schedule in a run: what of it is in an epoch's key, and the factors by the records.

A key is known before anything is measured, so it holds the rule and what the metric is measured by,
never the value; the epochs before it give the rest, since their keys are among its parents. Epochs
that come too early to be lowered are keyed as under a constant rate.
"""

from __future__ import annotations

from itertools import takewhile
from typing import Any

from epochal.data.errors import TrainingFailed
from epochal.engine.config.numerics import EMA
from epochal.engine.schedule.kinds import PlateauSchedule
from epochal.engine.schedule.plateau import factors
from epochal.tasks.config.parts import rule
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.inputs import validation_batch_size, with_source
from epochal.tasks.planning.run_length import in_epochs
from epochal.tasks.planning.run_view import RunView
from epochal.tasks.planning.stage import RunInputs

SECTION = "schedule.plateau"
"""Of the inputs of the epochs that may be lowered."""


def _schedule(config: RunConfig, num_samples: int | None) -> PlateauSchedule | None:
    """The plateau schedule in epochs; None for others, and while the data's size is not known."""
    by_epoch = in_epochs(config, num_samples)
    return by_epoch if isinstance(by_epoch, PlateauSchedule) else None


def plateau_inputs(
    config: RunConfig, run_inputs: RunInputs, epoch: int, *, version: int
) -> dict[str, Any]:
    """The sections of an epoch's key; empty where no validation can have lowered its rate.

    Only the metric that is watched is among them: to measure another one beside it changes nothing.
    version: of the stages that measure it.
    """
    schedule = _schedule(config, run_inputs.train_data.num_samples)
    if schedule is None or epoch < schedule.first_lowered:
        return {}
    name, mode = rule(schedule, config.metrics)
    own = {
        metric.name: metric for metric in config.metrics.validation if not isinstance(metric, str)
    }.get(name.removeprefix(EMA))
    acting = schedule.model_dump(mode="json", exclude={"kind", "unit", "warmup", "metric", "mode"})
    return {
        SECTION: {
            **acting,
            "metric": name,
            "mode": mode,
            "first_seen": schedule.first_seen,
            "batch_size": validation_batch_size(config),
            "validate": version,
        },
        **(
            {}
            if own is None
            else with_source(run_inputs, f"metrics.{own.name}", own.model_dump(mode="json"))
        ),
        **with_source(run_inputs, "validation_data", run_inputs.validation_data.fingerprint),
    }


def known_factors(view: RunView, num_samples: int | None) -> list[float]:
    """The factor of each epoch from the first, as far as the validations before it are done.

    Empty where there is no plateau schedule. num_samples: of the training data, if it is known.
    """
    schedule = _schedule(view.config, num_samples)
    if schedule is None:
        return []
    metric, mode = rule(schedule, view.config.metrics)
    validations = (stage for stage in view.stages if stage.kind == "validate")
    done = takewhile(view.is_done, validations)
    values = [
        view.record_of(stage).values["metrics"].get(metric)
        for stage in done
        if stage.number >= schedule.first_seen
    ]
    found = [1.0] * schedule.first_seen + list(factors(schedule, values, mode=mode))
    epochs = view.config.epochs
    early = [1.0] * (min(schedule.first_lowered, epochs) - len(found))  # whatever is measured
    return [*found, *early][:epochs]


def factor_of(view: RunView, epoch: int, *, num_samples: int) -> float:
    """What the rate of that epoch is multiplied by: 1 where there is no plateau schedule.

    The validations before it must be done. Raises TrainingFailed if they have not measured the
    metric as one number.
    """
    found = known_factors(view, num_samples)
    if not found:
        return 1.0
    assert isinstance(view.config.schedule, PlateauSchedule)
    metric = rule(view.config.schedule, view.config.metrics)[0]
    for stage, record in view.of_kind("validate"):
        if stage.number < epoch and metric not in record.values["metrics"]:
            measured = ", ".join(record.values["metrics"])
            raise TrainingFailed(
                f"schedule.metric: {metric!r} is no single number; {stage.label} has measured "
                f"{measured}: choose a metric that gives one"
            )
    return found[epoch]
