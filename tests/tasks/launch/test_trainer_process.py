"""A trainer's process, seen from outside."""

import socket
import sys

import pytest
from support.runs.command import alive

from epochal.tasks.launch import trainer_process
from epochal.tasks.launch.trainer_process import TrainerProcess


@pytest.mark.skipif(sys.platform != "linux", reason="nothing tells who catches a signal")
def test_a_process_that_still_starts_is_not_ended_by_being_asked_where_it_is(monkeypatch):
    monkeypatch.setattr(trainer_process, "_BOOT", "import time; time.sleep(3600)")
    ours, theirs = socket.socketpair()
    process = TrainerProcess(channel=theirs.fileno(), buffer=theirs.fileno(), ended=lambda: None)
    try:
        standing = process.standing()
        assert not standing.answered
        assert not standing.begun
        assert alive(process.pid)
    finally:
        process.end(within_s=0.0)
        ours.close()
        theirs.close()
