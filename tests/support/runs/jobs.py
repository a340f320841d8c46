"""The examples as jobs: copied, their data made, run in processes of their own, killed and resumed.

The processes are forked by a server that has imported torch and ours once: half a second each.
"""

import importlib
import json
import multiprocessing
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

EXAMPLES = Path(__file__).parents[3] / "examples"
CONFIGS = sorted(path for path in EXAMPLES.glob("*/*.yaml") if path.name != "sweep.yaml")
PACKAGES = {
    "vit_timm": ("torchvision", "timm"),  # timm does not import without the other
    "bert": ("transformers",),
}
"""What an example needs beside our own requirements."""
_PRELOADED = (
    # torch imports _dynamo at the first optimizer: four fifths of a short process.
    *("torch._dynamo", "torchmetrics", "sklearn.datasets", "pyarrow.parquet"),
    *("epochal.tasks.preflight.forward_pass", "epochal.tasks.running.open"),
)


def require_packages(example: str) -> None:
    """Skips the test where a package of that example is missing, or does not fit to torch."""
    for name in PACKAGES.get(example, ()):
        reason = (
            f"the example {example} needs {name}: pip install -c constraints.txt -e '.[examples]'"
        )
        try:
            importlib.import_module(name)
        except (ImportError, RuntimeError) as error:
            # PyPI's torchvision raises a RuntimeError beside the CPU build of torch.
            pytest.skip(f"{reason} ({error})")


@dataclass(frozen=True)
class Job:
    """An example in a folder of its own. sets: what makes it short."""

    config: Path
    sets: dict[str, str]

    @classmethod
    def made(cls, config: Path, folder: Path, **sets) -> "Job":
        """A copy of the example, with what its `make_….py` writes."""
        copy = folder / config.parent.name
        ignored = shutil.ignore_patterns("store", "images", "*.parquet", "*.safetensors")
        shutil.copytree(config.parent, copy, ignore=ignored)
        for script in copy.glob("make_*.py"):
            assert _in_process(_make, script) == 0
        return cls(copy / config.name, sets)

    @property
    def records_before_epoch_1(self) -> int:
        """Stages that are done by then: initialise, and train, validate and perhaps mine."""
        policy = yaml.safe_load(self.config.read_text()).get("sampling", {}).get("policy", "none")
        return 3 if policy == "none" else 4

    def store(self, name: str) -> Path:
        return self.config.parent / name

    def run(self, store: str, *, killed: bool = False) -> "End":
        """One process's try, killed in the middle of the second epoch or not."""
        answer = self.store(f"{store}.json")
        answer.unlink(missing_ok=True)
        code = _in_process(_run, self, store, answer, killed)
        return End(code, *(json.loads(answer.read_text()) if answer.exists() else ({}, {})))

    def train(self, store: str, *, killed: bool = False) -> "Command":
        """`epochal train`, the command itself, killed in the middle of the second epoch or not."""
        sets = {**self.sets, "epochs": "2", "store": f"./{store}", "name": store}
        sets["launch.kind"] = "inline"  # so that it can be killed at a certain update
        code = "from epochal.flows.cli import main\nmain()"
        if killed:
            sets["checkpoint.every_updates"] = "1"
            code = (
                "from pathlib import Path\nfrom support.runs.jobs import kill_in_epoch_1\n"
                f"kill_in_epoch_1(Path({str(self.store(store))!r}), "
                f"records={self.records_before_epoch_1})\n{code}"
            )
        options = [
            part
            for name, value in sets.items()
            for part in ("--set", f"{name.replace('__', '.')}={value}")
        ]
        tests = str(Path(__file__).parents[2])
        done = subprocess.run(
            [sys.executable, "-c", code, "train", str(self.config), *options, "--json"],
            env={**os.environ, "PYTHONPATH": tests},
            capture_output=True, text=True, check=False, timeout=240,
        )  # fmt: skip
        return Command(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Command:
    """How the command ended."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> dict:
        """What `--json` printed of a run that ended well."""
        assert self.code == 0, self.err
        return json.loads(self.out.splitlines()[-1])

    @property
    def resumed_at(self) -> int | None:
        """The micro-step at which the second epoch's training went on."""
        stages = self.result["stages"]
        return next(
            one["resumed_at"] for one in stages if (one["stage"], one["epoch"]) == ("train", 1)
        )


@dataclass(frozen=True)
class End:
    """How a process ended. digests: of all that the run has made; resumed: stage → micro-step."""

    code: int
    digests: dict[str, str]
    resumed: dict[str, int]


def kill_in_epoch_1(store: Path, *, records: int, update: int = 3) -> None:
    """Kills this process once the second epoch has made that update and committed one before it."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    seen = 0

    def after_step(*_) -> None:
        nonlocal seen
        if len(list(store.glob("stages/*/record.json"))) < records:
            return
        seen += 1
        if seen < update:
            return
        deadline = time.monotonic() + 60
        while not list(store.glob("stages/*/partial/*.json")):  # written beside the training
            assert time.monotonic() < deadline, "no commit inside the epoch"
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

    register_optimizer_step_post_hook(after_step)


def _in_process(function, *arguments) -> int:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    process = context.Process(target=function, args=arguments)
    process.start()
    process.join(240)
    assert process.exitcode is not None, "the process does not end"
    return process.exitcode


def _make(script: Path) -> None:
    sys.path.insert(0, str(script.parent))
    runpy.run_path(str(script), run_name="__main__")


def _run(job: Job, store: str, answer: Path, killed: bool) -> None:
    import torch
    from support.runs.bare_run import BareRun

    torch.set_num_threads(1)
    if killed:
        kill_in_epoch_1(job.store(store), records=job.records_before_epoch_1)
    every = {"checkpoint__every_updates": "1"} if killed else {}
    sets = {**job.sets, **every, "epochs": "2", "store": f"./{store}"}
    run = BareRun(job.config, **sets)()
    digests = {"/".join(map(str, place)): one for place, one in run.digests.items()}
    resumed = {"/".join(map(str, place)): step for place, step in run.resumed.items()}
    answer.write_text(json.dumps([digests, resumed]))
