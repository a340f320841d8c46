"""Settings of the numbers; pure pydantic."""

from epochal.engine.config.batch_norm import BatchNormConfig
from epochal.engine.config.mid_epoch import ValidationConfig
from epochal.engine.config.mixing import MixingConfig
from epochal.engine.config.numerics import (
    EmaConfig,
    GradientsConfig,
    MetricsConfig,
    MetricTarget,
    PrecisionConfig,
)
from epochal.engine.config.optimizer import FrozenParameters, OptimizerConfig, ParameterGroup

__all__ = [
    "BatchNormConfig",
    "EmaConfig",
    "FrozenParameters",
    "GradientsConfig",
    "MetricTarget",
    "MetricsConfig",
    "MixingConfig",
    "OptimizerConfig",
    "ParameterGroup",
    "PrecisionConfig",
    "ValidationConfig",
]
