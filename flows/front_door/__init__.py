"""Epochal: PyTorch training as a Prefect pipeline, every epoch a keyed, cached, resumable stage.

    import epochal

    epochal.plan("digits.yaml")["stages"]     # what would run, and why
    epochal.train("digits.yaml")["metrics"]
    epochal.samples("digits.yaml", order="hardest")["samples"]

What is heavy is imported when it is first asked for. Training without the pipeline:
`epochal.engine`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from epochal.data.errors import (
    BadStore,
    ConfigError,
    CorruptObject,
    DataError,
    EpochalError,
    InputError,
    Interrupted,
    NonFinite,
    NotDeterministic,
    NotFound,
    PeerLost,
    PreflightFailed,
    ServerUnavailable,
    StateMismatch,
    StoreUnavailable,
    TargetError,
    TrainingFailed,
    Unavailable,
)
from epochal.data.lazy import lazy_names

__all__ = [
    "BadStore",
    "ConfigError",
    "CorruptObject",
    "DataError",
    "EpochalError",
    "InputError",
    "Interrupted",
    "NonFinite",
    "NotDeterministic",
    "NotFound",
    "PeerLost",
    "PreflightFailed",
    "ServerUnavailable",
    "StateMismatch",
    "StoreUnavailable",
    "TargetError",
    "TrainingFailed",
    "Unavailable",
    "__version__",
    "load_config",
    "open_store",
    "plan",
    "samples",
    "train",
]

if TYPE_CHECKING:
    from epochal.data.store import open_store
    from epochal.flows.functions import plan, samples, train
    from epochal.flows.version import __version__
    from epochal.tasks.config.load import load_config
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "epochal.data.store": ("open_store",),
            "epochal.flows.functions": ("plan", "samples", "train"),
            "epochal.flows.version": ("__version__",),
            "epochal.tasks.config.load": ("load_config",),
        },
    )
