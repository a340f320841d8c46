"""A real MLflow server on loopback."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from epochal.tasks.tracking.connection import unreachable


class MlflowServer:
    """One that starts, and starts again after `stop`, with its files in `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        options = {
            "--host": "127.0.0.1",
            "--port": str(self.port),
            "--workers": "1",
            "--backend-store-uri": f"sqlite:///{self.folder}/server.db",
            "--artifacts-destination": (self.folder / "artifacts").as_uri(),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *sum(options.items(), ())],
            env={
                **os.environ,
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                "DO_NOT_TRACK": "true",
            },
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while not self._healthy():
            assert self.process.poll() is None, "the MLflow server ended"
            assert time.monotonic() < deadline, "the MLflow server does not answer"
            time.sleep(0.1)

    def stop(self):
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
            deadline = time.monotonic() + 20
            while unreachable(self.uri) is None:  # its workers die a moment later
                assert time.monotonic() < deadline, "the MLflow server does not end"
                time.sleep(0.05)

    def _healthy(self):
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False
