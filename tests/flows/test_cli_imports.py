"""What a command imports, and builds, before it does its work: no more than it needs."""

import json
import subprocess
import sys

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project

LIBRARIES = {
    "typer", "shellingham", "annotated_doc",  # the command line
    "rich", "pygments", "markdown_it", "mdurl",  # tables
    "pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection",
    "yaml", "xxhash",
}  # fmt: skip
"""What `plan` of a store on a disk may import. A library that is not here has to earn its time."""
OF_PYTHON = {*sys.stdlib_module_names, "epochal", "__main__", "cython_runtime"}
WORK = (
    "data.loading", "data.inspection.describe", "data.inspection.labels", "data.mining",
    "engine.checkpoint", "engine.loop", "engine.measure", "engine.model",
    "flows.deployment", "flows.flow_run", "flows.progress", "flows.servers", "flows.train",
    "tasks.preflight", "tasks.report", "tasks.run_data", "tasks.running", "tasks.tracking",
)  # fmt: skip
"""Parts of Epochal that compute, deliver or serve: none is asked for a plan."""
OF_THE_FRAME = {
    "data", "data.errors", "data.lazy", "data.traces", "flows", "flows.cli", "flows.commands",
    "flows.commands.options", "flows.environment", "flows.termination", "flows.terminal",
    "flows.terminal.completion", "flows.terminal.help", "flows.version", "tasks",
    "tasks.trainer", "tasks.trainer.interruption",
}  # fmt: skip
"""Parts of Epochal that every command needs, and `--version`."""

TELL = """
import json, sys
from epochal.data.types import Frozen

def models(model=Frozen):
    for one in model.__subclasses__():
        yield one
        yield from models(one)

built = sorted({one.__name__ for one in models() if one.__pydantic_complete__})
print(json.dumps({"modules": sorted(sys.modules), "built": built}))
"""


def after(code):
    """The modules of a process that has run `code`, and the models of configs that it has built."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{TELL}"],
        capture_output=True, text=True, check=True, cwd="/",
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def ours(modules):
    return {name.removeprefix("epochal.") for name in modules if name.startswith("epochal.")}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A finished run."""
    project = Project(tmp_path_factory.mktemp("planned") / "project", epochs=2)
    BareRun(project.config)()
    return project


@pytest.fixture(scope="module")
def planned(project):
    """The modules after `epochal plan` of it."""
    command = f"cli.run(['plan', {str(project.config)!r}])"
    return after(f"from epochal.flows import cli; assert {command} == 0")["modules"]


def test_plan_imports_no_library_that_it_does_not_need(planned):
    libraries = {name.partition(".")[0] for name in planned} - OF_PYTHON
    assert {name for name in libraries if not name.startswith("_")} - LIBRARIES == set()


def test_plan_imports_nothing_of_epochal_that_computes_delivers_or_serves(planned):
    work = tuple(f"{part}." for part in WORK)
    assert {name for name in ours(planned) if f"{name}.".startswith(work)} == set()


def test_a_command_imports_no_other_command(planned):
    commands = {name for name in ours(planned) if name.startswith("flows.commands.")}
    assert commands == {"flows.commands.options", "flows.commands.plan"}


def test_the_version_is_told_without_any_command_or_config():
    told = after("from epochal.flows import cli; cli.run(['--version'])")
    assert ours(told["modules"]) - {"data.types", "data.hashing"} == OF_THE_FRAME


HEAVY = {"torch", "prefect", "mlflow", "pyarrow", "numpy", "pydantic", "duckdb", "bokeh"}


def test_help_lists_all_commands_without_any_of_them_or_their_libraries():
    told = after("from epochal.flows import cli; assert cli.run(['--help']) == 0")
    assert ours(told["modules"]) - {"data.types", "data.hashing"} <= OF_THE_FRAME
    assert HEAVY & {*told["modules"]} <= {"pydantic"}  # of the question itself


@pytest.mark.parametrize("words", ["epochal s", "epochal show b", "epochal train r"])
def test_a_shell_that_completes_waits_for_no_heavy_library(words):
    complete = f"""
import os
os.environ |= {{"_EPOCHAL_COMPLETE": "complete_bash", "COMP_WORDS": {words!r},
                "COMP_CWORD": "{words.count(" ")}"}}
from epochal.flows import cli
try:
    cli.app(args=[], prog_name="epochal")
except SystemExit:
    pass
"""
    assert {*after(complete)["modules"]} & HEAVY <= {"pydantic", "numpy"}


def test_importing_the_models_of_configs_builds_none():
    found = after("import epochal.tasks.config.load, epochal.tasks.runs.plan")
    assert found["built"] == []


def test_reading_a_config_builds_one_model_and_its_parts_in_it(project):
    read = (
        f"from epochal.tasks.config.load import load_config; load_config({str(project.config)!r})"
    )
    assert after(read)["built"] == ["RunConfig"]
