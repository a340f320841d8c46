"""From `module:attr` to the object, and its call, with errors that say whose fault it is.

Only what the config names is imported; never anything that a store names.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import logging
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import JsonValue

from epochal.data.errors import EpochalError, TargetError
from epochal.data.hashing import file_sha256
from epochal.data.types import Target
from epochal.tasks.user_code.files_read import noting_files
from epochal.tasks.user_code.import_path import use_folder
from epochal.tasks.user_code.loaded_modules import file_of, noting_modules, users_file
from epochal.tasks.user_code.source_digests import (
    ModuleFile,
    UserSource,
    find_module,
    read_source,
)

logger = logging.getLogger(__name__)


def resolve_target(target: Target, *, field: str, folder: Path) -> Callable[..., Any]:
    """The callable that `target` names. `field` is the config's field, for errors.

    Raises TargetError if it does not import, is not there or is not callable.
    """
    module_name, _, attribute = target.target.partition(":")
    with noting_modules(field), noting_files(field):
        module = _import(module_name, field=field, folder=folder)
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            names = [name for name in dir(value) if not name.startswith("_")]
            near = difflib.get_close_matches(part, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(names[:12])}"
            raise TargetError(
                f"{field}.target: {target.target!r}: {module_name} has no {part!r}; {hint}"
            )
        value = getattr(value, part)
    if not callable(value):
        raise TargetError(
            f"{field}.target: {target.target!r} is a {type(value).__name__}, expected something "
            "that can be called: a class or a function"
        )
    return value  # type: ignore[no-any-return]  # callable() narrows Any to an untyped callable


def call_target(target: Target, *positional: Any, field: str, folder: Path, **more: Any) -> Any:
    """`target` called with its args. Raises TargetError if it refuses them or raises."""
    function = resolve_target(target, field=field, folder=folder)
    arguments = {**resolved_args(target.args, folder=folder), **more}
    check_signature(function, *positional, field=field, target=target, arguments=arguments)
    try:
        with noting_modules(field), noting_files(field):
            return function(*positional, **arguments)
    except EpochalError:
        raise
    except (Exception, SystemExit) as error:  # whatever it raises becomes one clear error
        raise TargetError(
            f"{field}: {target.target!r} raised {type(error).__name__}: {error}"
            f"{_place(error)}; args: {target.args}"
        ) from error


def check_signature(
    function: Callable[..., Any],
    *positional: Any,
    field: str,
    target: Target,
    arguments: dict[str, Any],
) -> None:
    """Raises TargetError if `function` does not take these arguments."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # some built-ins have none; the call itself will tell
    try:
        signature.bind(*positional, **arguments)
    except TypeError as error:
        raise TargetError(
            f"{field}.args: {target.target!r} refuses them: {error}; it takes {signature}"
        ) from None


def resolved_args(args: dict[str, JsonValue], *, folder: Path) -> dict[str, JsonValue]:
    """`args` with each text that starts with ./ or ../ made a path below `folder`."""
    return {key: _resolved(value, folder) for key, value in args.items()}


def _resolved(value: JsonValue, folder: Path) -> JsonValue:
    if isinstance(value, str) and value.startswith(("./", "../")):
        return str((folder / value).resolve())
    if isinstance(value, list):
        return [_resolved(item, folder) for item in value]
    if isinstance(value, dict):
        return {key: _resolved(item, folder) for key, item in value.items()}
    return value


def _import(name: str, *, field: str, folder: Path) -> ModuleType:
    file = find_module(name, folder=folder)
    use_folder(folder)
    source = read_source(name, folder=folder)
    _forget_old(folder, source)
    before = set(sys.modules)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise TargetError(
                f"{field}.target: there is no module {name!r}, neither in {folder} nor installed"
            ) from None
        raise TargetError(
            f"{field}.target: importing {name!r} failed: {error}{_place(error)}; install it"
        ) from error
    except (Exception, SystemExit) as error:  # it runs the user's code: anything may come
        raise TargetError(
            f"{field}.target: importing {name!r} raised {type(error).__name__}: {error}"
            f"{_place(error)}"
        ) from error
    finally:
        _remember(sys.modules.keys() - before, folder)
    if file is not None:
        _check_origin(module, file, field=field)
    _tell_taken_names(source)
    return module


@dataclass(frozen=True)
class _Loaded:
    """What a module was loaded from. folder: of the config beside which it lies, if it does."""

    sha256: str
    folder: Path | None


_user_modules: dict[Path, _Loaded] = {}
"""Of each of the user's modules that a target has brought into `sys.modules`."""


def _remember(names: Iterable[str], folder: Path) -> None:
    for name in names:
        file = users_file(name, sys.modules[name])
        if file is not None and file.is_file():
            beside = folder if file.is_relative_to(folder) else None
            _user_modules[file] = _Loaded(file_sha256(file), beside)


def _forget_old(folder: Path, source: UserSource) -> None:
    """Takes the user's modules out of `sys.modules` if one is of another folder or version.

    All of them: those that are unchanged may hold what they have imported of it. source: what is
    imported next, perhaps modules of names that others have now.
    """
    present = {
        name: file
        for name, module in list(sys.modules.items())
        if (file := users_file(name, module)) in _user_modules and file is not None
    }
    is_other = any(
        present.get(module, file) != file
        for module, file in ((ModuleFile(*item).module, item[1]) for item in source.files.items())
    )
    if not is_other and not any(_is_old(*item, folder) for item in _user_modules.items()):
        return
    for name in present:
        del sys.modules[name]
    _user_modules.clear()
    importlib.invalidate_caches()


def _is_old(file: Path, loaded: _Loaded, folder: Path) -> bool:
    if loaded.folder is not None and not file.is_relative_to(folder):
        return True
    return not file.is_file() or file_sha256(file) != loaded.sha256


def _check_origin(module: ModuleType, file: ModuleFile, *, field: str) -> None:
    origin = file_of(module)
    if origin is None or Path(origin).resolve() != file.file.resolve():
        raise TargetError(
            f"{field}.target: {file.file} cannot be imported as {module.__name__!r}: that name is "
            f"taken by {origin or 'a built-in module'}; rename the file"
        )


def _tell_taken_names(source: UserSource) -> None:
    """Warns of files that bear the name of a module which is loaded already: that one is used."""
    for name, file in source.files.items():
        module = sys.modules.get(ModuleFile(name, file).module)
        origin = None if module is None else file_of(module)
        if origin is not None and Path(origin).resolve() != file.resolve():
            _tell_once(file, origin)


@cache
def _tell_once(file: Path, origin: str) -> None:
    logger.warning(
        "%s is not what is imported by its name: %s was before it; rename the file if it is meant",
        file,
        origin,
    )


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
