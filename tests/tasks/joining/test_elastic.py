"""Processes that torch's own agent starts, here and on a machine that joins."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from support.runs.bare_run import BareRun
from support.runs.commits_given import once_stored
from support.runs.machine import wait_for
from support.runs.project import Project

SHARED = {
    "epochs": 3,
    "threads": 1,
    "gradients": {"accumulate": 4, "shards": 4, "clip_norm": 1.0},
    "loader": {"batch_size": 8},
    "sampling": {"policy": "none"},
    "checkpoint": {"every_updates": 1},
    "launch": {"kind": "elastic", "processes": 2},
}
RUN = """
    import subprocess, sys, threading
    from pathlib import Path

    from epochal.tasks.config.load import load_config
    from epochal.tasks.reporting import SilentReporter
    from epochal.tasks.running.open import open_run

    class Told(SilentReporter):
        def notice(self, text):
            print("told:", text, flush=True)

    if __name__ == "__main__":
        config, seconds = Path(sys.argv[1]), float(sys.argv[2])
        run = open_run(load_config(config), reporter=Told())

        def cut():
            subprocess.run(["ip", "link", "set", "way", "down"], check=True)
            threading.Event().wait(seconds)
            subprocess.run(["ip", "link", "set", "way", "up"], check=True)

        for stage in run.stages():
            if stage.label == "train · epoch 1":
                thread = threading.Timer(0.1, cut)
                thread.start()
            run.run_stage(stage)
        thread.join()
        print("weights:", run.view.weights_sha256)
        run.close()
"""


def descendants(word):
    """Of this process, those whose command has the word."""
    found = psutil.Process().children(recursive=True)
    return [one.pid for one in found if word in " ".join(one.cmdline())]


def weights_alone(folder):
    run = BareRun(Project(folder, **SHARED).config, launch__kind="inline", launch__processes=1)()
    run.run.close()
    return run.weights


def test_the_agents_processes_make_the_bytes_of_one_and_are_replaced_where_one_is_killed(
    tmp_path, home
):
    run = BareRun(Project(tmp_path / "project", **SHARED).config, launch__kind="elastic")
    once_stored(run, lambda: os.kill(descendants("joining.relay")[-1], signal.SIGKILL), number=4)
    run()
    run.run.close()
    assert len([text for text in run.notices if "start again" in text]) == 1
    assert descendants("epochal.tasks") == []
    assert run.weights == weights_alone(tmp_path / "alone")


def in_namespace(name, *command, **options):
    return subprocess.Popen(
        ["ip", "netns", "exec", name, *command],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options,
    )  # fmt: skip


@pytest.fixture
def two_machines():
    """Two network namespaces with one way between them, 10.83.7.1 and 10.83.7.2."""
    names = [f"epochal{os.getpid()}{end}" for end in "ab"]
    made = []

    def ip(*arguments):
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no network namespaces here: {done.stderr.strip()}")

    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and iproute2")
    try:
        for name in names:
            ip("netns", "add", name)
            made.append(name)
        ip("-n", names[0], "link", "add", "way", "type", "veth", "peer", "way", "netns", names[1])
        for number, name in enumerate(names, 1):
            ip("-n", name, "addr", "add", f"10.83.7.{number}/24", "dev", "way")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "way", "up")
        yield names
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=False)


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "restarts"), [(2, 0), (40, 1)])
def test_a_run_over_two_machines_makes_the_bytes_of_one_though_their_way_is_cut(
    seconds, restarts, two_machines, tmp_path, home
):
    changes = {"nodes": 2, "address": "10.83.7.1", "kind": "elastic", "processes": 2}
    project = Project(tmp_path / "project", **{**SHARED, "launch": changes})
    project.write("run.py", RUN)
    variables = {**os.environ, "EPOCHAL_TOKEN": "of this test"}
    one, other = two_machines
    own = [sys.executable, "-m", "epochal.flows.cli", "join", "10.83.7.1", "--wait", "60"]
    # Its own processes, its own /tmp: nothing of the run's machine is seen there.
    alone = 'mount -t tmpfs none /var/tmp && exec "$@"'
    unshared = ["unshare", "--pid", "--mount", "--fork", "--mount-proc", "sh", "-c", alone, "sh"]
    with (
        in_namespace(other, *unshared, *own, env={**variables, "TMPDIR": "/var/tmp"}) as joined,
        in_namespace(
            one, sys.executable, str(project.folder / "run.py"), str(project.config), str(seconds),
            env=variables,
        ) as run,
    ):  # fmt: skip
        killer = threading.Timer(200, lambda: [one.kill() for one in (joined, run)])
        killer.start()
        told = run.communicate()[0]
        joined_told = joined.communicate()[0]
        killer.cancel()
    assert (run.returncode, joined.returncode) == (0, 0), (told, joined_told)
    assert told.count("start again from the last commit") == restarts, told
    assert f"weights: {weights_alone(tmp_path / 'alone')}" in told
    wait_for(lambda: not Path("/proc", str(joined.pid)).exists())
