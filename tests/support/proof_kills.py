"""The real command, ended by SIGKILL at random instants until it comes through, then compared."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from support.forked_runs import Count
from support.proof_project import proof_project

SEED = 4
STEP_SECONDS = "0.05"


def random_kills(folder: Path, *, kills: int, workers: int) -> Count:
    """At least `kills` of them, over as many runs as it takes; each run must end in the same bytes.

    Every run is one store, one home with its servers' files, and one MLflow run.
    """
    draw = random.Random(f"{SEED}/{workers}")
    started = time.monotonic()
    expected = _Run(folder / f"unbroken-{workers}", workers)
    assert expected.live(None) == 0, expected.errors()
    whole_s = time.monotonic() - started
    found = expected.found()
    total = Count()
    while total.killed < kills:
        run = _Run(folder / f"killed-{workers}-{total.points}", workers)
        killed = 0
        while run.live(draw.uniform(0.2, 1.0) * whole_s if total.killed + killed < kills else None):
            killed += 1
        equal = run.found() == found
        total += Count(
            points=1, killed=killed, finished=1, mismatches=() if equal else (total.points,)
        )
        run.clear()
    expected.clear()
    return total


class _Run:
    """One run of the project, in a folder of its own."""

    def __init__(self, folder: Path, workers: int) -> None:
        folder.mkdir()
        self.folder = folder
        self.project = proof_project(
            folder / "project",
            loader={"batch_size": 4, "workers": workers},
            checkpoint={"every_seconds": 0.2},
            tracking={"uri": f"sqlite:///{folder}/mlflow.db", "experiment": "proof"},
        )
        self.out = folder / "out.txt"

    def live(self, seconds: float | None) -> int:
        """One process; ended after `seconds`, if it has not come to its end. Its exit code."""
        command = [sys.executable, "-m", "epochal.flows.cli", "train", str(self.project.config)]
        with self.out.open("w") as out, (self.folder / "errors.txt").open("w") as errors:
            process = subprocess.Popen(
                [*command, "--json"], cwd=self.project.folder, stdout=out, stderr=errors,
                env={**os.environ, "STEP_SECONDS": STEP_SECONDS},
            )  # fmt: skip
            try:
                code = process.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                return process.wait()
        assert code == 0, self.errors()
        return code

    def errors(self) -> str:
        return (self.folder / "errors.txt").read_text()

    def found(self) -> dict:
        """What must be equal: every stage's record, the result, every point in MLflow."""
        from support.command import points

        result = json.loads(self.out.read_text().splitlines()[-1])
        records = {
            path.parent.name: json.loads(path.read_text())
            for path in self.project.store.glob("stages/*/record.json")
        }
        return {
            "weights": result["weights_sha256"],
            "records": records,
            "points": points(result["mlflow_run_id"], result["mlflow_tracking_uri"]),
        }

    def clear(self) -> None:
        shutil.rmtree(self.folder)
