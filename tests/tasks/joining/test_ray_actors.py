"""Processes that Ray's actors start: the bytes of one, though one of them is killed."""

import importlib.util
import os
import signal

import psutil
import pytest
from support.runs.bare_run import BareRun
from support.runs.commits_given import once_stored
from support.runs.project import Project

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
]
SHARED = {
    "epochs": 3,
    "threads": 1,
    "gradients": {"accumulate": 4, "shards": 4, "clip_norm": 1.0},
    "loader": {"batch_size": 8},
    "sampling": {"policy": "none"},
    "checkpoint": {"every_updates": 1},
    "launch": {"kind": "ray", "processes": 2},
}


def descendants(word):
    """Of this process, those whose command has the word."""
    found = psutil.Process().children(recursive=True)
    return [one.pid for one in found if word in " ".join(one.cmdline())]


@pytest.mark.parametrize("victim", ["trainer_main", "joining.relay", "ray::Joining"])
def test_what_is_killed_of_ray_is_replaced_and_the_bytes_are_those_of_one(victim, tmp_path, home):
    run = BareRun(Project(tmp_path / "project", **SHARED).config, launch__kind="ray")
    once_stored(run, lambda: os.kill(descendants(victim)[-1], signal.SIGKILL), number=4)
    run()
    run.run.close()
    assert len([text for text in run.notices if "start again" in text]) == 1
    assert descendants("epochal") == descendants("raylet") == []
    project = Project(tmp_path / "alone", **SHARED)
    alone = BareRun(project.config, launch__kind="inline", launch__processes=1)()
    alone.run.close()
    assert run.weights == alone.weights
