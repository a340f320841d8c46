"""From `module:attr` to the object, and its call, with errors that say whose fault it is.

Only what the config names is imported; never anything that a store names.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

from pydantic import JsonValue

from epochal.data.errors import EpochalError, TargetError
from epochal.data.hashing import file_sha256
from epochal.data.types import Target
from epochal.tasks.user_code.source_digests import INSTALLED, ModuleFile, find_module

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
    arguments = {**with_tensors(function, resolved_args(target.args, folder=folder)), **more}
    check_signature(function, *positional, field=field, target=target, arguments=arguments)
    try:
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


def with_tensors(function: Callable[..., Any], args: dict[str, JsonValue]) -> dict[str, Any]:
    """`args` with the numbers of each parameter that is annotated as a tensor made one of floats.

    So `weight: [1, 5, 1]` is what `torch.nn.CrossEntropyLoss` takes. An annotation that names other
    types beside the tensor, but None, says that numbers are meant as they are.
    """
    torch = sys.modules.get("torch")
    if torch is None or not any(map(_are_numbers, args.values())):
        return dict(args)
    wants = _annotations(function)
    return {
        name: torch.tensor(value, dtype=torch.get_default_dtype())
        if _are_numbers(value) and _is_tensor(wants.get(name), torch.Tensor)
        else value
        for name, value in args.items()
    }


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    called: Any = function.__init__ if inspect.isclass(function) else function
    try:
        return get_type_hints(called)
    except Exception:  # noqa: BLE001 - annotations of a user's code may be anything
        return {}


def _is_tensor(annotation: Any, tensor: type) -> bool:
    kinds = {*get_args(annotation)} or {annotation}
    return kinds - {type(None)} == {tensor}


def _are_numbers(value: Any) -> bool:
    """Whether it is a number, or lists of equal length of such."""
    if isinstance(value, list):
        shapes = {len(item) if isinstance(item, list) else None for item in value}
        return bool(value) and len(shapes) == 1 and all(map(_are_numbers, value))
    return isinstance(value, int | float) and not isinstance(value, bool)


def _resolved(value: JsonValue, folder: Path) -> JsonValue:
    if isinstance(value, str) and value.startswith(("./", "../")):
        if "\0" in value:
            raise TargetError(f"args: the path {value!r:.80} holds the character NUL; remove it")
        return str((folder / value).resolve())
    if isinstance(value, list):
        return [_resolved(item, folder) for item in value]
    if isinstance(value, dict):
        return {key: _resolved(item, folder) for key, item in value.items()}
    return value


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
    except (Exception, SystemExit) as error:  # it runs the user's code: anything may come
        raise TargetError(
            f"{field}.target: importing {name!r} raised {type(error).__name__}: {error}"
            f"{_place(error)}"
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


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
