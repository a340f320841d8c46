"""Any of several processes is killed, stopped or hung at any instant: the same bytes."""

import contextlib
import os
import random
import signal
import threading

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import environment
from support.runs.proof_project import proof_project
from support.trainers.forked_trainer import fork_trainers

from epochal.data.errors import EpochalError

SHARED = {
    "gradients": {"accumulate": 8, "shards": 8, "clip_norm": 1.0},
    "batches": {"kind": "fixed"},
    "loader": {"batch_size": 2},
    "launch": {"kind": "local", "max_restarts": 2},
    "checkpoint": {"every_updates": 1, "keep_last": 2},
}
QUICK = 2
"""Instants in the default suite; the others are slow."""


@pytest.fixture(scope="module")
def forking(tmp_path_factory):
    with (
        environment(HOME=str(tmp_path_factory.mktemp("home"))),
        pytest.MonkeyPatch.context() as patch,
    ):
        fork_trainers(patch, proof_project(tmp_path_factory.mktemp("warm") / "project"))
        yield


@pytest.fixture(scope="module")
def alone(forking, tmp_path_factory):
    project = proof_project(tmp_path_factory.mktemp("alone") / "project", **SHARED)
    run = BareRun(project.config, launch__kind="local", launch__processes=1)()
    run.session.trainer.close()
    return run.digests


def killed_at(run, draw, *, seconds):
    """Kills some of the run's processes, one after the other, at instants that are drawn."""
    ended = threading.Event()

    def kill():
        for _ in range(draw.randint(1, 2)):
            if ended.wait(draw.uniform(0, seconds)):
                return
            with contextlib.suppress(ProcessLookupError, IndexError, OSError):
                os.kill(draw.choice(run.session.trainer.pids), signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread, ended


@pytest.mark.parametrize(
    "instant",
    [pytest.param(one, marks=[pytest.mark.slow] * (one >= QUICK)) for one in range(30)],
)
def test_ranks_are_killed_at_any_instant(instant, alone, forking, tmp_path):
    draw = random.Random(instant)
    project = proof_project(tmp_path / "project", **SHARED)
    for _ in range(4):
        with environment(STEP_SECONDS="0.005"):
            run = BareRun(
                project.config, launch__kind="local", launch__processes=draw.choice([2, 3, 4])
            )
            thread, ended = killed_at(run, draw, seconds=1.5)
            with contextlib.suppress(EpochalError):
                run()
        ended.set()
        thread.join()
        run.session.trainer.close()
        if run.view.is_whole:
            break
    else:
        run = BareRun(project.config, launch__kind="local", launch__processes=1)()
        run.session.trainer.close()
    assert run.digests == alone
