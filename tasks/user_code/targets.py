"""From `module:attr` to the object, and its call, with errors that say whose fault it is.

Only what the config names is imported; never anything that a store names.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import JsonValue, TypeAdapter, ValidationError

from epochal.data.errors import TargetError, passes_through
from epochal.data.hashing import file_sha256
from epochal.data.traces import INSTALLED, in_one_line, users_line
from epochal.data.types import Target, TargetName
from epochal.tasks.user_code.source_digests import ModuleFile, find_module

_TARGET_NAME: TypeAdapter[str] = TypeAdapter(TargetName)
MAX_SIGNATURE = 400  # characters of one in an error
_user_modules: dict[str, str] = {}
"""Of each user's module in `sys.modules`: the sha256 of the file that it was made from."""


def resolve_target(target: Target, *, field: str, folder: Path) -> Callable[..., Any]:
    """The callable that `target` names. `field` is the config's field, for errors.

    Raises TargetError if it does not import, is not there or is not callable.
    """
    module_name, _, attribute = target.target.partition(":")
    module = _import(module_name, field=field, folder=folder)
    value: Any = module
    for part in attribute.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            names = [name for name in dir(value) if not name.startswith("_")]
            near = difflib.get_close_matches(part, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(names[:12])}"
            raise TargetError(
                f"{field}.target: {target.target!r}: {module_name} has no {part!r}; {hint}"
            ) from None
        except (Exception, SystemExit) as error:  # modules that import lazily do it only now
            raise TargetError(
                f"{field}.target: {target.target!r}: getting {part!r} raised "
                f"{type(error).__name__}: {error}{_cause(error)}{_place(error)}"
            ) from error
    if not callable(value):
        raise TargetError(
            f"{field}.target: {target.target!r} is a {type(value).__name__}, expected something "
            "that can be called: a class or a function"
        )
    return value  # type: ignore[no-any-return]  # callable() narrows Any to an untyped callable


def call_target(target: Target, *positional: Any, field: str, folder: Path, **more: Any) -> Any:
    """`target` called with its args. Raises TargetError if it refuses them or raises."""
    function = resolve_target(target, field=field, folder=folder)
    arguments = {**built_args(target, field=field, folder=folder), **more}
    try:
        return function(*positional, **arguments)
    except BaseException as error:  # whatever it raises becomes one clear error
        if passes_through(error):
            raise
        if isinstance(error, TypeError) and _is_of_the_call(error):
            raise TargetError(
                f"{field}.args: {target.target!r} refuses them: {error}{_taken(function)}"
            ) from None
        raise TargetError(
            f"{field}: {target.target!r} raised {in_one_line(error)}{_place(error)}; "
            f"args: {target.args}"
        ) from error


def _is_of_the_call(error: TypeError) -> bool:
    """Whether the call itself failed, before any code of the function ran.

    What a signature tells cannot be asked instead: some classes show one that lacks what they take.
    """
    trace = error.__traceback__
    return trace is not None and trace.tb_next is None


def _taken(function: Callable[..., Any]) -> str:
    try:
        signature = str(inspect.signature(function))
    except (TypeError, ValueError):
        return ""  # some built-ins have none
    more = "" if len(signature) <= MAX_SIGNATURE else "…"
    return f"; it takes {signature[:MAX_SIGNATURE]}{more}"


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


def built_args(target: Target, *, field: str, folder: Path) -> dict[str, Any]:
    """The target's args as it is called with them: paths resolved, targets among them called.

    Raises TargetError, naming the argument, if one of these cannot be made.
    """
    args = resolved_args(target.args, folder=folder)
    return {
        key: _built(value, field=f"{field}.args.{key}", folder=folder)
        for key, value in args.items()
    }


def _built(value: JsonValue, *, field: str, folder: Path) -> Any:
    if isinstance(value, list):
        return [
            _built(item, field=f"{field}[{place}]", folder=folder)
            for place, item in enumerate(value)
        ]
    if not isinstance(value, dict):
        return value
    inner = _as_target(value, field=field)
    if inner is not None:
        return call_target(inner, field=field, folder=folder)
    return {key: _built(item, field=f"{field}.{key}", folder=folder) for key, item in value.items()}


def with_nested(target: Target, *, field: str) -> Iterator[tuple[str, Target]]:
    """(field, target) of `target` and of all targets inside its args. Raises TargetError."""
    yield field, target
    for key, value in target.args.items():
        yield from _inside(value, field=f"{field}.args.{key}")


def _inside(value: JsonValue, *, field: str) -> Iterator[tuple[str, Target]]:
    if isinstance(value, list):
        for place, item in enumerate(value):
            yield from _inside(item, field=f"{field}[{place}]")
    elif isinstance(value, dict):
        inner = _as_target(value, field=field)
        if inner is not None:
            yield from with_nested(inner, field=field)
        else:
            for key, item in value.items():
                yield from _inside(item, field=f"{field}.{key}")


def _as_target(value: dict[str, JsonValue], *, field: str) -> Target | None:
    """The target that a mapping among the args stands for; None for a mapping of the user's own.

    It is one where `target` is of the form `module:attribute`. Raises TargetError if it then holds
    anything but `args` beside it.
    """
    try:
        _TARGET_NAME.validate_python(value.get("target"), strict=True)
    except ValidationError:
        return None
    args, unknown = value.get("args", {}), sorted(set(value) - {"target", "args"})
    if unknown or not isinstance(args, dict):
        found = f"beside it also {', '.join(unknown)}" if unknown else f"`args` {args!r:.80}"
        raise TargetError(
            f"{field}: {value['target']!r} is a target, which is called with the mapping `args`; "
            f"found {found}; expected {{target: …, args: {{…}}}}"
        )
    return Target.model_validate(value)


def _import(name: str, *, field: str, folder: Path) -> ModuleType:
    file = find_module(name, folder=folder)
    if file is not None:
        _prepare(file)
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
    except BaseException as error:  # it runs the user's code: anything may come
        if passes_through(error):
            raise
        raise TargetError(
            f"{field}.target: importing {name!r} raised {in_one_line(error)}{_place(error)}"
        ) from error
    if file is not None:
        _remember(file)
        _check_origin(module, file, field=field)
    return module


def _prepare(file: ModuleFile) -> None:
    """Puts the user's folder first, and forgets user modules of another folder or version."""
    root = str(file.root)
    if root in sys.path:
        sys.path.remove(root)
    sys.path.insert(0, root)
    stale = [path for path, sha256 in _user_modules.items() if not _is_current(path, sha256, root)]
    if not stale:
        return
    for path in stale:
        del _user_modules[path]
    gone = set(stale)
    for name, module in list(sys.modules.items()):
        if _file_of(module) in gone:
            del sys.modules[name]
    importlib.invalidate_caches()


def _is_current(path: str, sha256: str, root: str) -> bool:
    file = Path(path)
    return file.is_relative_to(root) and file.is_file() and file_sha256(file) == sha256


def _remember(file: ModuleFile) -> None:
    for name, module in list(sys.modules.items()):
        path = _file_of(module)
        if path is None or path in _user_modules or not Path(path).is_relative_to(file.root):
            continue
        parts = Path(path).relative_to(file.root).parts
        if name.partition(".")[0] != "epochal" and not set(parts) & set(INSTALLED):
            _user_modules[path] = file_sha256(Path(path))


def _file_of(module: ModuleType) -> str | None:
    # From the dictionary: getattr would wake modules that import lazily.
    return getattr(module, "__dict__", {}).get("__file__")


def _check_origin(module: ModuleType, file: ModuleFile, *, field: str) -> None:
    origin = getattr(module, "__file__", None)
    if origin is None or Path(origin).resolve() != file.file.resolve():
        raise TargetError(
            f"{field}.target: {file.file} cannot be imported as {module.__name__!r}: that name is "
            f"taken by {origin or 'a built-in module'}; rename the file"
        )


def _cause(error: BaseException) -> str:
    """The error that this one was raised from: where lazy modules say what is missing."""
    cause = error.__cause__
    return "" if cause is None else f"; because of {type(cause).__name__}: {cause}"


def _place(error: BaseException) -> str:
    """Where it was raised: in the user's own file if one is among the frames."""
    frames = traceback.extract_tb(error.__traceback__)
    last = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return users_line(error) or last
