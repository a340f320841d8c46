"""The command line: `epochal COMMAND`. Parses, calls, prints; errors become exit codes here.

0 done; 2 bad config or input, nothing started; 3 training failed; 75 interrupted, or store, disk
or Prefect failed: what was committed is intact.
"""

from __future__ import annotations

import platform
import sys
from importlib import metadata
from typing import Annotated

import typer

from epochal.data.errors import EpochalError
from epochal.flows.commands.read import export, runs, samples, show
from epochal.flows.commands.report import landscape, report
from epochal.flows.commands.servers import deploy, down, up
from epochal.flows.commands.store import gc, sync, verify
from epochal.flows.commands.train import plan, train
from epochal.flows.environment import prepare_environment
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
    prepare_environment()
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Runs one command and gives its exit code."""
    try:
        code = app(args=arguments, standalone_mode=False)
    except typer.Exit as error:
        code = error.exit_code
    except BaseException as error:
        failed = _exit_code(error)
        if failed is None:
            raise
        return failed
    if code == SIGINT_CODE:  # what typer turns a KeyboardInterrupt into
        return _interrupted("interrupted")
    return code if isinstance(code, int) else 0


def _exit_code(error: BaseException) -> int | None:
    """Says what happened and gives the code; None for what is a defect of our own."""
    if isinstance(error, EpochalError):
        return _fail(str(error), error.exit_code)
    if isinstance(error, OSError):
        return _interrupted(f"{type(error).__name__}: {error}")
    # Prefect's TerminationSignal by its name: importing Prefect for it would cost a second.
    if isinstance(error, KeyboardInterrupt | typer.Abort) or (
        type(error).__name__ == "TerminationSignal"
    ):
        return _interrupted("interrupted")
    return _usage_error(error)


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
