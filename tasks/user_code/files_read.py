"""Which files a target reads while it is made, beside modules: told by Python itself.

By an audit hook (PEP 578), which sees every `open` of Python's. Libraries that open files in C or
Rust are not seen. A hook stays for the life of the process; it looks at nothing outside a block.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import source_from_cache
from pathlib import Path
from typing import Any

from epochal.tasks.user_code.loaded_modules import file_of, is_users_file
from epochal.tasks.user_code.source_digests import is_installed

_CODE = frozenset({".py", ".pyc", ".pyi", ".so", ".pth"})
_CACHED = ".pyc"
_SYSTEM = tuple(Path(f"/{name}") for name in ("proc", "sys", "dev", "etc", "usr", "lib", "var"))

_read: dict[str, dict[Path, None]] = {}
"""Field of the config → files that its targets have read in this process."""
_noting: list[dict[Path, None]] = []


@contextmanager
def noting_files(field: str) -> Iterator[None]:
    """Notes which files are opened for reading inside the block, for `field`.

    Not for a data set: of it the content counts, and it may open a million files.
    """
    if field.endswith("data"):
        yield
        return
    _install()
    _noting.append(_read.setdefault(field, {}))
    try:
        yield
    finally:
        _noting.pop()


def forget_files() -> None:
    """Forgets what was noted."""
    _read.clear()


def files_read(field: str, *, named: Iterable[Path]) -> list[Path]:
    """The files that `field`'s targets have read, without those that are `named`, and modules.

    A Python file that is no module was read to be executed, by its path: it may be what the target
    is made of, and no import statement leads to it.
    """
    read = {_source_of(path) for path in _read.get(field, {})}
    names = {path.name for path in read}
    files = filter(None, map(file_of, list(sys.modules.values())))
    # A `Path` of each of some thousand modules would take longer than all the rest.
    modules = [path for path in files if os.path.basename(path) in names]  # noqa: PTH119 - as above
    known = {os.path.realpath(path) for path in [*map(str, named), *modules]}
    return sorted(
        path
        for path in read
        if os.path.realpath(path) not in known and (_is_of_user(path) or _is_code(path))
    )


@cache
def _install() -> None:
    sys.addaudithook(_see)


def _see(event: str, args: tuple[Any, ...]) -> None:
    if event != "open" or not _noting:
        return
    path, mode, flags = args
    writes = any(letter in mode for letter in "wax+") if isinstance(mode, str) else False
    if isinstance(path, str) and not writes and flags & os.O_ACCMODE == os.O_RDONLY:
        _noting[-1][Path(os.path.abspath(path))] = None  # noqa: PTH100 - `resolve` opens links


def _source_of(path: Path) -> Path:
    """The Python file that a file of its bytecode is of; any other file itself."""
    if path.suffix != _CACHED:
        return path
    try:
        return Path(source_from_cache(str(path)))
    except ValueError:  # it lies in no `__pycache__`
        return path


def _is_code(path: Path) -> bool:
    return is_users_file(path) and path.is_file()


def _is_of_user(path: Path) -> bool:
    """Whether a file is neither code nor the system's, Python's, or some program's own cache."""
    prefixes = {Path(sys.prefix), Path(sys.base_prefix)}
    return (
        path.suffix not in _CODE
        and not is_installed(path)
        and not any(part.startswith(".") for part in path.parts)
        and not any(path.is_relative_to(place) for place in (*_SYSTEM, *prefixes))
        and path.is_file()
    )
