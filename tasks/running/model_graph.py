"""The best model's graph for `mlflow.pytorch.load_model`, made beside everything else.

A process of its own exports it, for that runs the user's code and takes seconds and a gigabyte: at
low priority, for a limited time, and it outlives the command. MLflow's tag says what came of it;
one that was killed leaves it `due`, and the next command starts it again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import yaml

from epochal.data.types import Frozen
from epochal.tasks.running.pictures_process import LIMIT_S, NICENESS, process_log
from epochal.tasks.tracking.connection import connect
from epochal.tasks.tracking.mlflow_models import GRAPH_TAG, MAX_REASON
from epochal.tasks.tracking.mlflow_run import TrackedRun
from epochal.tasks.tracking.model_example import ModelExample
from epochal.tasks.tracking.model_folder import Example, model_uri, with_graph, write_description

When = Literal["auto", "always", "never"]


class _Job(Frozen):
    uri: str
    run_id: str
    model_id: str
    example: ModelExample


@dataclass(frozen=True)
class ModelGraphs:
    """Has the graph of a model made. beside: by a process that outlives this one.

    when: `tracking.export`; `auto` leaves it out where the command would have to wait for it.
    """

    uri: str
    beside: bool
    when: When

    @property
    def reason_against(self) -> str | None:
        """Why none is made, or None."""
        if self.when == "never":
            return "tracking.export is never"
        if self.when == "auto" and not self.beside:
            return "the command would wait for it here; tracking.export: always asks for it"
        return None

    def deliver(self, run_id: str, model_id: str, example: Example) -> None:
        """Starts the process; waits for it if it would not outlive this one."""
        assert example.call is not None
        job = _Job(uri=self.uri, run_id=run_id, model_id=model_id, example=example.call)
        with tempfile.TemporaryFile(prefix="epochal-model-") as given, process_log() as log:
            given.write(job.model_dump_json().encode() + b"\n")
            given.write(example.numbers)
            given.seek(0)
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "epochal.tasks.running.model_graph"],
                stdin=given,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # the end of the terminal does not reach it
            )
        if self.beside:
            threading.Thread(target=process.wait, name="reaps-model", daemon=True).start()
        else:
            process.wait()


def _make(given: IO[bytes]) -> None:
    import mlflow

    from epochal.tasks.tracking.exported import FILE, export_model

    job, numbers = _Job.model_validate_json(given.readline()), given.read()
    client = connect(job.uri)
    mlflow.set_tracking_uri(job.uri)  # this process is ours; a model's address goes by nothing else
    run = TrackedRun(client, client.get_run(job.run_id), may_write=lambda: None)
    with tempfile.TemporaryDirectory(prefix="epochal-model-") as scratch:
        folder = Path(
            mlflow.artifacts.download_artifacts(model_uri(job.model_id), dst_path=scratch)
        )
        problem = export_model(folder / "data", job.example, numbers)
        if problem is None:
            client.log_model_artifact(job.model_id, str(folder / "data" / FILE), "data")
            description = yaml.safe_load((folder / "MLmodel").read_bytes())
            write_description(folder, with_graph(description))  # last: it says that all is there
            client.log_model_artifact(job.model_id, str(folder / "MLmodel"))
    run.set_tags({GRAPH_TAG: "yes" if problem is None else f"no: {problem}"[:MAX_REASON]})


def main() -> None:
    """Makes what standard input tells of."""
    os.nice(NICENESS)
    signal.alarm(LIMIT_S)
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"  # nobody watches
    _make(sys.stdin.buffer)


if __name__ == "__main__":
    main()
    os._exit(0)  # nothing is left to do; taking apart what was imported takes half a second
