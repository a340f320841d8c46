"""Where an error comes from, for the person whose code it is: their own files, without libraries.

A traceback of a training run has some twenty frames of Epochal, Prefect and torch around the one
line that is to be mended. Here it begins in the user's own file.
"""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from epochal.data.errors import EpochalError

INSTALLED = ("site-packages", "dist-packages")
"""Folders that hold installed packages: what lies in them is no file of the user's."""

_OWN = tuple(
    f"{os.path.realpath(Path(__file__).parents[1] / name)}{os.sep}"
    for name in ("data", "engine", "tasks", "flows")
)
_STANDARD = tuple(
    f"{os.path.realpath(path)}{os.sep}"
    for path in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
)
_MOST_CHARACTERS = 500  # of a message: some print the tensor that they do not like
_MOST_TRACE = 20_000
_MOST_WHOLE = 200_000


@cache
def is_users(filename: str) -> bool:
    """Whether a file is the user's own: not of an installed package, of Python or of Epochal."""
    if filename.startswith("<"):  # text that was compiled: of a dataclass, of a notebook's shell
        return False
    path = os.path.realpath(filename)
    if path.startswith(_OWN):
        return False
    return not any(part in INSTALLED for part in Path(path).parts) and not path.startswith(
        _STANDARD
    )


def text_of(error: BaseException) -> str:
    """What the error says, also where its own `__str__` fails."""
    try:
        return _encodable(str(error))
    except Exception:  # noqa: BLE001 - of the user's class
        return in_one_line(error)


def in_one_line(error: BaseException) -> str:
    """The error's class and what it says, on one line."""
    text = " ".join(_encodable("".join(traceback.format_exception_only(error))).split())
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"


def users_line(error: BaseException) -> str:
    """` (FILE, line N)` of the last line of the user's own that ran; empty if there is none."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if is_users(one.filename)]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""


def users_trace(error: BaseException) -> str | None:
    """The frames of the user's own files, the outermost first, and the one that raised.

    Of what caused `error` if that is one of Epochal's, which only says what it means. None if no
    file of the user's is among the frames.
    """
    while isinstance(error, EpochalError):
        if error.trace is not None:
            return error.trace
        if error.__cause__ is None:
            return None
        error = error.__cause__
    told = traceback.TracebackException.from_exception(error)
    if not any(_shorten(one) for one in list(_chain(told))):
        return None
    text = "".join(told.format()).replace("Traceback (most recent call last):\n", "")
    return _without_middle(_encodable(text), _MOST_TRACE)


def failure_text(error: BaseException) -> str:
    """The error in one line, and below it the frames of the user's own files."""
    trace = users_trace(error)
    return str(error) if trace is None else f"{error}\n{trace}"


def whole_trace(error: BaseException) -> str:
    """All frames, those of libraries too, and of all errors that led to this one."""
    text = "".join(traceback.format_exception(error))
    return _without_middle(_encodable(text), _MOST_WHOLE)


def _encodable(text: str) -> str:
    """`text` as Prefect and MLflow take it, which speak UTF-8.

    It may name a file whose name is none: Python has lone surrogates in place of its bytes.
    """
    return text.encode("utf-8", "backslashreplace").decode()


def _without_middle(text: str, most: int) -> str:
    """Where it begins and what it ends in count most: the first frame, and the error itself."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}\n…\n{text[-(most // 2) :]}"


def _chain(told: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    yield told
    for one in (told.__cause__, told.__context__, *(told.exceptions or ())):
        if one is not None:
            yield from _chain(one)


def _shorten(told: traceback.TracebackException) -> bool:
    """Leaves the user's frames, and the last one; returns whether there is one of the user's."""
    own = [frame for frame in told.stack if is_users(frame.filename)]
    last = [frame for frame in told.stack[-1:] if frame not in own]
    told.stack[:] = [*own, *last]
    return bool(own)
