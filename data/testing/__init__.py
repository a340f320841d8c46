"""Faults on demand: a storage and a disk that fail where a test says so, the same way each time."""

from epochal.data.testing.disk import FaultyDisk
from epochal.data.testing.faults import FaultyBackend, injected
from epochal.data.testing.plan import FaultPlan

__all__ = ["FaultPlan", "FaultyBackend", "FaultyDisk", "injected"]
