"""Which of the user's own files a target runs, and their digests. Reads files, imports nothing.

A module is the user's if its file lies beside the config or anywhere else but in the standard
library and among installed packages: on PYTHONPATH, in a package that is installed as editable.
What it imports is followed by `ast`, recursively, also inside functions. What cannot be followed
so (a name that is made at run time) is listed by its place, and found when the target is built
(`tasks.user_code.loaded_modules`).

A file's digest is that of its syntax tree: comments, docstrings and formatting are not in it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path, PurePosixPath

from epochal.data.errors import TargetError
from epochal.data.hashing import bytes_sha256
from epochal.data.traces import INSTALLED

MODULE_LEVEL = ""
"""Stands for the statements of a file that belong to no function or class."""

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_NOT_CODE = frozenset({"ctx", "kind", "type_comment"})  # of a node: spelling, or told by its place
_SHORT_DIGEST = 16
_SHOWN_CHARS = 60
_BY_NAME = frozenset(
    {
        *("__import__", "exec", "import_module", "spec_from_file_location", "SourceFileLoader"),
        *("run_path", "run_module", "get_class_from_dynamic_module"),
    }
)
"""Functions that run code which no import statement names."""
_BY_PLACE = (
    *("sys.path.insert", "sys.path.append", "sys.path.extend", "hub.load"),
    *("cpp_extension.load", "cpp_extension.load_inline"),
)
_LITERAL = frozenset({"__import__", "import_module"})


@dataclass(frozen=True)
class ModuleFile:
    """A module of the user's. name: its path below where it is imported from, `pkg/net.py`.

    parents: the packages' files above it. beside: whether it lies below the config's folder, from
    where it is imported by its name.
    """

    name: str
    file: Path
    parents: tuple[ModuleFile, ...] = ()
    beside: bool = False

    @property
    def module(self) -> str:
        """As an import names it: `pkg.net`."""
        parts = PurePosixPath(self.name).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@dataclass(frozen=True)
class UserSource:
    """The user's files that a target runs; all empty where it is an installed one.

    digests: name → sha256 of the syntax tree. files: name → path. definitions: name → function or
    class → digest. packages: top-level modules of installed packages that are imported.
    unfollowed: places that run code which cannot be found without running them.
    """

    digests: dict[str, str] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    definitions: dict[str, dict[str, str]] = field(default_factory=dict)
    packages: frozenset[str] = frozenset()
    unfollowed: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Parsed:
    digest: str
    definitions: Mapping[str, str]
    imports: tuple[str, ...]
    unfollowed: tuple[str, ...]


def find_module(module: str, *, folder: Path) -> ModuleFile | None:
    """The user's file of `module`, or None where it is an installed or built-in one.

    Looks beside the config first, then where Python finds it outside installed packages.
    """
    top = module.partition(".")[0]
    found = _below(folder / top, module, beside=True)
    if found is not None:
        return found
    place = None if is_known_to_all(top) else place_of(top)
    return None if place is None or is_installed(place) else _below(place, module)


def is_known_to_all(top: str) -> bool:
    """Whether a top-level module is Python's own, or ours."""
    return top == "epochal" or top in sys.builtin_module_names or top in sys.stdlib_module_names


def is_installed(place: Path) -> bool:
    """Whether a file lies among installed packages, also of `pip install --target`."""
    return any(part in INSTALLED for part in place.parts) or any(
        place.is_relative_to(root) for root in sys.path if root and _has_distributions(root)
    )


@cache
def _has_distributions(root: str) -> bool:
    return next(Path(root).glob("*.dist-info"), None) is not None


def place_of(top: str) -> Path | None:
    """The folder of a top-level package, or a module's file without its suffix; None: nowhere."""
    for finder in sys.meta_path:  # not `importlib.util.find_spec`, which asks `sys.modules` first
        spec = getattr(finder, "find_spec", lambda *_: None)(top, None)
        if spec is None:
            continue
        if spec.submodule_search_locations:
            return Path(next(iter(spec.submodule_search_locations)))
        return Path(spec.origin).with_suffix("") if spec.origin and spec.has_location else None
    return None


def _below(place: Path, module: str, *, beside: bool = False) -> ModuleFile | None:
    """The file of `module` whose top-level package is the folder `place`, or `place` + .py."""
    parts = module.split(".")
    parents = []
    for depth in range(1, len(parts)):
        package = place.joinpath(*parts[1:depth], "__init__.py")
        if package.is_file():
            name = "/".join([*parts[:depth], package.name])
            parents.append(ModuleFile(name, package, beside=beside))
    place = place.joinpath(*parts[1:])
    for file, name in (
        (place / "__init__.py", "/".join([*parts, "__init__.py"])),
        (place.with_name(f"{place.name}.py"), f"{'/'.join(parts)}.py"),
    ):
        if file.is_file():
            return ModuleFile(name, file, tuple(parents), beside=beside)
    return None


def read_source(module: str, *, folder: Path, loaded: Iterable[ModuleFile] = ()) -> UserSource:
    """The user's files that `module` runs, as far as import statements name them.

    loaded: further files that building it is known to load. Raises TargetError if one of the files
    cannot be read or parsed.
    """
    start, top = find_module(module, folder=folder), module.partition(".")[0]
    waiting = [*loaded] if start is None else [start, *loaded]
    packages = {top} if start is None and not is_known_to_all(top) else set()
    source, unfollowed = UserSource(), list[str]()
    while waiting:
        one = waiting.pop()
        if one.name in source.digests:
            continue
        waiting += one.parents
        parsed = _read(one)
        source.digests[one.name], source.files[one.name] = parsed.digest, one.file
        source.definitions[one.name] = dict(parsed.definitions)
        unfollowed += parsed.unfollowed
        for imported in parsed.imports:
            top = imported.partition(".")[0]
            if is_known_to_all(top):
                continue
            found = find_module(imported, folder=folder)
            if found is not None:
                waiting.append(found)
            else:
                packages.add(top)
    return UserSource(
        digests=dict(sorted(source.digests.items())),
        files=source.files,
        definitions=source.definitions,
        packages=frozenset(filter(_is_package, packages)),
        unfollowed=tuple(sorted(unfollowed)),
    )


def merged(sources: Iterable[UserSource]) -> UserSource:
    """The code of several targets as that of one."""
    parts = list(sources)
    return UserSource(
        digests=dict(sorted(item for one in parts for item in one.digests.items())),
        files={name: file for one in parts for name, file in one.files.items()},
        definitions={name: defined for one in parts for name, defined in one.definitions.items()},
        packages=frozenset().union(*(one.packages for one in parts)),
        unfollowed=tuple(sorted({text for one in parts for text in one.unfollowed})),
    )


def _is_package(top: str) -> bool:
    place = place_of(top)
    return place is not None and is_installed(place)


def source_sha256(name: str, data: bytes) -> str:
    """The digest of a file's syntax tree. Raises SyntaxError or ValueError."""
    return _parsed(name, data).digest


def _read(one: ModuleFile) -> _Parsed:
    try:
        data = one.file.read_bytes()
    except OSError as error:
        raise TargetError(f"{one.file}: cannot be read: {error.strerror or error}") from error
    try:
        return _parsed(one.name, data)
    except (SyntaxError, ValueError) as error:
        raise TargetError(f"{one.file}: cannot be read as Python: {error}") from error
    except (RecursionError, MemoryError):  # of the parser: nested deeper than a tree can be
        place = f"{one.name}: nested too deeply to look for imports in it"
        return _Parsed(bytes_sha256(data), {}, (), (place,))


@lru_cache(maxsize=1024)  # several targets of a config run the same files
def _parsed(name: str, data: bytes) -> _Parsed:
    tree = ast.parse(data, filename=name)
    imports: list[str] = []
    unfollowed: list[str] = []
    for node in ast.walk(tree):
        imports += _imports(node, package=PurePosixPath(name).parent.parts)
        if isinstance(node, ast.Call) and _runs_other_code(node):
            shown = ast.unparse(node)
            shown = shown if len(shown) <= _SHOWN_CHARS else f"{shown[: _SHOWN_CHARS - 1]}…"
            unfollowed.append(f"{name}, line {node.lineno}: {shown}")
    return _Parsed(
        digest=_tree_sha256(tree),
        definitions=_definitions(tree),
        imports=tuple(dict.fromkeys(imports)),
        unfollowed=tuple(unfollowed),
    )


def _imports(node: ast.AST, *, package: tuple[str, ...]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module.split(".") if node.module else []
        if node.level:
            base = [*package[: len(package) - node.level + 1], *base]
        if base:
            yield ".".join(base)
        yield from (".".join([*base, alias.name]) for alias in node.names if alias.name != "*")
    elif isinstance(node, ast.Call) and (named := _literal_import(node)) is not None:
        level = len(named) - len(named.lstrip("."))
        base = list(package[: len(package) - level + 1]) if level else []
        yield ".".join([*base, named.lstrip(".")])


def _literal_import(call: ast.Call) -> str | None:
    """What `import_module("pkg.net")` names, or None where that is not to be read off."""
    if _called(call).rpartition(".")[2] not in _LITERAL or not call.args:
        return None
    first = call.args[0]
    if isinstance(first, ast.Constant) and isinstance(first.value, str) and first.value.strip("."):
        return first.value
    return None


def _called(call: ast.Call) -> str:
    """The dotted name of what is called: `importlib.import_module`; empty for other calls."""
    parts: list[str] = []
    node = call.func
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join(reversed([*parts, node.id])) if isinstance(node, ast.Name) else ""


def _runs_other_code(call: ast.Call) -> bool:
    """Whether the call may run code of the user's that no import statement names."""
    called = _called(call)
    last = called.rpartition(".")[2]
    if any(
        keyword.arg == "trust_remote_code" and not _is_false(keyword.value)
        for keyword in call.keywords
    ):
        return True
    if last in _BY_NAME:
        return _literal_import(call) is None
    return any(called == place or called.endswith(f".{place}") for place in _BY_PLACE)


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and not node.value


def _definitions(tree: ast.Module) -> dict[str, str]:
    """Function, class or method → digest; the statements outside of them under MODULE_LEVEL."""
    digests: dict[str, str] = {}
    outside: list[ast.AST] = []
    for node in tree.body:
        if not isinstance(node, _DEFINITIONS):
            outside.append(node)
            continue
        inner: list[ast.AST] = [node]
        if isinstance(node, ast.ClassDef):
            methods = [part for part in node.body if isinstance(part, _DEFINITIONS)]
            for method in methods:
                _add(digests, f"{node.name}.{method.name}", [method])
            others = [part for part in node.body if not isinstance(part, _DEFINITIONS)]
            inner = [*node.bases, *node.keywords, *node.decorator_list, *others]
        _add(digests, node.name, inner)
    _add(digests, MODULE_LEVEL, outside)
    return digests


def _add(digests: dict[str, str], name: str, nodes: list[ast.AST]) -> None:
    # A name that is defined twice, as an overload is: both count.
    before = [digests[name]] if name in digests else []
    text = "\n".join([*before, *_tokens(nodes)])
    digests[name] = bytes_sha256(text.encode("utf-8", "surrogatepass"))[:_SHORT_DIGEST]


def _tree_sha256(tree: ast.Module) -> str:
    text = "\n".join(["python-tree", *_tokens([tree])])
    return bytes_sha256(text.encode("utf-8", "surrogatepass"))


def _tokens(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The trees as a flat list, the same under all versions of Python that parse them alike.

    Fields that are empty are left out, as a later version may have more of them (`type_params`).
    """
    waiting: list[object] = list(reversed(list(nodes)))
    while waiting:
        item = waiting.pop()
        if isinstance(item, _Mark):
            yield item
        elif isinstance(item, ast.AST):
            yield f"({type(item).__name__}"
            waiting.append(_Mark(")"))
            for name, value in reversed(list(ast.iter_fields(item))):
                value = _without_docstring(item, name, value)  # noqa: PLW2901 - the same, shorter
                if name not in _NOT_CODE and value not in (None, []):
                    waiting += [value, _Mark(f".{name}")]
        elif isinstance(item, list):
            yield "["
            waiting.append(_Mark("]"))
            waiting += reversed(item)
        else:
            # `hex`: Python refuses to write integers of thousands of decimal digits.
            shown = hex(item) if type(item) is int else repr(item)
            yield f"{type(item).__name__} {shown}"


class _Mark(str):
    """A token as it is, among the constants of a program, which may be texts too."""

    __slots__ = ()


def _without_docstring(node: ast.AST, name: str, value: object) -> object:
    documented = isinstance(node, (*_DEFINITIONS, ast.Module)) and name == "body"
    if not documented or not isinstance(value, list) or not value:
        return value
    first = value[0]
    is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return value[1:] if is_text and isinstance(first.value.value, str) else value
