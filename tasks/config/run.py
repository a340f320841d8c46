"""`RunConfig`: the whole of a run, composed of parts that live beside what they configure.

It is the flow's parameter as well, so each field's bounds and help show in the UI's form.
No torch, no Prefect, no MLflow.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from epochal.data.config.augment import AugmentConfig
from epochal.data.config.batches import BatchesConfig
from epochal.data.config.dataset import BatchNames
from epochal.data.config.loader import DataConfig, LoaderConfig, SamplingConfig
from epochal.data.types import Frozen, Target, TargetName, from_json
from epochal.engine.config.batch_norm import BatchNormConfig
from epochal.engine.config.mid_epoch import ValidationConfig
from epochal.engine.config.mixing import MixingConfig
from epochal.engine.config.numerics import (
    EMA,
    EmaConfig,
    GradientsConfig,
    MetricsConfig,
    PrecisionConfig,
)
from epochal.engine.config.optimizer import OptimizerConfig
from epochal.engine.schedule.kinds import ConstantSchedule, PlateauSchedule
from epochal.engine.schedule.schedule import ScheduleConfig
from epochal.tasks.config.parts import (
    AveragingConfig,
    CheckpointConfig,
    EarlyStoppingConfig,
    LaunchConfig,
    TrackingConfig,
    WarmStartConfig,
    rule,
)

RUN_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
MAX_EPOCHS = 1_000_000
"""Also stands for a number that `max_updates` alone decides."""
DEVICE = r"auto|cpu|mps|cuda(:[0-9]{1,4})?"
FORMER_NAMES = {"sampler": "batches"}
"""Fields by the names that older configs and stored plans give them."""


def _absolute(folder: str) -> str:
    if "\0" in folder:
        raise ValueError("a path cannot hold the character NUL")
    if not Path(folder).is_absolute():
        raise ValueError(f"{folder!r} is not an absolute path")
    return folder


class RunConfig(Frozen):
    """One training run."""

    name: str = Field(
        pattern=f"^{RUN_NAME}$",
        description="the run's name: letters, digits, '.', '_' and '-'; in no stage key",
        examples=["digits"],
    )
    seed: int = Field(
        default=0, ge=0, lt=2**63, description="seed of the weights, the order and all randomness"
    )
    epochs: int = Field(
        ge=1, le=MAX_EPOCHS, description="number of epochs; with `max_updates` it may be left out"
    )
    max_updates: int | None = Field(
        default=None,
        ge=1,
        description="updates of the whole run, exactly: the epoch in which they are reached is cut "
        "there. none: whole epochs. Needs `sampling.policy: none`",
    )
    store: str = Field(
        default="./store",
        max_length=2000,
        description="where stages are kept: ./x, ../x, /x or scheme://x; relative to `folder`",
        examples=["./store", "s3://bucket/prefix"],
    )
    model: Target = Field(description="returns a torch.nn.Module")
    train_data: DataConfig = Field(description="returns a map-style data set to train on")
    validation_data: DataConfig = Field(description="returns a map-style data set to validate on")
    batch: BatchNames | None = Field(
        default=None,
        description="which keys of an item, or places in it, are the default step's `input` and "
        "`target`; none: (input, target), or by the names that it knows",
    )
    loss: Target = Field(
        default=Target.as_usual(target="torch.nn:CrossEntropyLoss"),
        description="a loss module's class, or a function (output, target) -> loss",
    )
    step: Target | None = Field(
        default=None,
        description="replaces loss(model(input), target): returns a callable "
        "(model, batch) -> StepOutput; none: the default step",
    )
    optimizer: OptimizerConfig = Field(description="a torch.optim class; `args.lr` is needed")
    schedule: ScheduleConfig = Field(
        default=ConstantSchedule.as_usual(),
        description="the learning rate as a function of the epoch",
    )
    loader: LoaderConfig = Field(description="batches")
    batches: BatchesConfig = Field(
        default=BatchesConfig.as_usual(),
        description="resolution and number of the samples of a micro-batch, and repetition",
    )
    gradients: GradientsConfig = Field(
        default=GradientsConfig.as_usual(), description="accumulation and clipping"
    )
    precision: PrecisionConfig = Field(
        default=PrecisionConfig.as_usual(), description="in which numbers the model computes"
    )
    augment: AugmentConfig | None = Field(
        default=None,
        description="operations on batches of images, with random numbers by sample; none: images "
        "as the data set gives them",
    )
    mixing: MixingConfig | None = Field(
        default=None, description="mixup, CutMix and smoothed labels; none: samples as they are"
    )
    ema: EmaConfig | None = Field(
        default=None, description="an average of the weights beside the model; none: not kept"
    )
    batch_norm: BatchNormConfig | None = Field(
        default=None, description="how BatchNorm's momentum changes; none: it does not"
    )
    sampling: SamplingConfig = Field(
        default=SamplingConfig.as_usual(), description="which samples the next epoch trains on"
    )
    metrics: MetricsConfig = Field(
        default=MetricsConfig.as_usual(), description="what validation measures"
    )
    validation: ValidationConfig = Field(
        default=ValidationConfig.as_usual(), description="validation inside epochs"
    )
    early_stopping: EarlyStoppingConfig | None = Field(
        default=None,
        description="ends the run when a metric no longer improves; none: all epochs. In no "
        "stage key",
    )
    averaging: AveragingConfig | None = Field(
        default=None,
        description="the mean of some epochs' weights, after the last one; none: not made",
    )
    start: WarmStartConfig | None = Field(
        default=None, description="weights to start from; none: the model's own initial ones"
    )
    checkpoint: CheckpointConfig = Field(
        default=CheckpointConfig.as_usual(), description="commits inside epochs; in no stage key"
    )
    tracking: TrackingConfig = Field(
        default=TrackingConfig.as_usual(), description="where MLflow is; in no stage key"
    )
    launch: LaunchConfig = Field(
        default=LaunchConfig.as_usual(), description="where the user's code runs; in no stage key"
    )
    device: str = Field(
        default="auto",
        pattern=f"^({DEVICE})$",
        description="auto (CUDA where there is one), cpu, cuda, cuda:N or mps; part of the "
        "numerics environment, in no stage key",
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="CPU threads of torch; another number may change the last bits, so fix it "
        "where runs must agree over machines. none: torch's default",
    )
    reproducibility: Literal["warn", "strict"] = Field(
        default="warn",
        description="what to do with stages from another numerics environment: use and say so, "
        "or refuse",
    )
    targets_allowed: tuple[TargetName, ...] = Field(
        default=(),
        description="targets that a run of the deployment may name beside those of the deployed "
        "config; what counts is what `epochal deploy` was given, not the form. In no stage key",
        examples=[["torch.nn:L1Loss", "model:Wide"]],
    )
    folder: Annotated[str, AfterValidator(_absolute)] = Field(
        default_factory=lambda: str(Path.cwd()),
        description="absolute folder of the user's modules and relative paths; in no stage key",
    )

    @model_validator(mode="before")
    @classmethod
    def _sections_as_usual(cls, data: Any) -> Any:
        """A section without a value is as usual: `batches:` in YAML, a choice in the form."""
        if not isinstance(data, dict):
            return data
        return {
            name: value for name, value in data.items() if value is not None or name not in SECTIONS
        }

    @model_validator(mode="before")
    @classmethod
    def _former_names(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        for former in FORMER_NAMES.keys() & data.keys():
            name = FORMER_NAMES[former]
            if name in data:
                raise ValueError(f"{former}: it is the former name of {name}, which is there too")
            data = {**data, name: data[former]}
            del data[former]
        return data

    @model_validator(mode="before")
    @classmethod
    def _epochs_by_updates(cls, data: Any) -> Any:
        if isinstance(data, dict) and "epochs" not in data and data.get("max_updates") is not None:
            return {**data, "epochs": MAX_EPOCHS}
        return data

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        try:
            if self.schedule.unit == "epochs":  # else the data's size must be known first
                self.schedule.check(self.epochs)
        except ValueError as error:
            raise ValueError(f"schedule: {error}") from None
        if self.schedule.unit == "updates":
            self._check_updates_are_fixed()
        if self.batch_norm is not None:
            self._check_batch_norm(self.batch_norm)
        if self.ema is None:
            self._check_nothing_is_of_the_average()
        if self.max_updates is not None and self.sampling.policy != "none":
            raise ValueError(
                f"max_updates: it needs the same number of updates in every epoch, which "
                f"sampling.policy: {self.sampling.policy} changes; use epochs, or policy: none"
            )
        if self.max_updates is not None and self.batches.varies_updates:
            raise ValueError(
                f"max_updates: it needs the same number of updates in every epoch, which "
                f"batches.kind: {self.batches.kind} changes; use epochs, or kind: multi_scale"
            )
        self._check_loader()
        self._check_watched_metrics()
        self._check_processes()
        try:
            if self.averaging is not None:
                self.averaging.check(self.epochs)
        except ValueError as error:
            raise ValueError(f"averaging: {error}") from None
        return self

    def _check_loader(self) -> None:
        loader, batches, policy = self.loader, self.batches, self.sampling.policy
        if loader.batch_tokens is not None and batches.kind != "fixed":
            raise ValueError(
                f"loader.batch_tokens: it cuts micro-batches by lengths, batches.kind: "
                f"{batches.kind} by resolutions; give one of them"
            )
        if loader.batch_tokens is not None and self.max_updates is not None:
            raise ValueError(
                "max_updates: it needs the same number of updates in every epoch, which "
                "loader.batch_tokens changes; use epochs, or loader.batch_size alone"
            )
        if loader.epoch_samples is None:
            return
        reasons = {
            f"sampling.policy: {policy}, which keeps other samples in each epoch": policy != "none",
            "batches.class_balanced, which draws each epoch anew": batches.class_balanced,
            "batches.repeats, which makes an epoch of its samples": batches.repeats > 1,
        }
        for reason, found in reasons.items():
            if found:
                raise ValueError(
                    "loader.epoch_samples: its epochs are parts of permutations of all samples; "
                    f"found {reason}; leave one of them out"
                )

    @property
    def needs_lengths(self) -> bool:
        """Whether the order goes by the lengths that `train_data` tells."""
        return self.loader.batch_tokens is not None or self.batches.by_length is not None

    def epoch_rows(self, num_samples: int) -> int:
        """Samples of an epoch, each as often as it comes. num_samples: of the training data."""
        return self.loader.epoch_samples or self.batches.epoch_length(num_samples)

    @property
    def varies_batches(self) -> bool:
        """Whether micro-batches differ in size from epoch to epoch."""
        return self.batches.varies_updates or self.loader.batch_tokens is not None

    def _check_processes(self) -> None:
        processes, shards = self.launch.processes, self.gradients.shards
        if processes > shards:
            raise ValueError(
                f"launch.processes: {processes} processes share the shards of an update, of which "
                f"there are {shards}; give gradients.shards: {1 << (processes - 1).bit_length()}, "
                "which is part of the result, or fewer processes"
            )
        self.launch.check()
        if self.launch.shard_model:
            self._check_slices()

    def _check_slices(self) -> None:
        """What a model in slices cannot have."""
        precision = self.precision
        reasons = {
            "precision.dtype: float16 scales the loss by a whole model's gradients; use bfloat16": (
                precision.dtype == "float16"
            ),
            "precision.compile: a compiled model has its weights as a whole": precision.compile,
            "precision.channels_last: rows of weights in that order are no slices": (
                precision.channels_last
            ),
            "optimizer.frozen: what trains is fixed when the model is cut": bool(
                self.optimizer.frozen
            ),
        }
        for reason, found in reasons.items():
            if found:
                raise ValueError(f"launch.shard_model: not with {reason}, or without shard_model")

    def _check_nothing_is_of_the_average(self) -> None:
        if self.metrics.best_metric.startswith(EMA):
            raise ValueError(
                f"metrics.best: {self.metrics.best!r} is of the average of the weights; give `ema`"
            )
        scoring = self.sampling.scoring
        if scoring is not None and scoring.weights == "ema":
            raise ValueError(
                "sampling.scoring.weights: 'ema' is the average of the weights; give `ema`"
            )

    def _check_batch_norm(self, batch_norm: BatchNormConfig) -> None:
        try:
            batch_norm.check(self.epochs)
        except ValueError as error:
            raise ValueError(f"batch_norm: {error}") from None
        if self.precision.compile:
            raise ValueError(
                "batch_norm: with precision.compile the model would be compiled anew at every "
                "update, since compiled code holds the momentum as a constant; leave one out"
            )

    def _check_updates_are_fixed(self) -> None:
        gradients, policy = self.gradients, self.sampling.policy
        if policy != "none":
            cause = f"sampling.policy: {policy!r} changes it"
        elif self.batches.varies_updates:
            cause = f"batches.kind: {self.batches.kind!r} changes it"
        elif self.loader.batch_tokens is not None:
            cause = f"loader.batch_tokens: {self.loader.batch_tokens} changes it"
        elif gradients.accumulate > 1 and gradients.accumulate_from > 0:
            cause = f"gradients.accumulate_from: {gradients.accumulate_from} changes it"
        else:
            return
        raise ValueError(
            "schedule.unit: 'updates' needs one number of updates in every epoch, and "
            f"{cause}; give the durations in epochs"
        )

    def _check_watched_metrics(self) -> None:
        measured = self.metrics.numbers
        if self.ema is not None:
            measured = (*measured, *(EMA + name for name in measured))
        for field, watching in (
            ("early_stopping", self.early_stopping),
            ("schedule", self.schedule),
        ):
            if isinstance(watching, EarlyStoppingConfig | PlateauSchedule):
                metric = rule(watching, self.metrics)[0]
                if metric not in measured:
                    raise ValueError(
                        f"{field}.metric: {metric!r} is not measured; there is "
                        f"{', '.join(measured)}"
                    )


SECTIONS: dict[str, Frozen] = {
    name: field.default
    for name, field in RunConfig.model_fields.items()
    if isinstance(field.default, Frozen)
}
"""Groups of fields that need not be given, and what they are then."""


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings as (dotted path, value); lists are leaves.

    A key of a user's own that holds a dot stands in quotes: no two leaves have the same path.
    Numbers that are not finite are texts, as YAML writes them: NaN is not equal to itself.
    """
    yield from _leaves(from_json(value), prefix)


def _leaves(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            name = str(key)
            if not name or "." in name or '"' in name:
                name = json.dumps(name, ensure_ascii=False)
            yield from _leaves(item, f"{prefix}.{name}" if prefix else name)
    else:
        yield prefix, _shown(value)


def _shown(value: Any) -> Any:
    if isinstance(value, list):
        return [_shown(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _shown(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else f"{'-' * (value < 0)}.inf"
    return value
