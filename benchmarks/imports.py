"""Processor time of commands that compute nothing, against a process that imports their libraries.

    python benchmarks/imports.py                          # ten rounds, all sides in turn
    python benchmarks/imports.py --also before=FOLDER     # and another tree: FOLDER/epochal/…

FOLDER is the `.types` of another checkout, which `make types` makes. The run that the commands read
is digits, four epochs, whole. Every side finds its bytecode, as after an installation; with
`--no-bytecode` it is compiled anew where the tree has none (no `__pycache__`).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIBRARIES = """
import rich.console, rich.measure, rich.table, rich.text, typer, yaml
from pydantic import (
    AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, JsonValue,
    PlainSerializer, TypeAdapter, ValidationError, field_validator, model_serializer,
    model_validator,
)
"""
"""What `plan` imports of its libraries, and nothing done with it."""
IMPORT = "import epochal.flows.cli"
CALL = "from epochal.flows.cli import main; main({arguments!r})"
BASE = "its libraries"


def make(folder: Path) -> Path:
    """The config of a whole run in `folder`, trained without Prefect and MLflow."""
    from epochal.tasks.config.load import load_config
    from epochal.tasks.running.open import open_run

    shutil.copytree(
        ROOT / "examples" / "digits", folder / "digits", ignore=shutil.ignore_patterns("store")
    )
    path = folder / "digits" / "digits.yaml"
    path.write_text(path.read_text().replace("epochs: 12", "epochs: 4"))
    run = open_run(load_config(path))
    for stage in run.stages():
        run.run_stage(stage)
    return path


def sides(config: Path, *, trees: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Name → code that is run, and the folder that `epochal` is taken from; empty: as installed."""
    codes = {
        "import of the command line": IMPORT,
        "epochal --version": CALL.format(arguments=["--version"]),
        "epochal plan": CALL.format(arguments=["plan", str(config)]),
        "epochal plan --json": CALL.format(arguments=["plan", str(config), "--json"]),
        "epochal show": CALL.format(arguments=["show", str(config)]),
    }
    found = {BASE: (LIBRARIES, "")}
    for name, code in codes.items():
        found[name] = (code, "")
        for tree, folder in trees.items():
            found[f"{name}, {tree}"] = (code, folder)
    return found


def processor_seconds(code: str, tree: str, environment: Mapping[str, str]) -> float:
    """User and system time of a process that runs `code`, to its end."""
    path = {"PYTHONPATH": tree} if tree else {}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**environment, **path}, cwd="/",
    )  # fmt: skip
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"exit code {process.returncode} of: {code}")
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--also", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--no-bytecode", action="store_true")
    options = parser.parse_args()
    trees = dict(one.split("=", 1) for one in options.also)
    with tempfile.TemporaryDirectory(prefix="epochal-imports-") as made:
        folder = Path(made)
        environment = {**os.environ, "HOME": made}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        if options.no_bytecode:
            environment["PYTHONDONTWRITEBYTECODE"] = "1"
        else:
            environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
        compared = sides(make(folder), trees=trees)
        for code, tree in compared.values():  # bytecode and files are there from now on
            processor_seconds(code, tree, environment)
        seconds: dict[str, list[float]] = {name: [] for name in compared}
        for _ in range(options.rounds):
            for name, (code, tree) in compared.items():
                seconds[name].append(processor_seconds(code, tree, environment))
    print("| | processor ms | of its libraries (lowest–highest) |\n|---|--:|--:|")
    for name, measured in seconds.items():
        ratios = [one / base for one, base in zip(measured, seconds[BASE], strict=True)]
        print(
            f"| {name} | {1000 * statistics.median(measured):.0f} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}) |"
        )


if __name__ == "__main__":
    main()
