"""The house's rules: imports run downhill, and what `plan` needs imports nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("data", "engine", "tasks", "flows")
MAY_IMPORT = {
    "data": {"data"},
    "engine": {"engine", "data.types", "data.errors"},
    "tasks": {"tasks", "engine", "data"},
    "flows": {"flows", "tasks", "engine", "data"},
}
HEAVY_FREE = {
    "data": {"prefect", "mlflow"},
    "engine": {"prefect", "mlflow", "fsspec", "pyarrow"},
}
HEAVY = ("torch", "pyarrow", "prefect", "mlflow", "sklearn", "torchmetrics")


def files():
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            if node.module.count(".") < 2:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downhill(path):
    package = path.relative_to(ROOT).parts[0]
    for name in imports(path):
        assert name.partition(".")[0] not in {*PACKAGES, "tests"}, f"{name}: not below epochal"
        assert name.partition(".")[0] not in HEAVY_FREE.get(package, ()), name
        if not name.startswith("epochal."):
            continue
        place = name.removeprefix("epochal.")
        allowed = MAY_IMPORT[package]
        assert any(place == one or place.startswith(f"{one}.") for one in allowed), name


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_is_not_larger_than_a_person_can_keep_in_mind(path):
    assert len(path.read_text().splitlines()) <= 320


def test_every_module_says_its_job():
    for path in files():
        assert ast.get_docstring(ast.parse(path.read_text())), path


@pytest.mark.parametrize(
    "module",
    [
        "epochal.data.config.loader", "epochal.data.types", "epochal.data.hashing", "epochal.data.stage_store.stages",
        "epochal.engine.config.numerics", "epochal.engine.schedule.schedule", "epochal.tasks.config.run",
        "epochal.tasks.planning.keys", "epochal.tasks.runs.plan", "epochal.tasks.runs.explain", "epochal.flows.cli",
    ],
)  # fmt: skip
def test_config_keys_and_plan_import_nothing_heavy(module):
    code = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    assert done.stdout.strip() == "[]"


def test_no_file_names_a_machine_or_a_way_of_working():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    homes = ("/" + "root/", "/" + "work/main", "/" + "home/")
    for name in filter(None, listed):
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".yaml", ".txt", ""} and path.is_file():
            text = path.read_text(errors="replace")
            assert not any(home in text for home in homes), name


def test_the_engines_names_are_there_when_they_are_asked_for():
    import epochal.engine

    for name in epochal.engine.__all__:
        assert getattr(epochal.engine, name).__name__ == name
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = epochal.engine.nothing_like_it
