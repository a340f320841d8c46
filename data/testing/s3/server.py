"""An S3 server in a process of its own, which a test may kill and start again."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from epochal.data.testing.s3.faults import RequestFault
from epochal.data.testing.s3.handler import CONTROL, LAST_COUNTS

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""Any will do: nothing is compared with them."""


class S3Server:
    """A server of S3 on 127.0.0.1 whose objects are files in `folder`.

        with S3Server(folder, buckets=["b"]) as server:
            os.environ.update(server.environment)
            server.fail(RequestFault("lost", of="complete"))
            …
            server.kill()
            server.start()

    The folder is made where it is not there; one that is goes on with its objects and unfinished
    uploads, also after SIGKILL, at the same port. Not after a loss of power: nothing is synced. It
    checks no signature, so whoever reaches the port may read and write: it is for tests. The
    process ends with the block, and with the process that has started it. port: 0: any free one.
    faults: the first plan; `start` begins with it again, its counts at 0.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        port: int = 0,
        buckets: Iterable[str] = (),
        faults: Iterable[RequestFault] = (),
    ) -> None:
        self.folder = Path(folder)
        self._buckets = tuple(buckets)
        self._faults = tuple(faults)
        self._process: subprocess.Popen[str] | None = None
        # Bound and not listening: refused while the server is away, and nobody else's port.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._reserved.bind(("127.0.0.1", port))
        self.port: int = self._reserved.getsockname()[1]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        self._reserved.close()

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which boto3, s3fs and Epochal's stores find it."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": self.url}

    @property
    def pid(self) -> int | None:
        """Of its process; None while there is none."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def start(self) -> None:
        """Returns when it answers; nothing happens if it runs. Raises RuntimeError if it cannot."""
        if self.pid is not None:
            return
        self._forget()
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / LAST_COUNTS).unlink(missing_ok=True)
        command = [sys.executable, "-m", "epochal.data.testing.s3", str(self.folder)]
        command += ["--port", str(self.port), "--ends-with-stdin"]
        command += [part for bucket in self._buckets for part in ("--bucket", bucket)]
        process = subprocess.Popen(  # noqa: S603 - its own
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._process = process
        assert process.stdout is not None
        if process.stdout.readline().strip() != self.url:
            raise RuntimeError(f"the S3 server at {self.url} did not start: {process.wait()}")
        if self._faults:
            self.fail(*self._faults)

    def kill(self) -> None:
        """SIGKILL: what it is doing stops in the middle. Nothing happens if it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._forget()

    def wait(self, timeout_s: float | None = None) -> None:
        """Until it has ended by itself, as `RequestFault("kill")` has it.

        Raises subprocess.TimeoutExpired.
        """
        if self._process is not None:
            self._process.wait(timeout_s)

    def stop(self) -> None:
        """SIGSTOP: it takes connections and says nothing, until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def fail(self, *faults: RequestFault) -> None:
        """From now on these fail and no others; all counts begin again. Raises OSError."""
        self._control("PUT", json.dumps([asdict(fault) for fault in faults]))

    def counts(self) -> dict[str, Any]:
        """Since the last `fail` or `start`.

        `requests`: kind → how many came. `faults`: the plan's, each as its fields, and how many
        requests it has `counted` and `failed`. Of a server that a fault has ended, until the next
        `start`: what it had counted by then. Raises OSError while it does not answer.
        """
        last = self.folder / LAST_COUNTS
        if self.pid is None and last.exists():
            ended: dict[str, Any] = json.loads(last.read_text())
            return ended
        return self._control("GET", "")

    def _control(self, method: str, text: str) -> dict[str, Any]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, CONTROL, text)
            answer = connection.getresponse()
            found: dict[str, Any] = json.loads(answer.read())
            return found

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _forget(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
            process.wait()
