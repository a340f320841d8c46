"""A new project's files: made of templates, written where nothing is yet, and what to do next."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files as resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochal.data.errors import InputError

if TYPE_CHECKING:
    from jinja2 import Environment

MAX_NAME = 100  # characters, as the config has it
_IS_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")


@dataclass(frozen=True)
class Project:
    """What `epochal init` writes.

    files: name → text; the config's is the first. found: what was seen of the data or the code, as
    (what, text). notes: what a person should know before the first start.
    """

    kind: str
    name: str
    files: Mapping[str, str]
    found: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = field(default=())

    @property
    def config(self) -> str:
        """The name of the config's file."""
        return next(iter(self.files))


@dataclass(frozen=True)
class OwnModel:
    """A model that the user has: its target, and the arguments that it is to be given."""

    target: str
    args: Mapping[str, Any]


def render(template: str, **values: Any) -> str:
    """The text of a template with these values."""
    return _templates().get_template(f"{template}.jinja").render(**values)


@cache
def _templates() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    folder = resources("epochal.tasks.scaffold") / "templates"
    made = Environment(  # noqa: S701 - of YAML and Python, whose texts `yaml` below quotes
        loader=FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["yaml"] = flow
    return made


_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./@-]*")
_WORDS = {"true", "false", "null", "none", "yes", "no", "on", "off", "y", "n", "."}


def flow(value: Any) -> str:
    """A value as one line of YAML: `{path: ./photos, resize: [64, 64]}`."""
    match value:
        case str() if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
            return value
        case Mapping():
            return "{" + ", ".join(f"{flow(key)}: {flow(one)}" for key, one in value.items()) + "}"
        case list() | tuple():
            return f"[{', '.join(map(flow, value))}]"
        case float():
            text = repr(value)
            # YAML's own 1e-05 is a text without its dot.
            return text if "e" not in text or "." in text else text.replace("e", ".0e")
        case _:
            return json.dumps(value, ensure_ascii=False)


def write_project(project: Project, folder: Path) -> list[Path]:
    """Writes the files, all of them or none. Raises InputError where one is there already."""
    paths = {folder / name: text for name, text in project.files.items()}
    taken = [str(path) for path in paths if os.path.lexists(path)]
    if taken:
        raise InputError(
            f"{', '.join(taken)}: there already, and nothing is overwritten; nothing was written: "
            "give another folder with --out, or another name with --name"
        )
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in paths.items():
            with path.open("x", encoding="utf-8") as file:
                written.append(path)
                file.write(text)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise InputError(
            f"--out {folder}: cannot be written: {error.strerror or error}; nothing was"
        ) from error
    return written


def project_name(given: str | None, *, instead: str) -> str:
    """The name that was given, or one made of a path. Raises InputError."""
    allowed = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME - 1}}}")
    if given is not None:
        if not allowed.fullmatch(given):
            raise InputError(
                f"--name {given!r}: expected up to {MAX_NAME} letters, digits, `.`, `_` and `-`, "
                "of which the first is a letter or digit"
            )
        return given
    made = re.sub(r"[^A-Za-z0-9._-]+", "_", instead).lstrip("._-")[:MAX_NAME]
    return made or "run"


def seen_from(path: str, folder: Path) -> str:
    """A path as the config in `folder` has it: relative with `./`, or an address as it is."""
    if _IS_ADDRESS.match(path):
        return path
    whole = Path(path).expanduser().absolute()
    relative = os.path.relpath(whole, folder.absolute())
    if relative == "." or not relative.startswith(".."):
        return f"./{'' if relative == '.' else relative}"
    # Beyond a few folders up the whole path is what a person reads.
    return relative if relative.count("..") <= 2 else str(whole)  # noqa: PLR2004 - twice up


def last_part(path: str) -> str:
    """The name of a folder or a file without its ending."""
    base = path.rstrip("/").rpartition("/")[2] or Path(path).absolute().name
    return base.partition(".")[0] or base


def percent(share: float) -> str:
    """A share as people read it."""
    return f"{100 * share:.0f} %"


def listed(names: Sequence[str], *, at_most: int = 6) -> str:
    """Some of the names, and how many more there are."""
    more = "" if len(names) <= at_most else f", … ({len(names)})"
    return f"{', '.join(map(str, names[:at_most]))}{more}"
