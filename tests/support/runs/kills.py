"""Runs that Prefect starts, ended from outside in the middle of an epoch, and what is left then.

Two hosts for them: the process worker of `epochal up`, and a runner that serves the flow.
"""

import json
import os
import re
import signal
import subprocess
import sys

from support.runs.command import (
    STEP_SECONDS,
    Unbroken,
    alive,
    children,
    command_line,
    descendants,
    trainer_of,
    wait_for_commit,
)
from support.runs.machine import wait_for

# Processes of the loader read the data: they must not be left behind, either.
CONFIG = {
    "epochs": 2,
    "checkpoint": {"every_updates": 1},
    "train_data": {"target": "items:Items"},
    "loader": {"batch_size": 16, "drop_last": True, "workers": 2},
}
_RUNS = re.compile(r"prefect\.engine|spawn_main")
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
SERVE = """
import sys
from pathlib import Path
from prefect.deployments.runner import EntrypointType
from epochal.flows.train import train
from epochal.tasks.config.load import load_config

config = load_config(Path(sys.argv[1]))
train.serve(
    name="served",
    parameters={"config": config.model_dump(mode="json")},
    entrypoint_type=EntrypointType.MODULE_PATH,
    pause_on_shutdown=False,
)
"""


class Worker:
    """Runs of a deployment, under the worker of `epochal up`."""

    deployment = None

    def __init__(self, deployed):
        self.deployed = deployed

    @property
    def pid(self):
        return self.deployed.machine.servers["worker"]["pid"]

    def engines(self):
        """Pids of the processes of runs that it has started and that are alive."""
        if not alive(self.pid):
            return []
        found = [pid for pid in children(self.pid) if alive(pid)]
        return [pid for pid in found if _RUNS.search(command_line(pid))]

    def start(self):
        """Starts what does not run of the servers and the worker, where it was."""
        prefect, mlflow = (
            url.removesuffix("/api").rpartition(":")[2]
            for url in (self.deployed.api, self.deployed.mlflow)
        )
        options = ("--prefect-port", prefect, "--mlflow-port", mlflow)
        done = self.deployed.machine("up", *options)
        assert done.code == 0, done.err

    def stop(self):
        """Starts again what a test has ended; the worker itself is of the machine."""
        self.start()


class Runner(Worker):
    """Runs of the same config, under a process that serves the flow."""

    def __init__(self, deployed):
        super().__init__(deployed)
        self.process = None
        self.start()
        self.deployment = wait_for(self._find)

    def _find(self):
        found = self.deployed.post("deployments/filter", {})
        return next((one["id"] for one in found if one["name"] == "served"), None)

    @property
    def pid(self):
        return self.process.pid

    def start(self):
        super().start()
        if self.process is not None and self.process.poll() is None:
            return
        settings = {
            "PREFECT_API_URL": self.deployed.api,
            "PREFECT_RUNNER_POLL_FREQUENCY": "1",
            "PYTHONSAFEPATH": "1",
            "STEP_SECONDS": STEP_SECONDS,
        }
        log = self.deployed.machine.home / "runner.log"
        with self.deployed.machine.environment(**settings), log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVE, str(self.deployed.project.config)],
                stdout=output,
                stderr=output,
            )

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)
        super().start()


class HostedRun:
    """A run on one of the hosts, in the middle of its second epoch.

    caught: whether to wait until it is there. changes: to the config.
    """

    def __init__(self, host, name, *, caught=True, **changes):
        self.host, self.deployed = host, host.deployed
        self.config = {**CONFIG, **changes, "name": name, "store": f"./store-{name}"}
        self.store = self.deployed.project.folder / f"store-{name}"
        self.id = self.deployed.run(
            step_seconds=STEP_SECONDS, deployment=host.deployment, **self.config
        )
        self.family = set()
        if not caught:
            return
        wait_for_commit(self.store, 3, still=self._goes_on)
        (self.pid,) = host.engines()
        self.family = {self.pid, *descendants(self.pid)}
        self.trainer = trainer_of(self.pid)
        assert len(self.family) > CONFIG["loader"]["workers"] + 1

    def _goes_on(self):
        now = self.deployed.get(f"flow_runs/{self.id}")
        assert now["state_type"] not in ENDED, (
            now["state"]["message"],
            self.deployed.logs(self.id),
        )

    def processes(self):
        """Pids of what was started for a run and is alive, the loader's processes too."""
        return [pid for pid in self.family if alive(pid)] + self.host.engines()

    def wait_for_end(self, **options):
        """The type of the state in which it ends; by then no process of it is left."""
        ended = self.deployed.wait(self.id, *ENDED, **options)
        wait_for(lambda: not self.processes())
        return ended["state_type"]

    def retry(self):
        """Retry by the API, and the end of that try."""
        self.deployed.retry(self.id)
        return self.wait_for_end()

    def retry_by_command(self):
        """Retry by Prefect's command line, and the end of that try."""
        command = [sys.executable, "-P", "-m", "prefect", "flow-run", "retry", self.id]
        with self.deployed.machine.environment(PREFECT_API_URL=self.deployed.api):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return self.wait_for_end()

    def kill(self, *victims):
        """SIGKILL to these; by default to the process of the flow."""
        for pid in victims or (self.pid,):
            os.kill(pid, signal.SIGKILL)

    def outcome(self):
        """How the finished run compares; nothing of it is computed again for that."""
        now = self.deployed.get(f"flow_runs/{self.id}")
        assert now["state_type"] == "COMPLETED", now["state"]["message"]
        again = result_of(self.deployed, self.config)
        assert all(one["cached"] for one in again["stages"])
        return Unbroken.of_result(again, self.deployed.mlflow)


def result_of(deployed, config):
    """What the command says of a run of that config; in this process, on the same machine."""
    project = deployed.project
    sets = {
        **config, "loader": {**config["loader"], "workers": 0}, "launch": {"kind": "inline"},
    }  # fmt: skip
    with deployed.machine.environment(MLFLOW_TRACKING_URI=deployed.mlflow):
        done = project("train", **{name: json.dumps(value) for name, value in sets.items()})
    assert done.code == 0, done.err
    return done.json
