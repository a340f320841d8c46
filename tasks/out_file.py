"""Files that a person asks for by an option: where they may go, and written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from epochal.data.errors import InputError


def check_out(out: Path, *, option: str, ends: tuple[str, ...]) -> None:
    """Raises InputError if the file cannot be written there: before anything is computed.

    ends: endings that its name may have.
    """
    if out.suffix not in ends:
        raise InputError(f"{option} {out}: expected a name that ends with {' or '.join(ends)}")
    check_folder(out, option=option)


def check_folder(out: Path, *, option: str) -> None:
    """Raises InputError if the file's folder is not there."""
    if not out.parent.is_dir():
        raise InputError(f"{option} {out}: there is no folder {out.parent}; make it first")


@contextmanager
def whole_file(out: Path, *, option: str) -> Iterator[Path]:
    """A temporary file to write: becomes `out` when the block ends well, else is deleted.

    Raises InputError if it cannot be written.
    """
    temporary = out.with_name(f"{out.name}.{os.getpid()}.part")
    try:
        yield temporary
        temporary.replace(out)
    except OSError as error:
        raise InputError(f"{option} {out}: cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
