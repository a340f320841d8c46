"""The files of the source, and who of them imports whom: what the house's rules are about."""

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("data", "engine", "tasks", "flows")


def files():
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def place(path):
    """`data.store.local` of data/store/local.py, `data.store` of data/store/__init__.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules():
    """Place → path of each file."""
    return {place(path): path for path in files()}


def imports(path):
    """The names that a file imports, wherever in it: at its top, in a function, for types alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name.removeprefix("epochal.") in modules() else node.module


@cache
def graph():
    """Place of each file → places of the files that it imports."""
    return {
        here: {
            name.removeprefix("epochal.")
            for name in imports(path)
            if name.removeprefix("epochal.") in modules()
        }
        - {here}
        for here, path in modules().items()
    }


def folder_of(where):
    """The folder in which a file lies, by its place; a file of a floor itself stands for itself."""
    folder = modules()[where].parent
    return where if folder.parent == ROOT else place(folder / "__init__.py")


def folder_graph():
    """Folder → folders that its files import, but for itself. A package's face is of its folder."""
    found = {}
    for here, others in graph().items():
        folder = folder_of(here)
        found.setdefault(folder, set()).update(folder_of(other) for other in others)
        found[folder].discard(folder)
    return found


def circle(edges):
    """One circle of `edges`, or None."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return error.args[1]
    return None
