"""`epochal init`: a config and stubs for data, or code, that a person has."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from epochal.data.errors import InputError
from epochal.flows import console
from epochal.flows.commands.options import AsJson, Debug
from epochal.flows.terminal.style import GOOD

if TYPE_CHECKING:
    from epochal.tasks.scaffold.guess import Kind
    from epochal.tasks.scaffold.project import OwnModel, Project

Source = Annotated[
    str | None,
    typer.Argument(
        metavar="SOURCE",
        show_default=False,
        help="What you have: a folder of images, a table, texts (a path or an address); or code, "
        "as module:attribute: a data set or a LightningModule.",
    ),
]
KindOption = Annotated[
    str | None,
    typer.Option(
        "--kind",
        metavar="KIND",
        show_default=False,
        help="images, table, text, dataset, lightning or huggingface; else what SOURCE looks like.",
    ),
]
TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="COLUMN",
        show_default=False,
        help="Of a table: the column that is to be learned; else one called target, label, class "
        "or y, or the last.",
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="SOURCE",
        show_default=False,
        help="What a LightningModule trains on, as module:attribute: a data set or a "
        "LightningDataModule; what a Hugging Face model does: a table with a column of texts.",
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODULE:CLASS",
        show_default=False,
        help="A torch.nn.Module that you have, instead of the stub in model.py.",
    ),
]
ArgsOption = Annotated[
    str | None,
    typer.Option(
        "--args",
        metavar="JSON",
        show_default=False,
        help="What --model, or else the code of SOURCE, is called with: '{\"width\": 64}'.",
    ),
]
NameOption = Annotated[
    str | None,
    typer.Option(
        "--name", metavar="NAME", show_default=False, help="The run's name; else that of SOURCE."
    ),
]
OutOption = Annotated[
    Path,
    typer.Option("--out", metavar="FOLDER", help="Where the files go; made if it is not there."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")]


def init(
    source: Source = None,
    kind: KindOption = None,
    target: TargetOption = None,
    data: DataOption = None,
    model: ModelOption = None,
    args: ArgsOption = None,
    name: NameOption = None,
    out: OutOption = Path(),
    yes: Yes = False,  # noqa: FBT002 - typer's way of a flag
    as_json: AsJson = False,  # noqa: FBT002 - likewise
    _debug: Debug = False,  # noqa: FBT002 - likewise
) -> None:
    """Write a config and a model that train at once on data, or code, that you have.

    Looks at it first: classes, columns, sizes. Never overwrites a file.
    """
    from epochal.tasks.scaffold.project import write_project

    asks = Asks(not yes and not as_json and sys.stdin.isatty() and console.err.is_terminal)
    request = _Request(asks, source, kind, target, data, model, args, name, out)
    project = request.project()
    if not as_json:
        _show(project)
    if asks.can and not asks.agrees(f"Write {', '.join(project.files)} to {out.absolute()}?"):
        console.out.print("nothing was written")
        return
    written = write_project(project, out)
    commands = _next(out / project.config)
    if as_json:
        console.print_json(
            {
                "name": project.name,
                "kind": project.kind,
                "config": str(out / project.config),
                "files": [str(path) for path in written],
                "found": dict(project.found),
                "notes": list(project.notes),
                "next": [command for command, _ in commands],
            }
        )
        return
    console.out.print()
    for path in written:
        console.out.print(console.line(("wrote", GOOD), f"  {path}"))
    console.out.print()
    console.out.print("Next:")
    width = max(len(command) for command, _ in commands)
    for command, what in commands:
        console.out.print(f"  {command:<{width}}  # {what}", whole=True)


def _show(project: Project) -> None:
    width = max(len(what) for what, _ in project.found) + 2
    for what, text in project.found:
        console.out.print(console.line((f"{what:<{width}}", "bold"), text))
    for note in project.notes:
        console.say_note(note)


def _next(config: Path) -> list[tuple[str, str]]:
    given = shlex.quote(str(config))
    return [
        (f"epochal data check {given}", "every sample, and the model"),
        (f"epochal train {given}", "trains; again: goes on"),
        (f"epochal doctor {given}", "what may fail here"),
    ]


class Asks:
    """Questions to the person at the terminal. can: whether there is one who wants them."""

    def __init__(self, can: bool) -> None:  # noqa: FBT001 - what it is all about
        self.can = can

    def choice(self, question: str, names: Sequence[str], texts: Sequence[str]) -> str:
        """One of the names, by its number or itself."""
        console.err.print(question)
        width = max(map(len, names))
        for number, (name, text) in enumerate(zip(names, texts, strict=True), start=1):
            console.err.print(f"  {number}  {name:<{width}}  {text}")
        while True:
            answer = typer.prompt("Number", err=True, default="1").strip()
            if answer in names:
                return str(answer)
            if answer.isdigit() and 1 <= int(answer) <= len(names):
                return names[int(answer) - 1]
            console.err.print(f"a number from 1 to {len(names)}, please")

    def text(self, question: str, *, default: str | None = None) -> str:
        """A line; empty only where that is the default."""
        return str(typer.prompt(question, default=default, err=True, show_default=bool(default)))

    def agrees(self, question: str) -> bool:
        """Yes or no; Enter is yes."""
        return typer.confirm(question, default=True, err=True)


class _Request:
    """What was given, and what is asked for where it is missing."""

    def __init__(
        self,
        asks: Asks,
        source: str | None,
        kind: str | None,
        target: str | None,
        data: str | None,
        model: str | None,
        args: str | None,
        name: str | None,
        out: Path,
    ) -> None:
        self._asks = asks
        self._source = source
        self._kind = kind
        self._target = target
        self._data = data
        self._model = model
        self._args = args
        self._name = name
        self._out = out

    def project(self) -> Project:
        """The project's files. Raises InputError, DataError."""
        kind = self._of_kind()
        self._check_options(kind)
        return {
            "images": self._images,
            "table": self._table,
            "text": self._text,
            "dataset": self._dataset,
            "lightning": self._lightning,
            "huggingface": self._hugging_face,
        }[kind]()

    def _of_kind(self) -> Kind:
        from epochal.tasks.scaffold.guess import KINDS, WHAT, is_target, kind_of_path

        if self._kind is not None:
            if self._kind not in KINDS:
                raise InputError(f"--kind {self._kind!r}: expected one of {', '.join(KINDS)}")
            return self._kind
        if self._source is None:
            if not self._asks.can:
                raise InputError(
                    "SOURCE: what is to be trained on? Give a folder of images, a table, texts or "
                    "module:attribute, or --kind dataset for a stub to fill in; in a terminal, and "
                    "without --yes, `epochal init` asks"
                )
            self._kind = self._asks.choice(
                "What do you have?", KINDS, [WHAT[kind] for kind in KINDS]
            )
            return cast("Kind", self._kind)
        if is_target(self._source):
            return self._of_code(self._source)
        return kind_of_path(self._source)

    def _of_code(self, source: str) -> Kind:
        from epochal.tasks.scaffold.own_code import kind_of_code

        return kind_of_code(source, folder=self._out.absolute())

    def _check_options(self, kind: Kind) -> None:
        """Raises InputError for an option that the kind has no use for."""
        allowed = {
            "target": ("table", "huggingface"),
            "data": ("lightning", "huggingface"),
            "model": ("images", "table", "text", "dataset"),
            "args": ("dataset", "lightning"),
        }
        if self._model is not None:
            del allowed["args"]  # they are the model's
        for name, kinds in allowed.items():
            if getattr(self, f"_{name}") is not None and kind not in kinds:
                raise InputError(
                    f"--{name}: is for {' and '.join(kinds)}, and this is {kind}; leave it out"
                )

    def _path(self, question: str) -> str:
        if self._source is None:
            if not self._asks.can:
                raise InputError(f"SOURCE: {question} is missing")
            self._source = self._asks.text(question)
        return self._source

    def _named(self, default: str) -> str | None:
        """The run's name: asked for where it was not given."""
        from epochal.tasks.scaffold.project import project_name

        if self._name is None and self._asks.can:
            self._name = self._asks.text("Name", default=project_name(None, instead=default))
        return self._name

    def _images(self) -> Project:
        from epochal.tasks.scaffold.images import images_project, look_at_images
        from epochal.tasks.scaffold.project import last_part

        path = self._path("The folder that holds a folder of images for each class")
        found = look_at_images(path)
        model = self._own_model(classes=len(found.classes), channels=found.channels)
        name = self._named(last_part(path))
        return images_project(found, path=path, name=name, folder=self._out, model=model)

    def _table(self) -> Project:
        from epochal.tasks.scaffold.project import last_part
        from epochal.tasks.scaffold.table import (
            known_of_table,
            look_at_table,
            table_project,
        )

        path = self._path("The table: a file, a folder or a glob")
        found = look_at_table(path)
        target = self._target
        if target is None:
            target = found.likely_target
            if self._asks.can:
                names = ", ".join(one.name for one in found.columns)
                console.err.print(f"columns: {names}")
                target = self._asks.text("Which is to be learned?", default=target)
        model = self._own_model(**known_of_table(found, target))
        name = self._named(last_part(path))
        return table_project(found, target=target, name=name, folder=self._out, model=model)

    def _text(self) -> Project:
        from epochal.tasks.scaffold.project import last_part
        from epochal.tasks.scaffold.text import BYTES, WINDOW, text_project

        path = self._path("The text: a file, a folder or a glob")
        model = self._own_model(vocabulary=BYTES, window=WINDOW)
        name = self._named(last_part(path))
        return text_project(path, name=name, folder=self._out, model=model)

    def _dataset(self) -> Project:
        from epochal.tasks.scaffold.own_data import data_project, look_at_data, stub_project

        if self._source is None and self._asks.can:
            self._source = self._asks.text(
                "Your data set as module:attribute (Enter: a stub to fill in)", default=""
            )
        if not self._source:
            model = self._own_model(features=8, classes=2)
            return stub_project(name=self._named("own"), model=model)
        args = self._given_args() if self._model is None else {}
        found = look_at_data(self._source, args, self._out.absolute())
        model = self._own_model(classes=found.classes)
        name = self._named(self._source.rpartition(":")[2].lower())
        return data_project(found, name=name, model=model)

    def _lightning(self) -> Project:
        from epochal.tasks.scaffold.moving_in import lightning_project

        source = self._path("The LightningModule, as module:Class")
        return lightning_project(
            source,
            self._given_data(
                "what it trains on, as module:attribute: a LightningDataModule or a data set"
            ),
            args=self._given_args(),
            name=self._named(source.rpartition(":")[2].lower()),
            folder=self._out,
        )

    def _hugging_face(self) -> Project:
        from epochal.tasks.scaffold.moving_in import text_classes_project
        from epochal.tasks.scaffold.project import last_part

        source = self._path("The model: a name of the hub, or a folder")
        return text_classes_project(
            source,
            self._given_data("a table with a column of texts and one of labels"),
            target=self._target,
            name=self._named(last_part(source)),
            folder=self._out,
        )

    def _given_data(self, what: str) -> str:
        if self._data is None:
            if not self._asks.can:
                raise InputError(f"--data: is missing: {what}")
            self._data = self._asks.text(what.capitalize())
        return self._data

    def _own_model(self, **known: int | None) -> OwnModel | None:
        if self._model is None:
            return None
        from epochal.tasks.scaffold.own_code import own_model

        return own_model(
            self._model, known=known, args=self._given_args(), folder=self._out.absolute()
        )

    def _given_args(self) -> dict[str, Any]:
        if self._args is None:
            return {}
        try:
            given = json.loads(self._args)
        except ValueError as error:
            raise InputError(f"--args {self._args!r}: is no JSON: {error}") from error
        if not isinstance(given, dict):
            raise InputError(f'--args {self._args!r}: expected an object, such as {{"width": 64}}')
        return given
