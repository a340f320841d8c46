"""How the source is laid out, in figures: `python benchmarks/structure.py [CHECKOUT …]`.

Imports count wherever they stand: at a file's top, in a function, for types alone.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

FLOORS = ("data", "engine", "tasks", "flows")


def measured(root: Path) -> dict[str, int]:
    """The figures of a checkout."""
    files = [path for floor in FLOORS for path in sorted((root / floor).rglob("*.py"))]
    places = {_place(path, root): path for path in files}
    trees = {place: ast.parse(path.read_text()) for place, path in places.items()}
    edges = {place: _imports(tree, places) - {place} for place, tree in trees.items()}
    circles = _circles(edges)
    users = Counter(other for others in edges.values() for other in others)
    folders = Counter(path.parent for path in files if path.name != "__init__.py")
    tests = sorted((root / "tests").rglob("*.py"))
    return {
        "files of source": len(files),
        "files in the fullest folder": max(folders.values()),
        "floors of imports in tasks/": _floors(
            {
                place: {one for one in others if one.startswith("tasks.")}
                for place, others in edges.items()
                if place.startswith("tasks.")
            },
            circles,
        ),
        "circles of files": len(circles),
        "files with one importer": sum(count == 1 for count in users.values()),
        "imports inside functions": sum(_inside(tree) for tree in trees.values()),
        "lines of source": sum(_lines(path) for path in files),
        "lines of tests": sum(_lines(path) for path in tests),
        "files of tests": sum(path.name.startswith("test_") for path in tests),
        "of these in the folder of their source": sum(
            (root / path.parent.relative_to(root / "tests") / "__init__.py").is_file()
            for path in tests
            if path.name.startswith("test_") and path.parent != root / "tests"
        ),
    }


def _place(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(tree: ast.Module, places: dict[str, Path]) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("epochal.") for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            module = node.module.removeprefix("epochal.")
            for alias in node.names:
                name = f"{module}.{alias.name}"
                found.add(name if name in places else module)
    return found & set(places)


def _inside(tree: ast.Module) -> int:
    functions = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    imports = {
        node
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    return len(imports)


def _circles(edges: dict[str, set[str]]) -> list[set[str]]:
    """Groups of files each of which imports the others, by whatever way."""
    reach = {place: _reached(place, edges) for place in edges}
    circles: list[set[str]] = []
    for place in edges:
        circle = {other for other in reach[place] if place in reach[other]}
        if place in reach[place] and circle not in circles:
            circles.append(circle)
    return circles


def _reached(place: str, edges: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = list(edges[place])
    while waiting:
        other = waiting.pop()
        if other not in found:
            found.add(other)
            waiting += edges[other]
    return found


def _floors(edges: dict[str, set[str]], circles: list[set[str]]) -> int:
    """The longest chain of imports; the files of a circle count as one."""
    name_of = {place: min(circle) for circle in circles for place in circle}
    whole: dict[str, set[str]] = {}
    for place, others in edges.items():
        own = name_of.get(place, place)
        whole.setdefault(own, set()).update(name_of.get(other, other) for other in others)
        whole[own].discard(own)
    depth: dict[str, int] = {}

    def floor(place: str) -> int:
        if place not in depth:
            depth[place] = 1 + max(map(floor, whole.get(place, ())), default=0)
        return depth[place]

    return max(map(floor, whole))


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def main() -> None:
    """Prints a column for each checkout."""
    roots = [Path(one) for one in sys.argv[1:]] or [Path(__file__).parents[1]]
    columns = [measured(root) for root in roots]
    for name in columns[0]:
        print(f"{name:<40}", *(f"{column[name]:>8}" for column in columns))


if __name__ == "__main__":
    main()
