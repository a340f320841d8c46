"""Which of the user's own files a target runs, and their digests. Reads files, imports nothing.

A module beside the config is the user's; everything it imports beside the config is followed by
`ast`, recursively, also inside functions. Installed packages are not followed: their versions
stand in the attempt log. A module named at run time (`importlib.import_module(name)`) is not seen.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from epochal.data.errors import TargetError
from epochal.data.hashing import bytes_sha256
from epochal.data.traces import INSTALLED


@dataclass(frozen=True)
class ModuleFile:
    """A module of the user's: its root folder, file, and the packages' files above it."""

    root: Path
    file: Path
    parents: tuple[Path, ...]


def find_module(module: str, *, folder: Path) -> ModuleFile | None:
    """The user's file of `module`, or None where it is an installed or built-in one.

    Looks beside the config first, then on `sys.path` outside installed packages.
    """
    module_file = _under(folder, module)
    if module_file is not None:
        return module_file
    top = module.partition(".")[0]
    if top == "epochal" or top in sys.builtin_module_names or top in sys.stdlib_module_names:
        return None
    spec = PathFinder.find_spec(top)
    places = [spec.origin] if spec is not None and spec.origin else []
    if spec is not None and spec.submodule_search_locations:
        places.extend(spec.submodule_search_locations)
    for place in places:
        path = Path(place)
        if any(part in INSTALLED for part in path.parts):
            continue
        root = path.parent.parent if path.name == "__init__.py" else path.parent
        return _under(root, module)
    return None


def _under(root: Path, module: str) -> ModuleFile | None:
    parts = module.split(".")
    parents: list[Path] = []
    for depth in range(1, len(parts)):
        package = root.joinpath(*parts[:depth], "__init__.py")
        if package.is_file():
            parents.append(package)
    place = root.joinpath(*parts)
    for file in (place / "__init__.py", place.with_name(f"{place.name}.py")):
        if file.is_file():
            return ModuleFile(root=root, file=file, parents=tuple(parents))
    return None


def source_digests(module: str, *, folder: Path) -> dict[str, str]:
    """Relative path → sha256 of each of the user's files that `module` runs; {} if installed.

    Raises TargetError if one of them cannot be read or parsed.
    """
    start = find_module(module, folder=folder)
    if start is None:
        return {}
    digests: dict[str, str] = {}
    waiting = [*start.parents, start.file]
    while waiting:
        file = waiting.pop()
        name = file.relative_to(start.root).as_posix()
        if name in digests:
            continue
        try:
            data = file.read_bytes()
            tree = ast.parse(data, filename=str(file))
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise TargetError(f"{file}: cannot be read as Python: {error}") from error
        digests[name] = bytes_sha256(data)
        for imported in _imports(tree, file=file, root=start.root):
            module_file = _under(start.root, imported)
            if module_file is not None:
                waiting.extend([*module_file.parents, module_file.file])
    return dict(sorted(digests.items()))


def _imports(tree: ast.AST, *, file: Path, root: Path) -> Iterator[str]:
    package = list(file.relative_to(root).parent.parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module.split(".") if node.module else []
            if node.level:
                base = [*package[: len(package) - node.level + 1], *base]
            if base:
                yield ".".join(base)
            yield from (".".join([*base, alias.name]) for alias in node.names if alias.name != "*")
