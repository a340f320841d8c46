"""The process in which an engine works that starts a run's processes: torch's agent, or Ray's.

It is one of its own, since such engines have threads and handlers of signals. It ends with the
process that has started it, which holds the other end of its input.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from types import FrameType
from typing import Any

from epochal.tasks.joining.connection import TOKEN
from epochal.tasks.launch.output import print_all
from epochal.tasks.launch.trainer_process import END_WITHIN_S, FOREIGN
from epochal.tasks.trainer.interruption import AS_TERM
from epochal.tasks.user_code.import_path import path_without_folders

_BOOT = (
    "import json, sys; given = json.loads(sys.argv.pop()); sys.path[:] = given['path']; "
    "from epochal.tasks.joining.{} import main; main(given)"
)
UNREACHABLE = 75
"""Exit code of an engine whose processes found no run to join."""


def command(module: str, given: Mapping[str, Any]) -> list[str]:
    """A Python that calls `main` of a file of this folder."""
    body = json.dumps({**given, "path": path_without_folders()})
    return [sys.executable, "-P", "-c", _BOOT.format(module), body]


def environment(token: str) -> dict[str, str]:
    """For such a process: the secret, and nothing of the orchestration."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return {**kept, TOKEN: token}


class Engine:
    """Runs until what it has started has ended, or until it is ended."""

    def __init__(self, module: str, given: Mapping[str, Any], *, token: str) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - this Python
            command(module, given),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(token),
            process_group=0,
        )
        self._finalizer = weakref.finalize(self, _kill, self._process)
        self._ended = os.pipe()
        self._threads = [
            threading.Thread(target=target, args=arguments, name="trainer_engine", daemon=True)
            for target, arguments in (
                (print_all, (self._process.stdout, "stdout")),
                (print_all, (self._process.stderr, "stderr")),
                (_await, (self._process, self._ended[1])),
            )
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        """Its id."""
        return self._process.pid

    def fileno(self) -> int:
        """A descriptor that can be read from, or is at its end, once the process has ended."""
        return self._ended[0]

    def poll(self) -> int | None:
        """Its exit code, once there is one."""
        return self._process.poll()

    def wait(self) -> int:
        """Its exit code, once there is one."""
        return self._process.wait()

    def leave(self) -> None:
        """Asks it to end, once what it has started has nothing more to do."""
        self._process.terminate()

    def end(self, *, within_s: float = END_WITHIN_S) -> None:
        """Waits for its end, which is forced if it does not come."""
        self._finalizer.detach()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(within_s)
        _kill(self._process)
        self._process.wait()
        for thread in self._threads:
            thread.join(END_WITHIN_S)
        assert self._process.stdin is not None
        self._process.stdin.close()
        os.close(self._ended[0])


def _await(process: subprocess.Popen[bytes], told: int) -> None:
    process.wait()
    os.close(told)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


# --- in such a process ----------------------------------------------------------------------------


def not_warned() -> None:
    """Warnings of an end go by here: a scheduler sends them to all of a job, the run obeys them.

    By a handler, which what is started here does not inherit.
    """
    for number in AS_TERM:
        signal.signal(number, _nothing)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    pass


def end_with_starter() -> None:
    """Ends this process once nobody holds the other end of its input."""
    not_warned()
    threading.Thread(target=_end_after_input, daemon=True).start()


def _end_after_input() -> None:
    while os.read(0, 1 << 10):
        pass
    os.killpg(0, signal.SIGKILL)
