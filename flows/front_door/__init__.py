"""Epochal: PyTorch training as a Prefect pipeline, every epoch a keyed, cached, resumable stage.

    import epochal

    epochal.plan("digits.yaml")["stages"]     # what would run, and why
    epochal.train("digits.yaml")["metrics"]
    epochal.samples("digits.yaml", order="hardest")["samples"]
    epochal.sweep("sweep.yaml").best

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
    "compare",
    "load_config",
    "open_store",
    "plan",
    "query",
    "runs",
    "samples",
    "sweep",
    "train",
    "why",
]

if TYPE_CHECKING:
    from epochal.data.store import open_store
    from epochal.flows.library.functions import plan, runs, samples, train
    from epochal.flows.library.inspection import compare, query, why
    from epochal.flows.library.sweeps import sweep
    from epochal.flows.version import __version__
    from epochal.tasks.config.load import load_config
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "epochal.data.store": ("open_store",),
            "epochal.flows.library.functions": ("plan", "runs", "samples", "train"),
            "epochal.flows.library.inspection": ("compare", "query", "why"),
            "epochal.flows.library.sweeps": ("sweep",),
            "epochal.flows.version": ("__version__",),
            "epochal.tasks.config.load": ("load_config",),
        },
    )
