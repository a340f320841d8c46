"""Errors told from one process to another: what kind, what they say, whose lines were running."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from epochal.data import errors
from epochal.data.errors import (
    EpochalError,
    InputError,
    PreflightFailed,
    StoreUnavailable,
    TargetError,
    TrainingFailed,
    passes_through,
)
from epochal.data.traces import (
    in_one_line,
    is_users,
    text_of,
    users_line,
    users_trace,
    whole_trace,
)
from epochal.tasks.user_code.failures import failed_module, raised_by_users_code

if TYPE_CHECKING:
    from torch import nn

_OURS: dict[str, type[EpochalError]] = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, EpochalError)
}
"""Those that have subclasses elsewhere are told as what they are here."""
_OF_SYSTEM = {kind.__name__: kind for kind in (FileExistsError, FileNotFoundError, OSError)}
_FRAME = re.compile(r'^  File "(?P<file>.+)", line (?P<line>\d+) in (?P<name>.+)$', re.MULTILINE)
_ESCAPED = re.compile(r"\\x[0-9a-f]{2}|\\u[0-9a-f]{4}|\\U[0-9a-f]{8}")  # faulthandler writes ASCII
FATAL = "Fatal Python error: "
"""Begins what is written where a process crashes, or ends itself by `os._exit`."""


class TrainerTraceback(Exception):
    """What the other process printed of an error, for `--debug`."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class TrainerDefect(RuntimeError):
    """The other process failed in a way that Epochal does not know."""


NO_TERMINAL = (
    ". A trainer process reads from no terminal: launch.kind: inline runs your code in the process "
    "of the command, where breakpoint() and input() work"
)
_ASKED_NOBODY = frozenset({"BdbQuit: ", "EOFError: EOF when reading a line"})
"""What a debugger and `input()` raise where there is nothing to read from."""


def told_error(error: BaseException) -> dict[str, Any]:
    """An error as plain JSON."""
    kinds = [one.__name__ for one in type(error).__mro__]
    if isinstance(error, EpochalError):
        kind = next(one for one in kinds if one in _OURS)
    else:
        kind = next((one for one in kinds if one in _OF_SYSTEM), "")
    return {
        "class": kind,
        "text": f"{text_of(error) if kind else in_one_line(error)}{_no_terminal(error)}",
        "errno": getattr(error, "errno", None),
        "trace": users_trace(error),
        "whole": whole_trace(error),
    }


def _no_terminal(error: BaseException) -> str:
    """What to do where the user's code has asked a person."""
    while error.__cause__ is not None:
        error = error.__cause__
    return NO_TERMINAL if f"{type(error).__name__}: {text_of(error)}" in _ASKED_NOBODY else ""


def error_of(told: Mapping[str, Any]) -> Exception:
    """The error that was told, to be raised here."""
    kind, text = told["class"], told["text"]
    error: Exception = TrainerDefect(text)
    if kind in _OURS:
        ours = _OURS[kind](text)
        ours.trace = told["trace"]
        error = ours
    elif kind in _OF_SYSTEM:
        number = told["errno"]
        said = (text,) if number is None else (number, text.removeprefix(f"[Errno {number}] "))
        error = _OF_SYSTEM[kind](*said)
    error.__cause__ = TrainerTraceback(told["whole"])
    return error


def before_start(error: BaseException, *, interruptible: bool) -> BaseException:
    """What an error that came before the first stage means: nothing has started.

    interruptible: whether a signal raises in this process; else KeyboardInterrupt is the user's.
    """
    if isinstance(error, StoreUnavailable | TrainingFailed):
        return PreflightFailed(str(error))
    if isinstance(error, EpochalError) or (interruptible and passes_through(error)):
        return error
    if not raised_by_users_code(error):
        return error
    return TargetError(
        f"before the start, code that the config names raised {in_one_line(error)}"
        f"{users_line(error)}"
    )


def at_work(
    error: BaseException, label: str, modules: Mapping[str, nn.Module | None] | None
) -> BaseException:
    """What an error of a stage's computation means.

    modules: of the user's, by their field; None where none of their code was called.

    At work a wrong target is no longer an input that is refused before anything starts.
    """
    cause = users_cause(error, modules)
    if cause is None:
        return error
    return TrainingFailed(
        f"{label}: {cause}; the stages before it are committed: the same command, or Retry in "
        "Prefect's UI, goes on from there"
    )


def users_cause(error: BaseException, modules: Mapping[str, nn.Module | None] | None) -> str | None:
    """What the user's code has done, or None for an error that means what it says."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, EpochalError):
        return None
    if (isinstance(error, OSError) or not isinstance(error, Exception)) and not (
        raised_by_users_code(error)
    ):
        return None  # a disk that is full, or the end of this process
    if modules is None:
        return f"{in_one_line(error)}{users_line(error)}"
    where = failed_module(error, modules)
    return f"{in_one_line(error)}{users_line(error)}{where}{_hint(error)}"


def _hint(error: BaseException) -> str:
    from epochal.tasks.run_data.probe_batches import ONE_SAMPLE, REMEDY

    if not text_of(error).startswith(ONE_SAMPLE):
        return ""
    return f" (a policy left an epoch whose last batch is a single sample: {REMEDY})"


@dataclass(frozen=True)
class Place:
    """Where the user's own code is, of what a dump shows.

    where: ` (FILE, line N)`, or empty. trace: the frames, the outermost first, or None.
    """

    where: str = ""
    trace: str | None = None


def place_in_dump(dump: str) -> Place:
    """From a dump of Python's stacks: of the thread that the signal came to."""
    _, found, stack = dump.rpartition("Current thread ")
    if not found:  # of a thread that is not Python's: the main thread is the last there
        stack = dump.rpartition("Thread 0x")[2]
    stack = stack.partition("\n\n")[0]
    frames = [match.groupdict() for match in _FRAME.finditer(_unescaped(stack))]
    own = [frame for frame in frames if is_users(frame["file"])]  # the innermost comes first
    if not own:
        return Place()
    shown = [f'  File "{one["file"]}", line {one["line"]}, in {one["name"]}' for one in own]
    trace = "\n".join(reversed(shown))
    return Place(f" ({own[0]['file']}, line {own[0]['line']})", f"{trace}\n")


def fatal_place(dumps: str) -> Place:
    """The last place at which a process crashed or ended itself."""
    _, found, last = dumps.rpartition(FATAL)
    if not found:
        return Place()
    place = place_in_dump(last)
    if place.trace is None:
        return place
    cause = last.partition("\n")[0]
    return Place(place.where, f"{place.trace}{cause}\n")


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(f"0x{found[0][2:]}", 0)), text)
