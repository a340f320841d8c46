"""A trainer process: what it has, what it has not, what it prints, and when it ends."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
from support.runs.command import alive, children
from support.runs.machine import wait_for
from support.runs.project import environment
from support.trainers.forked_trainer import fork_trainers
from support.trainers.misbehaving import local_run, mend, misbehaving_project, plan

from epochal.data import errors
from epochal.data.types import Target
from epochal.tasks.user_code.targets import call_target

TELLING = """
    import json, os, sys, threading
    from model import Net

    class Model(Net):
        def forward(self, x):
            found = {
                "pid": os.getpid(),
                "threads": [one.name for one in threading.enumerate()],
                "variables": dict(os.environ),
            }
            if self.training:
                with open(os.path.join(os.path.dirname(__file__), "told.jsonl"), "a") as file:
                    file.write(json.dumps(found) + "\\n")
            return super().forward(x)
"""
PRINTING = """
    import os, sys
    from model import Net

    class Model(Net):
        def forward(self, x):
            if not self.training and not self.calls:
                print("a line")
                print("long " * 200_000)
                print("to errors", file=sys.stderr)
                os.write(1, b"bytes \\xff\\xfe\\n")
                os.write(1, b"no end of a line")
            return super().forward(x)
"""
WITHOUT_TORCH = """
    import sys

    class Refusing:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "torch":
                raise AssertionError("the flow's process imports torch")

    sys.meta_path.insert(0, Refusing())
    from pathlib import Path

    from epochal.tasks.config.load import load_config
    from epochal.tasks.reporting import SilentReporter
    from epochal.tasks.running.open import open_run

    if __name__ == "__main__":
        config = Path(sys.argv[1])
        run = open_run(load_config(config), reporter=SilentReporter())
        for plan in sys.argv[2:]:
            config.with_name("plan.txt").write_text(plan)
        for stage in run.stages():
            run.run_stage(stage)
        print(run.view.weights_sha256, "torch" in sys.modules)
        print(run.session.trainer.pid)
"""


@pytest.fixture
def project(tmp_path, home):
    return misbehaving_project(tmp_path / "project", epochs=1)


@pytest.fixture
def forked(monkeypatch, tmp_path, home):
    fork_trainers(monkeypatch, misbehaving_project(tmp_path / "warm"))


def finished(project, **sets):
    run = local_run(project.config, **sets)()
    run.run.close()
    return run


def own_process(project, code, *arguments):
    """A process of its own that runs this code."""
    script = project.folder / "script.py"
    script.write_text(textwrap.dedent(code))
    return subprocess.Popen(
        [sys.executable, str(script), str(project.config), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def told(project):
    return [json.loads(line) for line in (project.folder / "told.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_trainer_has_one_thread_and_nothing_of_prefect_or_mlflow(workers, project, forked):
    project.write("telling.py", TELLING)
    with environment(
        PREFECT_API_URL="http://x",
        MLFLOW_TRACKING_URI="http://y",
        DATABRICKS_HOST="z",
        EPOCHAL_TOKEN="a secret",
    ):
        finished(project, model="{target: 'telling:Model'}", loader__workers=workers)
    found = told(project)
    assert {one["pid"] for one in found}.isdisjoint({os.getpid()})
    assert {len(one["threads"]) for one in found} == {1}
    foreign = ("PREFECT_", "MLFLOW_", "DATABRICKS_", "EPOCHAL_TOKEN")
    assert not [name for one in found for name in one["variables"] if name.startswith(foreign)]


def test_two_trainers_and_the_calling_process_give_the_same_bytes(project, forked):
    one, other, inline = (
        finished(project, store=f"./{name}", launch__kind=kind)
        for name, kind in (("one", "local"), ("other", "local"), ("inline", "inline"))
    )
    assert one.digests == other.digests == inline.digests


def test_modules_that_this_process_has_from_another_configs_folder_are_not_the_trainers(
    tmp_path, project
):
    other = misbehaving_project(tmp_path / "other")
    target = Target(target="blobs:blobs", args={"split": "train"})
    call_target(target, field="train_data", folder=other.folder)
    assert finished(project).weights


def test_the_flows_process_imports_no_torch_and_leaves_no_trainer_that_nobody_closes(project):
    project.write("telling.py", TELLING)
    text = project.config.read_text().replace("misbehaving:Model", "telling:Model")
    project.config.write_text(text)
    process = own_process(project, WITHOUT_TORCH)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()
    weights, imported, pid = out.decode().split()
    assert (len(weights), imported) == (64, "False")
    wait_for(lambda: not alive(int(pid)))
    assert {tuple(one["threads"]) for one in told(project)} == {("MainThread",)}


@pytest.mark.parametrize(("kind", "workers"), [("fork-sleep", 0), ("sleep", 2)])
def test_trainer_and_its_forks_end_with_the_flows_process_in_the_middle_of_an_item(
    kind, workers, tmp_path, home
):
    loader = {"batch_size": 8, "workers": workers}
    project = misbehaving_project(tmp_path / "project", loader=loader)
    process = own_process(project, WITHOUT_TORCH, f"{kind} item 10")
    wait_for((project.folder / "asleep.txt").exists)
    (pid,) = children(process.pid)
    family = [pid, *children(pid)]
    assert len(family) == 1 + (workers or 1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_for(lambda: not any(map(alive, family)))


EXTRA = """
    import torch
    from misbehaving import Model

    class Counting(Model):
        def __init__(self):
            super().__init__()
            self.steps = 0

        def get_extra_state(self):
            return torch.tensor(self.steps)

        def set_extra_state(self, state):
            self.steps = int(state)

        def forward(self, x):
            self.steps += self.training
            return super().forward(x) * (1 + 0.01 * self.steps)
"""


def test_extra_state_of_a_module_goes_on_with_a_resumed_run(tmp_path, forked):
    one, other = (misbehaving_project(tmp_path / name) for name in ("one", "other"))
    for made in (one, other):
        made.write("counting.py", EXTRA)
    model = "{target: 'counting:Counting'}"
    broken = local_run(one.config, model=model)
    plan(one, "value", "model", 9)
    with pytest.raises(errors.TrainingFailed):
        broken()
    broken.run.close()
    mend(one)
    again = finished(one, model=model)
    assert again.resumed
    assert again.digests == finished(other, model=model).digests


def test_what_the_users_code_prints_is_printed_byte_for_byte_and_its_last_line_ended(
    project, forked, capfdbinary
):
    project.write("printing.py", PRINTING)
    finished(project, model="{target: 'printing:Model'}")
    out, err = capfdbinary.readouterr()
    assert b"a line\n" in out
    assert b"long " * 200_000 in out
    assert b"bytes \xff\xfe\n" in out
    assert out.endswith(b"no end of a line\n")
    assert b"to errors\n" in err
