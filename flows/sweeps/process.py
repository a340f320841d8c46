"""A process in which runs of a sweep are worked on, one after the other; and what it does there.

It has the orchestration of a run, Prefect and MLflow, which take seconds to import: so it stays for
the next run. The numbers are in a trainer of each run's own. It ends when its input does, so that
it outlives no sweep: a run at work commits first.

    ~/.epochal/sweeps/<sweep>/<run>.log     what runs print, what your code prints among it
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from epochal.data.errors import Interrupted
from epochal.flows.sweeps.one_run import Order, call_below, run_one
from epochal.tasks.private_files import private_file, private_folder
from epochal.tasks.sweeps.logs import logs_of
from epochal.tasks.user_code.import_path import path_without_folders

GRACE_S = 25.0
"""How long a run has to commit once it was asked to end; Prefect grants 30 s."""
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop()); "
    "from epochal.flows.sweeps.process import main; main()"
)


class RunProcess:
    """Such a process, as the sweep sees it: a selector waits for what it tells."""

    def __init__(self, *, sweep: str, api_url: str) -> None:
        self.run: str | None = None
        self._logs = logs_of(sweep)
        reading, writing = os.pipe()
        output = _opened(self._logs / "processes.txt")
        self._process = subprocess.Popen(  # noqa: S603 - this Python
            [
                *(sys.executable, "-P", "-c", _BOOT, str(writing), api_url),
                json.dumps(path_without_folders()),
            ],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=(writing,),
            process_group=0,  # Ctrl-C goes to the sweep, which asks its runs to end
        )
        os.close(writing)
        os.close(output)
        os.set_blocking(reading, False)
        self._reading, self._text = reading, b""

    def fileno(self) -> int:
        """A descriptor that can be read from once there are events, or the process has ended."""
        return self._reading

    @property
    def pid(self) -> int:
        """Its id."""
        return self._process.pid

    def start(self, order: Order) -> Path:
        """Has the run worked on; gives the file that takes what it prints."""
        self.run = order.config.name
        log = self._logs / f"{self.run}.log"
        line = json.dumps({**order.document(), "log": str(log)})
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended: `events` says so
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        return log

    def events(self) -> tuple[list[dict[str, Any]], bool]:
        """What it has told since, and whether it has ended."""
        ended = False
        while True:
            try:
                data = os.read(self._reading, 1 << 16)
            except BlockingIOError:
                break
            if not data:
                ended = True
                break
            self._text += data
        *lines, self._text = self._text.split(b"\n")
        return [json.loads(line) for line in lines], ended

    def terminate(self) -> None:
        """Asks it to commit and to end."""
        with suppress(ProcessLookupError):
            self._process.terminate()

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        return self._process.wait()

    def close(self, *, within_s: float = 0.0) -> None:
        """Waits for its end, which is forced if it does not come; what it still tells is lost."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(within_s)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._reading)


# --- in such a process ----------------------------------------------------------------------------


def main() -> None:
    """Works on one run after the other, as its input names them."""
    from epochal.flows.environment import prepare_environment
    from epochal.flows.termination import quick_end

    prepare_environment()
    end = quick_end()
    sys.exit(end(_work(int(sys.argv[1]), api_url=sys.argv[2])))


def _work(events: int, *, api_url: str) -> int:
    from epochal.flows.termination import told_of_termination

    tell = _telling(events)
    orders: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(orders,), name="sweep-orders", daemon=True).start()
    busy = False
    try:
        with told_of_termination():
            while (body := orders.get()) is not None:
                busy = True
                _print_to(Path(body["log"]))
                run_one(Order.of_document(body), api_url=api_url, tell=tell, call=call_below)
                busy = False
    except (Interrupted, KeyboardInterrupt) as error:
        if busy:
            tell({"event": "failed", "text": str(error), "code": 75, "stage": None,
                  "interrupted": True, "halts": False, "trace": str(error)})  # fmt: skip
        return 75
    return 0


def _telling(events: int) -> Callable[[Mapping[str, Any]], None]:
    lock = threading.Lock()

    def tell(event: Mapping[str, Any]) -> None:
        data = json.dumps(dict(event), allow_nan=True).encode() + b"\n"
        with lock, suppress(BrokenPipeError):  # the sweep is gone: the end of the input says so
            while data:
                data = data[os.write(events, data) :]

    return tell


def _read(orders: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    """Passes on what the sweep orders; at the end of the input a run at work is to end too."""
    for line in sys.stdin:
        orders.put(json.loads(line))
    orders.put(None)
    os.kill(os.getpid(), signal.SIGTERM)


def _print_to(log: Path) -> None:
    """From here on what is printed goes to that file."""
    file = _opened(log)
    for stream, output in ((sys.stdout, 1), (sys.stderr, 2)):
        stream.flush()
        os.dup2(file, output)
    os.close(file)


def _opened(log: Path) -> int:
    private_folder(log.parent)
    return os.open(private_file(log), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
