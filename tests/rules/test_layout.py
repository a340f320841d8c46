"""The house's rules: a folder for what belongs together, imports that run downhill, no circle."""

import ast
import subprocess
import sys

import pytest
from support.source_tree import (
    PACKAGES,
    ROOT,
    circle,
    files,
    folder_graph,
    graph,
    imports,
    modules,
    place,
)

FLOORS = {
    "data": {"data"},
    "engine": {
        "engine",
        "data.types",
        "data.errors",
        "data.hashing",
        "data.documents",
        "data.lazy",
    },
    "tasks": {"tasks", "engine", "data"},
    "flows": {"flows", "tasks", "engine", "data"},
}
NEVER = {
    "data": {"prefect", "mlflow"},
    "engine": {"prefect", "mlflow", "fsspec", "pyarrow"},
}
HEAVY = ("torch", "pyarrow", "prefect", "mlflow", "sklearn", "torchmetrics", "matplotlib")
FULL = 12
"""A folder with more files is a corridor: which families live there?"""

SMALL = 80
"""A shorter file that only one other imports belongs into that one, unless it is public."""

source = pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
folders = sorted({path.parent for path in files()})


@source
def test_imports_run_downhill(path):
    floor = path.relative_to(ROOT).parts[0]
    for name in imports(path):
        assert name.partition(".")[0] not in {*PACKAGES, "tests"}, f"{name}: not below epochal"
        assert name.partition(".")[0] not in NEVER.get(floor, ()), name
        if not name.startswith("epochal."):
            continue
        other = name.removeprefix("epochal.")
        assert any(other == one or other.startswith(f"{one}.") for one in FLOORS[floor]), name


def test_no_circle_among_files():
    assert circle(graph()) is None


def test_no_circle_among_folders():
    assert circle(folder_graph()) is None


def test_a_circle_would_be_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) is not None
    assert circle({"a": {"b", "c"}, "b": {"c"}}) is None


@pytest.mark.parametrize("folder", folders, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_a_folder_is_no_corridor(folder):
    names = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert len(names) <= FULL


ON_THEIR_OWN = {
    "flows.terminal.completion": "what a shell is told, without a command",
    "data.files.look_at": "the entry of a process: started by its path",
    "data.files.positions": "what a fork shares of open files, beside who is forked",
    "data.inspection.file_stamps": "declared files: a thought of its own beside reading items",
    "data.policies.shared.revisit": "who comes back when: asked for every policy",
    "engine.checkpoint.averaging": "the mean of checkpoints, for the library's users too",
    "engine.checkpoint.warm_start": "which names and shapes may differ, without any file",
    "engine.environment": "what of a machine may change numbers",
    "engine.loop.phases": "words that the loop calls out, for whoever has a clock",
    "engine.loop.loss_weights": "the weights of losses in an update, which the loop must not know",
    "engine.schedule.plateau": "torch's rule over numbers, which planning feeds with records",
    "flows.flow_run.cancellation": "one private function of Prefect, in one place",
    "flows.library.functions": "the commands as functions: the front door's",
    "tasks.export": "a command's work",
    "tasks.predictions": "likewise",
    "tasks.joining.join": "likewise",
    "tasks.running.prefect_tasks": "the one file of tasks that imports Prefect",
    "tasks.run_data.hash_order": "a program of its own: it is started with another hash seed",
    "tasks.runs.survey": "what a start reads of a store",
    "tasks.why.pictures": "a contact sheet, which only one option of a command asks for",
    "tasks.user_code.import_path": "what of Python's own search is changed, in one place",
    "tasks.user_code.package_versions": "versions without importing the packages",
    "tasks.running.start_trainer": "which trainer a run has: the one place that knows them all",
    "tasks.launch.thread_randomness": "what is changed of Python's own `random`, in one place",
    "tasks.launch.trainer_main": "the entry of a process: started by its name",
    "tasks.computing.watch": "an epoch at work, by the clock: the engine knows none",
    "tasks.computing.stragglers": "who of several is slow, by the clock",
    "tasks.preflight.processes": "what slows several processes down, without torch",
    "tasks.preflight.shared_state": "what several processes cannot share",
}
"""Short files with one importer that stay files, and why."""

FAMILIES = ("data.policies", "tasks.stages", "tasks.scaffold", "flows.commands")
"""Folders with a file for each kind of something, which a registry lists."""


def test_a_short_file_with_one_user_belongs_into_that_user():
    users = {}
    for here, others in graph().items():
        for other in others:
            users.setdefault(other, []).append(here)
    alone = {
        here
        for here, path in modules().items()
        if len(path.read_text().splitlines()) <= SMALL
        and len(using := users.get(here, ())) == 1
        and modules()[using[0]].name != "__init__.py"  # a face: what it shows is public
        and place(path.parent / "__init__.py") not in FAMILIES
    }
    assert alone - ON_THEIR_OWN.keys() == set()
    assert ON_THEIR_OWN.keys() - modules().keys() == set()


def test_every_module_says_its_job():
    for path in files():
        assert ast.get_docstring(ast.parse(path.read_text())), path


LIGHT = [
    place(path) for path in files() if {"config", "planning"} & set(path.parent.parts)
] + [
    "data.types", "data.hashing", "data.stage_store.stages", "engine.schedule.schedule",
    "tasks.runs.plan", "tasks.runs.explain", "flows.cli",
]  # fmt: skip


def test_config_keys_and_plan_import_nothing_heavy():
    code = (
        "import importlib, sys\n"
        f"for name in {LIGHT!r}:\n"
        "    importlib.import_module('epochal.' + name)\n"
        f"    heavy = [one for one in {HEAVY!r} if one in sys.modules]\n"
        "    assert not heavy, (name, heavy)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")


def test_nothing_sleeps_or_collects_garbage_between_stages():
    """What is replaced here slept two seconds at each stage, against a possible deadlock."""
    calls = {}
    for path in files():
        for node in ast.walk(ast.parse(path.read_text())):
            if path.relative_to(ROOT).parts[0] != "flows" and isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                if name in {"time.sleep", "sleep", "gc.collect"}:
                    calls.setdefault(place(path), []).append(name)
    assert calls == {"data.store.retry": ["time.sleep"]}  # a storage that does not answer


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
