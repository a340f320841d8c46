"""Faults on demand: a storage and a disk that fail where a test says so, the same way each time.

And what a crash of the machine may leave of a store in a folder: `recorded`, `crash_states`.
"""

from epochal.data.testing.crash import (
    MODELS,
    CrashState,
    broken_promises,
    crash_states,
    drawn_states,
    promised,
)
from epochal.data.testing.disk import FaultyDisk
from epochal.data.testing.faults import FaultyBackend, injected
from epochal.data.testing.plan import FaultPlan
from epochal.data.testing.recording import Recording, recorded

__all__ = [
    "MODELS",
    "CrashState",
    "FaultPlan",
    "FaultyBackend",
    "FaultyDisk",
    "Recording",
    "broken_promises",
    "crash_states",
    "drawn_states",
    "injected",
    "promised",
    "recorded",
]
