"""Every error that Epochal raises on purpose, and the exit code that each one means.

    EpochalError
    ├── InputError             2   nothing has started
    │   ├── ConfigError            a field of the config
    │   ├── TargetError            a `module:attr` that does not import, call or fit
    │   ├── DataError              a data set that cannot be trained on
    │   ├── BadStore               a store that cannot be used as it is written
    │   ├── NotFound               a run, stage or file that was asked for by name
    │   └── PreflightFailed        a check before the first stage
    ├── TrainingFailed         3   the numbers, or the user's own code, failed
    │   ├── NonFinite              a loss or gradient that is NaN or infinite
    │   ├── NotDeterministic       one key, one environment, two results
    │   └── StateMismatch          a checkpoint that does not fit the model
    └── Unavailable           75   what was committed is intact: run the same command to go on
        ├── StoreUnavailable       the store, the disk or the network
        ├── ServerUnavailable      Prefect's server
        ├── CorruptObject          bytes whose digest is wrong
        ├── PeerLost               another process of a group that trains together
        └── Interrupted            a signal or a cancellation

A message says what, where, what was found, what was expected and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar


class EpochalError(Exception):
    """The root; `exit_code` is what the command line returns.

    trace: the frames of the user's own code, where the error was told as text by another process.
    result: of `epochal.sweep` where runs have failed: what it would have given.
    """

    exit_code: ClassVar[int] = 3
    trace: str | None = None
    result: Mapping[str, Any] | None = None


class InputError(EpochalError):
    """Something the user gave is wrong; nothing was started."""

    exit_code = 2


class ConfigError(InputError):
    """A field of the config: names it, what was found and what was expected."""


class TargetError(InputError):
    """A `module:attr` target that cannot be imported or called."""


class DataError(InputError):
    """A data set that cannot be trained on."""


class BadStore(InputError):
    """A store address or a store that cannot be used."""


class NotFound(InputError):
    """A run, a stage or a file that was asked for by name does not exist."""


class PreflightFailed(InputError):
    """A check before the first stage failed."""


class TrainingFailed(EpochalError):
    """Training itself failed; what was committed before is intact."""

    exit_code = 3


class NonFinite(TrainingFailed):
    """A loss or gradient is NaN or infinite; nothing of this epoch was committed."""


class NotDeterministic(TrainingFailed):
    """The same key in the same environment gave other bytes."""


class StateMismatch(TrainingFailed):
    """A checkpoint's tensors do not fit the model or optimizer."""


class Unavailable(EpochalError):
    """Something outside failed; what was committed is intact."""

    exit_code = 75


class StoreUnavailable(Unavailable):
    """The store, its disk or its network failed."""


class ServerUnavailable(Unavailable):
    """Prefect's server cannot be reached or started."""


class PeerLost(Unavailable):
    """Another process of the group that trains together is gone."""


class CorruptObject(Unavailable):
    """An object of the store whose bytes do not have the digest that its record names."""


class Interrupted(Unavailable):
    """A signal or a cancellation ended the run."""


def out_of_memory(path: Path) -> Unavailable:
    """To be raised where memory ran out while a file was read, which may be as good as ever."""
    return Unavailable(
        f"{path} could not be read, since memory ran out; end what else needs memory, or raise its "
        "limit (`ulimit -v`, that of the container), then run the same command to go on"
    )


def passes_through(error: BaseException) -> bool:
    """Whether an error is not what the user's code has raised, where that was called.

    It is one of ours, Ctrl-C, or what a signal's handler raised (Prefect's class has the name of
    ours). All else is the user's: `sys.exit()` and other BaseExceptions too.
    """
    return isinstance(error, EpochalError | KeyboardInterrupt) or (
        type(error).__name__ == "TerminationSignal"
    )


_FORMER_NAMES = {"Damaged": CorruptObject, "StoreRefused": BadStore}


def __getattr__(name: str) -> Any:
    """Errors under the names that they had before, for `except` clauses that are there."""
    if name not in _FORMER_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _FORMER_NAMES[name]
