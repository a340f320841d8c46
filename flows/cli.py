"""The command line: `epochal COMMAND`. Parses, calls, prints; errors become exit codes here.

0 done; 2 bad config or input, nothing started; 3 training failed; 75 interrupted, or store, disk
or Prefect failed: what was committed is intact.
"""

from __future__ import annotations

import io
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from epochal.data.errors import EpochalError, TrainingFailed, passes_through
from epochal.data.traces import in_one_line, users_line
from epochal.flows.commands.data import data
from epochal.flows.commands.options import ErrorsShown
from epochal.flows.commands.read import export, runs, samples, show
from epochal.flows.commands.report import landscape, report
from epochal.flows.commands.servers import deploy, down, up
from epochal.flows.commands.store import gc, sync, verify
from epochal.flows.commands.train import plan, train
from epochal.flows.environment import prepare_environment
from epochal.flows.termination import quick_end, told_of_termination
from epochal.flows.version import __version__

EXIT_INTERRUPTED = 75
SIGINT_CODE = 130


app = typer.Typer(
    name="epochal",
    help="PyTorch training as a Prefect pipeline: every epoch is a stage, done once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (
    *(train, plan, runs, show, samples, report, export, landscape),
    *(sync, verify, gc, deploy, up, down),
):
    app.command()(_command)
app.add_typer(data, name="data")


@app.callback(invoke_without_command=True)  # or --version alone would miss its command
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print this version, and those it works with.")
    ] = False,
) -> None:
    if version:
        others = (f"{name} {metadata.version(name)}" for name in ("torch", "prefect", "mlflow"))
        parts = (f"epochal {__version__}", f"Python {platform.python_version()}")
        typer.echo(", ".join((*parts, *others)))
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
