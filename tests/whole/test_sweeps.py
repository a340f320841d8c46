"""Sweeps end to end: each epoch once, however often they are killed; every run as if alone."""

import json
import os
import signal
import subprocess
import sys

import httpx
import mlflow
import pytest
from support.runs.bare_run import BareRun
from support.runs.command import alive, command_line, descendants
from support.runs.machine import wait_for
from support.runs.project import MODEL, call
from support.runs.sweeps import SweepProject

pytestmark = pytest.mark.server

RUN = {"run", "set", "weights_sha256", "metrics", "mlflow_run_id"}


def swept(project, *options):
    return call("sweep", str(project.sweep), *options, "--json")


def test_a_sweep_gives_the_object_of_the_contract_and_is_a_tree_in_both_uis(
    tmp_path, tracker, prefect_api
):
    project = SweepProject(
        tmp_path / "project", run={"epochs": 2}, vary={"schedule.final": [0.0, 0.5]}, name="ends"
    )
    done = swept(project)
    assert done.code == 0, done.err
    assert set(done.json) == {"runs", "epochs"}
    assert done.json["epochs"] == {"distinct": 3, "sum": 4, "computed": 3}
    runs = done.json["runs"]
    assert [set(one) for one in runs] == [RUN, RUN]
    assert [(one["run"], one["set"]) for one in runs] == [
        ("ends-final0", {"schedule.final": 0.0}), ("ends-final0.5", {"schedule.final": 0.5}),
    ]  # fmt: skip
    assert [len(one["weights_sha256"]) for one in runs] == [64, 64]
    client = mlflow.MlflowClient()
    parents = {client.get_run(one["mlflow_run_id"]).data.tags["mlflow.parentRunId"] for one in runs}
    assert [client.get_run(parent).info.run_name for parent in parents] == ["ends"]
    assert [client.get_run(parent).info.status for parent in parents] == ["FINISHED"]
    flows = httpx.post(f"{prefect_api}/flow_runs/filter", json={"sort": "START_TIME_DESC"}).json()
    (sweep,) = [one for one in flows if one["name"] == "ends"]
    asked = {"flow_runs": {"parent_flow_run_id": {"any_": [sweep["id"]]}}}
    below = httpx.post(f"{prefect_api}/flow_runs/filter", json=asked).json()
    assert {one["name"].partition("@")[0] for one in below} == {"ends-final0", "ends-final0.5"}
    assert {one["state_type"] for one in [sweep, *below]} == {"COMPLETED"}
    assert json.loads(call("plan", str(project.sweep), "--json").out)["epochs"]["done"] == 3
    again = swept(project)
    assert again.json["runs"] == runs
    assert again.json["epochs"]["computed"] == 0


def test_a_run_that_fails_ends_no_other_and_the_command_with_3(tmp_path, tracker, prefect_api):
    runs = [{"optimizer.args.lr": 1.0e30}, {"optimizer.args.lr": 0.01}]
    short = {"epochs": 1, "schedule": {"kind": "constant"}}
    done = swept(SweepProject(tmp_path / "project", run=short, runs=runs))
    assert done.code == 3
    assert "1 of 2 runs failed" in done.err
    assert "blobs-lr1e30: " in done.err
    failed, finished = done.json["runs"]
    assert failed["weights_sha256"] is None
    assert failed["error"]
    assert finished["weights_sha256"]


@pytest.mark.slow
def test_a_stopped_run_keeps_its_epochs_and_goes_on_by_train(tmp_path, tracker, prefect_api):
    project = SweepProject(
        tmp_path / "project",
        run={"schedule": {"kind": "constant"}},
        vary={"optimizer.args.lr": [1.0e-7, 1.0e-2]}, metric="loss",
        halving={"rungs": [1], "factor": 2},
    )  # fmt: skip
    done = swept(project)
    assert done.code == 0, done.err
    assert done.json["epochs"] == {"distinct": 6, "sum": 6, "computed": 4}
    stopped, best = done.json["runs"]
    assert (stopped["stopped_after"], best["stopped_after"]) == (1, None)
    assert stopped["weights_sha256"] is None
    client = mlflow.MlflowClient()
    statuses = [client.get_run(one["mlflow_run_id"]).info.status for one in (stopped, best)]
    assert statuses == ["KILLED", "FINISHED"]
    on = ("--set", "optimizer.args.lr=1e-7", "--set", f"name={stopped['run']}")
    later = call("train", str(project.config), *on, "--json")
    assert later.code == 0, later.err
    assert later.json["mlflow_run_id"] == stopped["mlflow_run_id"]
    assert [one["cached"] for one in later.json["stages"]] == [True] * 3 + [False] * 4
    assert client.get_run(stopped["mlflow_run_id"]).info.status == "FINISHED"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_work_pool_trains_the_runs_of_a_sweep(deployed):
    project = SweepProject(
        deployed.machine.home / "pooled",
        run={"epochs": 2, "launch": {"kind": "local"}},
        vary={"schedule.final": [0.0, 0.5]}, name="pooled", concurrency=2, work_pool="epochal",
    )  # fmt: skip
    done = deployed.machine("sweep", str(project.sweep), "--json")
    assert done.code == 0, done.err
    assert done.json["epochs"] == {"distinct": 3, "sum": 4, "computed": 3}
    assert all(one["mlflow_run_id"] for one in done.json["runs"])
    alone = SweepProject(deployed.machine.home / "not-pooled", run={"epochs": 2})
    assert (
        BareRun(alone.config, schedule__final=0.5)().weights
        == (done.json["runs"][1]["weights_sha256"])
    )
    below = deployed.post("flow_runs/filter", {"flow_runs": {"tags": {"all_": ["pooled"]}}})
    assert {one["name"].partition("@")[0] for one in below} == {"pooled-final0", "pooled-final0.5"}
    assert all(one["work_pool_name"] == "epochal" for one in below)


@pytest.mark.slow
def test_a_process_that_is_killed_is_told_and_the_same_command_goes_on(
    tmp_path, tracker, prefect_api, monkeypatch
):
    monkeypatch.setenv("STEP_SECONDS", "0.2")
    run = {"launch": {"kind": "local"}, "checkpoint": {"every_updates": 1}}
    project = SweepProject(tmp_path / "sweep", run=run, vary={"schedule.final": [0.0, 0.5]})
    sweep = Sweep(project)
    wait_for(lambda: sweep.trained() >= 1, timeout_s=120)
    (process,) = [
        pid for pid in descendants(sweep.process.pid) if "sweeps.process" in command_line(pid)
    ]
    os.kill(process, signal.SIGKILL)
    out, _ = sweep.process.communicate(timeout=240)
    assert sweep.process.returncode == 75
    first, second = json.loads(out.splitlines()[-1])["runs"]
    assert "ended by SIGKILL" in first["error"]
    assert second["weights_sha256"]  # it has trained what the other one had not
    monkeypatch.setenv("STEP_SECONDS", "0")
    done = swept(project)
    assert done.code == 0, done.err
    assert done.json["epochs"]["computed"] == 1


BRANCHES, TRUNK, DECAY, KILLS = 8, 20, 4, 10
MICRO_BATCHES = 12  # of an epoch
COUNTED = (
    MODEL.replace(
        "self.calls += 1\n",
        "self.calls += 1\n                os.write(_counts, b'.')\n",
    )
    + """
    _counts = os.open(os.environ["COUNTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
"""
)


class Sweep:
    """The command in a process of its own, which the test kills."""

    def __init__(self, project):
        self.project = project
        self.log = project.folder / "output.txt"
        with self.log.open("a") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "epochal.flows.cli", "sweep", str(project.sweep), "--json"],
                cwd=project.folder, stdout=subprocess.PIPE, stderr=output, text=True,
                env={**os.environ, "PYTHONPATH": ""},
            )  # fmt: skip

    def trained(self):
        """Epochs that the store has."""
        records = self.project.store.glob("stages/*/record.json")
        return sum(json.loads(one.read_text())["body"]["stage"] == "train" for one in records)

    def end(self, number, *, after):
        """Ends it by that signal once so many epochs are there; its exit code."""

        def far_enough():
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            return self.trained() >= after

        wait_for(far_enough, timeout_s=600)
        family = descendants(self.process.pid)
        self.process.send_signal(number)
        self.process.communicate(timeout=240)
        wait_for(lambda: not any(alive(pid) for pid in family))
        return self.process.returncode


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_eight_decays_from_one_trunk_train_52_epochs_however_often_they_are_killed(
    tmp_path, tracker, prefect_api, monkeypatch
):
    finals = [0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5]
    decay = {"kind": "warmup_stable_decay", "warmup": 1, "decay": DECAY}
    run = {
        "epochs": TRUNK + DECAY, "schedule": decay, "launch": {"kind": "local"},
        "checkpoint": {"every_updates": 2},
    }  # fmt: skip
    project = SweepProject(
        tmp_path / "sweep", run=run, vary={"schedule.final": finals}, concurrency=3
    )
    project.write("model.py", COUNTED)
    counts = tmp_path / "counts"
    monkeypatch.setenv("COUNTS", str(counts))
    kinds = [signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGKILL, signal.SIGTERM]
    for kill in range(KILLS):
        number = kinds[kill % len(kinds)]
        code = Sweep(project).end(number, after=4 + 5 * kill)
        assert code == (-number if number == signal.SIGKILL else 75)
    last = Sweep(project)
    out, _ = last.process.communicate(timeout=1200)
    assert last.process.returncode == 0, last.log.read_text()[-3000:]
    result = json.loads(out.splitlines()[-1])
    distinct = TRUNK + BRANCHES * DECAY
    assert result["epochs"]["distinct"] == distinct == 52
    assert result["epochs"]["sum"] == BRANCHES * (TRUNK + DECAY) == 192
    assert last.trained() == distinct
    # Each kill loses what was trained since the last commit inside an epoch, of three runs at most;
    # before it starts a run tries the model on a batch or two.
    calls = counts.stat().st_size
    assert distinct * MICRO_BATCHES <= calls < 1.5 * distinct * MICRO_BATCHES
    monkeypatch.setenv("COUNTS", os.devnull)
    for one in result["runs"]:
        alone = SweepProject(tmp_path / one["run"], run=run)
        alone.write("model.py", COUNTED)
        sets = {"schedule__final": one["set"]["schedule.final"], "launch__kind": "local"}
        weights = BareRun(alone.config, **sets)().weights
        assert weights == one["weights_sha256"], one["run"]
    assert len({one["weights_sha256"] for one in result["runs"]}) == BRANCHES
