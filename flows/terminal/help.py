"""What `epochal --help` lists, without importing a command: panels, first sentences, examples."""

from __future__ import annotations

import ast
import inspect
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

PANELS: Mapping[str, Sequence[str]] = {
    "Train": ("init", "train", "plan", "sweep", "data"),
    "Look at runs": (
        *("runs", "show", "samples", "why", "compare", "query", "report", "landscape"),
        *("status", "watch", "logs"),
    ),
    "Keep": ("export", "sync", "verify", "audit", "gc"),
    "Servers and machines": ("up", "down", "deploy", "join", "doctor"),
}
"""Heading → commands below it, in their order."""

EXAMPLES: Mapping[str, Sequence[str]] = {
    "init": (
        "epochal init",
        "epochal init ./photos",
        "epochal init houses.csv --target price",
    ),
    "train": (
        "epochal train digits.yaml",
        "epochal train digits.yaml --set epochs=16    # goes on: 12 are there",
        "epochal train digits.yaml --set optimizer.args.lr=0.01 --json",
    ),
    "plan": (
        "epochal plan digits.yaml",
        "epochal plan digits.yaml --set epochs=16     # what would be computed",
        "epochal plan sweep.yaml                      # what its runs share",
    ),
    "sweep": (
        "epochal plan sweep.yaml",
        "epochal sweep sweep.yaml",
        "epochal sweep sweep.yaml -j 2",
    ),
    "runs": ("epochal runs ./store", "epochal runs digits.yaml"),
    "show": (
        "epochal show digits",
        "epochal show digits@1                        # an earlier generation",
        "epochal show ./store/digits --json",
    ),
    "samples": (
        "epochal samples digits --hardest 10",
        "epochal samples digits.yaml --suspects 20 --pictures suspects.png",
    ),
    "why": (
        "epochal why digits                           # the largest spike",
        "epochal why digits --update 140",
        "epochal why digits.yaml --update 140 --replay",
    ),
    "compare": ("epochal compare digits@1 digits@2 --out compare.html",),
    "query": (
        "epochal query ./store                        # the views and their columns",
        'epochal query ./store "select run, best_accuracy from runs"',
    ),
    "landscape": ("epochal landscape digits.yaml --epoch 11",),
    "watch": ("epochal watch digits",),
    "logs": ("epochal logs digits --follow",),
    "doctor": ("epochal doctor", "epochal doctor digits.yaml"),
    "report": ("epochal report digits.yaml --out digits.html",),
    "export": (
        "epochal export digits --out model.safetensors",
        "epochal export digits --epoch best --out best.safetensors",
    ),
    "verify": ("epochal verify ./store",),
    "audit": (
        "epochal audit digits.yaml --share 0.1",
        "epochal audit digits.yaml --share 0.1 --seed 2    # other epochs",
    ),
    "gc": ("epochal gc ./store", "epochal gc ./store --yes"),
    "sync": ("epochal sync digits.yaml",),
    "up": ("epochal up --open", "epochal up --prefect-port 4300 --mlflow-port 5300"),
    "down": ("epochal down",),
    "deploy": (
        "epochal deploy digits.yaml",
        'epochal deploy digits.yaml --cron "0 2 * * *" --timezone Europe/Berlin',
    ),
}
"""Command → lines that can be typed."""


NARROW = 60
"""Columns of a terminal below which help has no panels."""


class Listed(TyperCommand):
    """A command as a list shows it: its name and its first sentence."""


def listed(name: str, module: str) -> Listed:
    """The command as its source describes it, in `flows/commands/<module>.py`; nothing is run."""
    path = Path(__file__).parents[1] / "commands" / f"{module.replace('.', '/')}.py"
    functions = {
        node.name: node
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    described = functions.get(name) or functions["_group"]  # of a group of commands
    return Listed(
        name=name, help=ast.get_docstring(described), rich_help_panel=panel_of(name), callback=None
    )


def panel_of(name: str) -> str | None:
    """The heading that a command stands below."""
    return next((title for title, names in PANELS.items() if name in names), None)


def in_order(names: Sequence[str]) -> list[str]:
    """The commands panel by panel; one that no panel has comes last."""
    known = [name for panel in PANELS.values() for name in panel if name in names]
    return [*known, *(name for name in names if name not in known)]


def finish(command: Any, name: str) -> Any:
    """Gives a command, with those below it, what its help has beside its own words."""
    examples = EXAMPLES.get(name)
    if examples:
        command.epilog = "\n".join(["Examples:", *(f"  {line}" for line in examples)])
    command.rich_help_panel = panel_of(name)
    for one in (command, *getattr(command, "commands", {}).values()):
        untyped_flags(one)
        one.help = _unwrapped(one.help)
        fit(one)
    return command


def fit(command: Any) -> None:
    """On a narrow terminal help is plain text: in rich's columns names of options would be cut."""
    columns = shutil.get_terminal_size().columns
    if columns < NARROW:
        command.rich_markup_mode = None
        command.context_settings = {**command.context_settings, "terminal_width": columns}
        if command.epilog and "\n" in command.epilog:
            command.epilog = f"\b\n{command.epilog}"  # its lines stay lines


def _unwrapped(text: str | None) -> str | None:
    """A docstring with each paragraph on one line: the terminal has a width of its own."""
    if text is None:
        return None
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(text).split("\n\n"))


def untyped_flags(command: Any) -> None:
    """Shows flags and arguments without a type: `--json`, not `--json <bool>`."""
    params_of, usage_of = command.get_params, command.collect_usage_pieces

    def get_params(context: Any) -> list[Any]:
        params: list[Any] = params_of(context)
        for param in params:
            if getattr(param, "is_bool_flag", False) and param.metavar is None:
                param.metavar = ""
            if param.param_type_name == "argument":
                param.display_type_rich = lambda ctx: None  # noqa: ARG005 - as it is called
        return params

    def collect_usage_pieces(context: Any) -> list[str]:
        return [piece.replace("{", "").replace("}", "") for piece in usage_of(context)]

    command.get_params, command.collect_usage_pieces = get_params, collect_usage_pieces
