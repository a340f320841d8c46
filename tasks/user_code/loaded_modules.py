"""Which of the user's modules were loaded while a target was built, whoever named them.

Import statements are followed without importing anything (`tasks.user_code.source_digests`). A
module whose name is made at run time, or whose folder is put on `sys.path` by code, shows only
here: in `sys.modules`, after the target was imported and called.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType

from epochal.tasks.user_code.source_digests import (
    ModuleFile,
    UserSource,
    find_module,
    is_installed,
    is_known_to_all,
)

ANY = ""
"""Stands for a field where modules were loaded by no target's own building: in a trial pass."""

_loaded: dict[str, dict[str, Path]] = {}
"""Field of the config → module → file, of what its building has loaded in this process."""


@contextmanager
def noting_modules(field: str) -> Iterator[None]:
    """Notes which of the user's modules are loaded inside the block, for `field`."""
    before = set(sys.modules)
    noted = _loaded.setdefault(field, {})
    try:
        yield
    finally:
        for name in sys.modules.keys() - before:
            file = users_file(name, sys.modules[name])
            if file is not None:
                noted[name] = file


def forget_modules(sources: Mapping[str, UserSource]) -> None:
    """Forgets what was noted, and the modules beyond those that import statements name.

    So whatever is built next loads these again, and that is seen. sources: field → what its files
    import.
    """
    known = {file for source in sources.values() for file in source.files.values()}
    for modules in _loaded.values():
        for name, file in modules.items():
            if file not in known and name in sys.modules:
                del sys.modules[name]
    _loaded.clear()


def users_file(name: str, module: ModuleType) -> Path | None:
    """The Python file of a module of the user's; None for an installed one, ours or Python's."""
    path = file_of(module)
    if path is None or name.startswith("__") or is_known_to_all(name.partition(".")[0]):
        return None
    file = Path(path)
    return file if is_users_file(file) else None


def is_users_file(file: Path) -> bool:
    """Whether a Python file is neither Python's own, nor an installed package's, nor ours."""
    return (
        file.suffix == ".py"
        and file.is_absolute()
        and not is_installed(file)
        and not any(file.is_relative_to(folder) for folder in _not_users())
    )


def file_of(module: ModuleType) -> str | None:
    """Where a module was loaded from."""
    # From the dictionary: getattr would wake modules that import lazily.
    file = getattr(module, "__dict__", {}).get("__file__")
    return file if isinstance(file, str) else None


@cache
def _not_users() -> tuple[Path, ...]:
    ours = Path(__file__).parents[2]
    python = (Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))
    return tuple({*python, *(ours / name for name in ("data", "engine", "tasks", "flows"))})


def loaded_beside(sources: Mapping[str, UserSource]) -> dict[str, list[ModuleFile]]:
    """Field of each target that was built → what that loaded beyond what its files import.

    sources: field → what its files import. A module that several fields may have loaded is noted
    by the first that did, so each whose files run code by a made-up name has those of all.
    """
    known = {file for source in sources.values() for file in source.files.values()}
    beside = {
        field: {name: file for name, file in modules.items() if file not in known}
        for field, modules in _loaded.items()
    }
    everywhere = {name: file for modules in beside.values() for name, file in modules.items()}
    by_field = {}
    for field, source in sources.items():
        if field not in _loaded:
            continue
        own = everywhere if source.unfollowed else beside[field]
        if field == "model":  # what a trial pass has loaded may act in every stage
            own = {**own, **beside.get(ANY, {})}
        by_field[field] = [_module_file(name, file) for name, file in sorted(own.items())]
    return by_field


def code_files(source: UserSource, names: Iterable[str], *, folder: Path) -> dict[str, Path]:
    """Name → path of the files that `names` are: imported by `source`, loaded here, or importable.

    Only what Python itself finds: a store names the names. Those that are gone are left out.
    """
    loaded = {
        one.name: one.file
        for modules in _loaded.values()
        for one in (_module_file(name, file) for name, file in modules.items())
    }
    files: dict[str, Path] = {}
    for name in names:
        file = source.files.get(name) or loaded.get(name)
        if file is None:
            found = find_module(ModuleFile(name, Path(name)).module, folder=folder)
            file = None if found is None else found.file
        if file is not None:
            files[name] = file
    return files


def _module_file(name: str, file: Path) -> ModuleFile:
    path = name.replace(".", "/")
    return ModuleFile(f"{path}/__init__.py" if file.name == "__init__.py" else f"{path}.py", file)


def remembered(modules: list[ModuleFile], *, folder: Path) -> list[dict[str, str]]:
    """The modules as a document of the store names them."""
    return [{"name": one.name, "path": os.path.relpath(one.file, folder)} for one in modules]


MAX_SOURCE_BYTES = 16 << 20


def found_again(documents: list[dict[str, str]], *, folder: Path) -> list[ModuleFile]:
    """The modules of `remembered`, where they are now; those that are gone are left out.

    A store names them, so nothing but the digest of a Python file's syntax is made of them.
    """
    modules = []
    for document in documents:
        named = ModuleFile(document["name"], folder / document["path"])
        found = find_module(named.module, folder=folder)
        if found is not None:
            modules.append(found)
        elif _may_be_read(named.file):
            modules.append(named)
    return modules


def _may_be_read(file: Path) -> bool:
    try:
        return file.suffix == ".py" and file.is_file() and file.stat().st_size <= MAX_SOURCE_BYTES
    except (OSError, ValueError):
        return False
