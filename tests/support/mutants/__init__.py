"""The faults of `make mutants`: small changes of the source that its tests must find."""

from support.mutants import (
    of_data,
    of_engine,
    of_loading,
    of_processes,
    of_reading,
    of_tasks,
    of_trainers,
)
from support.mutants.mutant import PARTS, ROOT, Mutant

__all__ = ["MUTANTS", "PARTS", "ROOT", "Mutant"]

MUTANTS = (
    *of_data.MUTANTS,
    *of_engine.MUTANTS,
    *of_loading.MUTANTS,
    *of_processes.MUTANTS,
    *of_reading.MUTANTS,
    *of_tasks.MUTANTS,
    *of_trainers.MUTANTS,
)
