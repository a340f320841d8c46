"""The real command in a process of its own, what it has committed, and what MLflow holds of it."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import mlflow
from support.runs.project import Project, environment

OPTIONS = (
    *("--set", "epochs=2", "--set", "checkpoint.every_updates=1", "--set", "launch.kind=local"),
)
TRAINER = "trainer_main"
STEP_SECONDS = "0.15"


class Command:
    """`epochal train`, two epochs, slow enough to be ended in the middle of one."""

    def __init__(self, project, *options, **variables):
        self.errors = project.folder / "errors.txt"
        command = [sys.executable, "-m", "epochal.flows.cli", "train", str(project.config)]
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [*command, "--json", *OPTIONS, *options],
                cwd=project.folder, stdout=subprocess.PIPE, stderr=errors, text=True,
                env={**os.environ, "PYTHONPATH": "", "STEP_SECONDS": STEP_SECONDS, **variables},
            )  # fmt: skip
        self.store = project.store

    def wait_for_commit(self, micro_step):
        """Until the second epoch has a commit of at least that micro-step."""
        wait_for_commit(self.store, micro_step, still=self._runs)

    def _runs(self):
        assert self.process.poll() is None, self.errors.read_text()

    def end(self, *, timeout_s=120):
        out, _ = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, out

    def result(self):
        """What `--json` printed of a run that ends well."""
        code, out = self.end()
        assert code == 0, self.errors.read_text()
        return json.loads(out.splitlines()[-1])

    def descendants(self):
        return descendants(self.process.pid)

    @property
    def trainer(self):
        """The pid of its trainer."""
        return trainer_of(self.process.pid)


@dataclass(frozen=True)
class Unbroken:
    """How a run ends that nothing disturbs."""

    weights_sha256: str
    points: dict

    @classmethod
    def of_command(cls, folder, *, empty_mlflow, prefect_api):
        """The same command, on a store and a tracker of its own."""
        folder.mkdir()
        tracker = f"sqlite:///{folder}/mlflow.db"
        shutil.copyfile(empty_mlflow, folder / "mlflow.db")
        with environment(MLFLOW_TRACKING_URI=tracker, PREFECT_API_URL=prefect_api):
            project = Project(folder / "project", name="unbroken")
            return cls.of_result(Command(project, STEP_SECONDS="0").result(), tracker)

    @classmethod
    def of_result(cls, result, tracker):
        return cls(result["weights_sha256"], points(result["mlflow_run_id"], tracker))


def wait_for_commit(store, micro_step, *, still=lambda: None, records=4, timeout_s=120):
    """Until that many stages are done, and the next has a commit of at least that micro-step."""
    deadline = time.monotonic() + timeout_s
    while True:
        still()
        done = sum(1 for _ in store.glob("stages/*/record.json"))
        found = [int(path.stem) for path in store.glob("stages/*/partial/*.json")]
        if done >= records and found and max(found) >= micro_step:
            return
        assert time.monotonic() < deadline, f"no commit in {timeout_s} s: {done} done, {found}"
        time.sleep(0.02)


def points(run_id, uri=None):
    """Name → (step, value) of all points of an MLflow run, each as often as it is there.

    Without those of the clock: what a run has cost is never the same twice.
    """
    client = mlflow.MlflowClient(uri)
    return {
        key: sorted((one.step, one.value) for one in client.get_metric_history(run_id, key))
        for key in client.get_run(run_id).data.metrics
        if not key.startswith("goodput/")
    }


def children(pid):
    """Pids of the processes that this one has started and that have not been waited for."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += [int(one) for one in (task / "children").read_text().split()]
    return found


def descendants(pid):
    """Pids of those processes, and of all that they have started."""
    found = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for child in children(pid):
            found += [child, *descendants(child)]
    return found


def command_line(pid):
    """How a process was started; nothing if it is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def trainer_of(pid):
    """The pid of the trainer that this process has started; None without one."""
    found = [one for one in children(pid) if TRAINER in command_line(one)]
    return found[0] if found else None


def alive(pid):
    """Whether a process runs, or is stopped; not one that only waits to be waited for."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"
