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
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

from pydantic import JsonValue, TypeAdapter, ValidationError

from epochal.data.errors import TargetError, passes_through
from epochal.data.hashing import file_sha256
from epochal.data.traces import in_one_line, users_line
from epochal.data.types import Target, TargetName
from epochal.tasks.user_code.files_read import noting_files
from epochal.tasks.user_code.import_path import use_folder
from epochal.tasks.user_code.loaded_modules import file_of, noting_modules, users_file
from epochal.tasks.user_code.source_digests import (
    ModuleFile,
    UserSource,
    find_module,
    read_source,
)

_TARGET_NAME: TypeAdapter[str] = TypeAdapter(TargetName)
MAX_SIGNATURE = 400  # characters of one in an error

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
    with noting_modules(field), noting_files(field):  # of targets among its args too
        made = built_args(target, field=field, folder=folder)
    arguments = {**with_tensors(function, made), **more}
    try:
        with noting_modules(field), noting_files(field):
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
    args, unknown = value.get("args", {}), sorted(set(value) - {"target", "args", "files"})
    if unknown or not isinstance(args, dict):
        found = f"beside it also {', '.join(unknown)}" if unknown else f"`args` {args!r:.80}"
        raise TargetError(
            f"{field}: {value['target']!r} is a target, which is called with the mapping `args`; "
            f"found {found}; expected {{target: …, args: {{…}}}}"
        )
    return Target.model_validate(value)


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
    except BaseException as error:  # it runs the user's code: anything may come
        if passes_through(error):
            raise
        raise TargetError(
            f"{field}.target: importing {name!r} raised {in_one_line(error)}{_place(error)}"
        ) from error
    finally:
        # The source's files too: what a function imports once it is called is not there yet.
        _remember({*_new_files(before), *source.files.values()}, folder)
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
"""Of each of the user's modules that a target has brought into `sys.modules`, or may yet bring."""


def _new_files(before: Collection[str]) -> Iterator[Path]:
    for name in sys.modules.keys() - before:
        file = users_file(name, sys.modules[name])
        if file is not None:
            yield file


def _remember(files: Iterable[Path], folder: Path) -> None:
    for file in files:
        if file.is_file():
            beside = folder if file.is_relative_to(folder) else None
            _user_modules[file] = _Loaded(file_sha256(file), beside)


def _forget_old(folder: Path, source: UserSource) -> None:
    """Takes the user's modules out of `sys.modules` if one is of another folder or version.

    All of them: those that are unchanged may hold what they have imported of it. source: what is
    imported next, perhaps modules of names that others have now.
    """
    others = (
        (_loaded_file(module), file)
        for module, file in ((ModuleFile(*item).module, item[1]) for item in source.files.items())
    )
    is_other = any(loaded not in {None, file} for loaded, file in others)
    if not is_other and not any(_is_old(*item, folder) for item in _user_modules.items()):
        return
    ends = tuple(file.name for file in _user_modules)
    present = [
        name
        # Making a list of its items can run finalizers, which import; a copy runs nothing.
        for name, module in sys.modules.copy().items()
        if (file_of(module) or "").endswith(ends)  # of thousands of modules a few are looked at
        and _loaded_file(name) is not None
    ]
    for name in present:
        del sys.modules[name]
    _user_modules.clear()
    importlib.invalidate_caches()


def _loaded_file(name: str) -> Path | None:
    """The file of a module in `sys.modules`, if it is one that a target has brought."""
    module = sys.modules.get(name)
    file = None if module is None else users_file(name, module)
    return file if file in _user_modules else None


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


def _cause(error: BaseException) -> str:
    """The error that this one was raised from: where lazy modules say what is missing."""
    cause = error.__cause__
    return "" if cause is None else f"; because of {type(cause).__name__}: {cause}"


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
    """Where it was raised: in the user's own file if one is among the frames."""
    frames = traceback.extract_tb(error.__traceback__)
    last = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return users_line(error) or last
