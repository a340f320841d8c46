"""The command line: `epochal COMMAND`. Parses, calls, prints; errors become exit codes here.

0 done; 2 bad config or input, nothing started; 3 training failed; 75 interrupted, or store, disk
or Prefect failed: what was committed is intact.
"""

from __future__ import annotations

import io
import os
import sys
from collections import UserDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from epochal.data.errors import EpochalError, TrainingFailed, passes_through
from epochal.data.lazy import lazy_names
from epochal.data.traces import in_one_line, users_line
from epochal.flows.commands.options import ErrorsShown
from epochal.flows.environment import importing, prepare_environment
from epochal.flows.terminal.help import finish, fit, in_order, listed, untyped_flags
from epochal.flows.termination import quick_end, told_of_termination

EXIT_INTERRUPTED = 75
SIGINT_CODE = 130


COMMANDS = {
    "train": ("train",),
    "plan": ("plan",),
    "sweep": ("sweep",),
    "read": ("runs", "show", "samples", "export"),
    "report": ("report", "landscape"),
    "store": ("sync", "verify", "gc"),
    "servers": ("deploy", "up", "down"),
    "join": ("join",),
    "data": ("data",),
    "inspect.why": ("why",),
    "init": ("init",),
    "inspect.compare": ("compare",),
    "inspect.query": ("query",),
    "inspect.audit": ("audit",),
    "machine.doctor": ("doctor",),
    "machine.status": ("status",),
    "machine.logs": ("logs",),
    "machine.watch": ("watch",),
}
"""Module of `flows/commands` → the commands that it has."""

_MODULES = {name: module for module, names in COMMANDS.items() for name in names}
_look_up, _ = lazy_names(
    __name__, {f"epochal.flows.commands.{module}": names for module, names in COMMANDS.items()}
)


class _Commands(UserDict[str, Any]):
    """Name → command. Its module is imported when it is called."""

    def __getitem__(self, name: str) -> Any:
        if self.data[name] is None:
            self.data[name] = finish(typer.main.get_command(self._typer_of(_look_up(name))), name)
            self.data[name].name = name
        return self.data[name]

    @staticmethod
    def _typer_of(found: Any) -> typer.Typer:
        if isinstance(found, typer.Typer):  # a group of commands
            return found
        one = typer.Typer(add_completion=False)
        one.command()(found)
        return one


class _Group(TyperGroup):
    """Lists its commands by their source; imports the one that is called."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = _Commands(dict.fromkeys(in_order(list(_MODULES))))
        self._lists = False
        untyped_flags(self)
        fit(self)

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - as click asks
        """In the order of the panels."""
        return list(self.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command: to be called, or as it is listed."""
        if self._lists and cmd_name in _MODULES:
            return listed(cmd_name, _MODULES[cmd_name])
        if ctx.resilient_parsing or cmd_name not in _MODULES:  # a shell completes; or a typo
            return super().get_command(ctx, cmd_name)
        from epochal.flows.console import err
        from epochal.flows.terminal.region import waiting

        # Without walks over what is imported, at the exit above all: a tenth of `plan`.
        with importing(), waiting(err, "starting"):
            return super().get_command(ctx, cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """All commands, of which none is imported."""
        with self._listing():
            super().format_help(ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Likewise."""
        with self._listing():
            return super().shell_complete(ctx, incomplete)

    @contextmanager
    def _listing(self) -> Iterator[None]:
        self._lists = True
        try:
            yield
        finally:
            self._lists = False


app = typer.Typer(
    name="epochal",
    cls=_Group,
    help="PyTorch training as a Prefect pipeline: every epoch is a stage, done once.",
    epilog="Examples of a command: epochal train --help",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)  # or --version alone would miss its command
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print this version, and those it works with.")
    ] = False,
) -> None:
    if version:
        from epochal.flows.version import versions  # its library of versions is no light one

        typer.echo(versions())
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """The entry point of `epochal`; ends the process with the command's exit code."""
    _prepare_outputs()
    prepare_environment()
    end = quick_end()
    sys.exit(end(run(arguments)))


def _prepare_outputs() -> None:
    """Makes outputs take every character: what their encoding lacks becomes `?`.

    An output that was closed when the process began is /dev/null.
    """
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115 - until the end
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def run(arguments: list[str] | None = None) -> int:
    """Runs one command and gives its exit code."""
    shown = ErrorsShown()
    try:
        with told_of_termination():
            code = app(args=arguments, standalone_mode=False, obj=shown)
    except typer.Exit as error:
        code = error.exit_code
    except BaseException as error:
        failed = _exit_code(error)
        if failed is None:
            raise
        _say_trace(error, shown)
        return failed
    if code == SIGINT_CODE:  # what typer turns a KeyboardInterrupt into
        return _interrupted("interrupted")
    return code if isinstance(code, int) else 0


def _exit_code(error: BaseException) -> int | None:
    """Says what happened and gives the code; None for what is a defect of our own."""
    if isinstance(error, EpochalError):
        return _fail(str(error), error.exit_code)
    if isinstance(error, typer.Abort) or passes_through(error):
        return _interrupted("interrupted")
    if (usage := _usage_error(error)) is not None:
        return usage
    if _is_users(error):
        return _fail(f"{in_one_line(error)}{users_line(error)}", TrainingFailed.exit_code)
    if isinstance(error, OSError):
        return _interrupted(f"{type(error).__name__}: {error}")
    return None


def _is_users(error: BaseException) -> bool:
    from epochal.tasks.user_code.failures import raised_by_users_code

    return raised_by_users_code(error)


def _say_trace(error: BaseException, shown: ErrorsShown) -> None:
    from epochal.flows.console import say_trace

    say_trace(error, all_frames=shown.all_frames)


def _usage_error(error: BaseException) -> int | None:
    show_usage = getattr(error, "show", None)
    code = getattr(error, "exit_code", None)
    if show_usage is None or not isinstance(code, int):
        return None
    from epochal.tasks.printable import printable

    if isinstance(message := getattr(error, "message", None), str):
        if near := getattr(error, "possibilities", None):
            message = f"{message}. Did you mean {near[0]!r}?"
            error.possibilities = None  # type: ignore[attr-defined]
        error.message = printable(message)  # type: ignore[attr-defined]  # as click has it
    show_usage()  # click's own errors: an unknown option or command, a missing argument
    return code


def _fail(text: str, code: int) -> int:
    from epochal.flows.console import say_error

    say_error(text)
    return code


def _interrupted(cause: str) -> int:
    return _fail(
        f"{cause}; what was committed is intact, run the same command to go on", EXIT_INTERRUPTED
    )


if __name__ == "__main__":
    main()
