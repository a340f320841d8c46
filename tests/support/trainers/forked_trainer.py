"""Trainers that are forked from the tests' process, which has imported torch: 0.1 s each, not 3 s.

In place of `subprocess.Popen` in `LocalTrainer`; all else is as there. One thread in torch, for a
pool of threads does not survive a fork.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import traceback
from types import SimpleNamespace

import torch
from support.runs.bare_run import BareRun
from support.runs.project import Project

from epochal.data.traces import is_users
from epochal.tasks.launch import failures, trainer_process


class ForkedProcess:
    """The process that the command would start, as far as `LocalTrainer` asks for it."""

    def __init__(self, command, *, pass_fds, env, **_):
        out, err = os.pipe(), os.pipe()
        self.returncode, self._lock = None, threading.Lock()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _begin(json.loads(command[-1]), out[1], err[1], env, pass_fds)
        os.setpgid(self.pid, self.pid)
        for _, write in (out, err):
            os.close(write)
        self.stdout, self.stderr = os.fdopen(out[0], "rb"), os.fdopen(err[0], "rb")

    def poll(self):
        with self._lock:
            if self.returncode is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                self.returncode = os.waitstatus_to_exitcode(status) if pid else None
            return self.returncode

    def wait(self, timeout=None):
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if deadline is not None and time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired("forked trainer", timeout)
            time.sleep(0.005)
        return self.returncode


def _begin(given, out, err, env, kept):
    try:
        os.setpgid(0, 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # noqa: SIM115 - until the end
        sys.stderr = sys.__stderr__ = open(2, "w", closefd=False)  # noqa: SIM115
        for one in set(map(int, os.listdir("/proc/self/fd"))) - {0, 1, 2, *kept}:  # noqa: PTH208
            with contextlib.suppress(OSError):  # that of the listing
                os.close(one)
        os.environ.clear()
        os.environ.update(env)
        sys.path[:] = given["path"]
        from epochal.tasks.launch.trainer_main import main

        main(given)
    except BaseException:  # noqa: BLE001 - a child must end here
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(1)


def fork_trainers(monkeypatch, warm: Project) -> None:
    """From now on trainers are forked; what each of them would import is imported here."""
    if not _warm:
        BareRun(warm.config, launch__kind="inline")().run.close()
        _warm.append(True)
    torch.set_num_threads(1)
    names = {**vars(subprocess), "Popen": ForkedProcess}
    monkeypatch.setattr(trainer_process, "subprocess", SimpleNamespace(**names))
    # Its own frames are outermost in each dump.
    monkeypatch.setattr(failures, "is_users", lambda name: name != __file__ and is_users(name))


_warm: list[bool] = []
