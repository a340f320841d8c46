"""Trainers as threads: the product's `Worker` behind its `ProcessLink`, and `LocalTrainer` before.

What is replaced is the process alone: how it begins, what a signal does to it, how its end is seen.
"""

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import NoReturn

from support.simulator import collectives
from support.simulator.channels import Select, channel, end_with
from support.simulator.clock import Here
from support.simulator.faults import Faults
from support.simulator.scheduler import Process, Scheduler

from epochal.data.errors import EpochalError
from epochal.tasks.computing import watch
from epochal.tasks.computing.buffer import Buffer
from epochal.tasks.launch import local, process_link, requests
from epochal.tasks.launch.failures import Place, told_error
from epochal.tasks.launch.meeting import Rank
from epochal.tasks.launch.member import Member
from epochal.tasks.launch.process_link import FollowerLink, ProcessLink
from epochal.tasks.launch.requests import Worker, handle
from epochal.tasks.launch.trainer_process import died

STEP_S = 0.2
"""A micro-step takes up to so long."""
STOPPED_S = 15.0
"""A process that was stopped goes on after up to so long."""
SIGKILL, SIGSTOP, SIGCONT = 9, 19, 18


class World:
    """What trainers need to know of their simulation. faults: gives those of this life."""

    faults: Callable[[], Faults]
    interrupt: Callable[[Process], None]


class TrainerAsThread:
    """A trainer's process, as `LocalMember` sees one: see `TrainerProcess`."""

    def __init__(self, scheduler: Scheduler, process: Process) -> None:
        self._scheduler, self._process = scheduler, process
        self.pid = 0

    def send(self, number: int) -> None:
        if number in {SIGSTOP, SIGCONT}:
            self._process.stopped = number == SIGSTOP
        else:
            self._scheduler.kill(self._process, -number)

    def kill(self) -> None:
        self._scheduler.kill(self._process)

    def end(self, *, within_s: float) -> None:
        self._scheduler.wait(lambda: not self._process.alive, "the end of a trainer", within_s)
        self.kill()

    def noted(self) -> int:
        return 0

    def crashed_since(self, noted: int) -> Place:
        del noted
        return Place()

    def death(self, label: str | None, noted: int) -> EpochalError:
        del noted
        lost = self._process.alive  # its channel was cut, and it lives
        self.end(within_s=0.0 if lost else 1.0)
        how = "has lost its channel" if lost else f"was ended ({self._process.code})"
        return died(f"the trainer process {how}", label, None)


class SimulatedMember(Member):
    """In place of `LocalMember`."""

    def __init__(self, *, buffer: int, printed: Callable[[str], None], rank: Rank | None) -> None:
        del printed
        scheduler = Here.scheduler
        assert scheduler is not None
        flow = scheduler.process
        assert flow is not None
        number = 0 if rank is None else rank.number
        process = Process(
            f"{flow.name}.{number}",
            parent=flow,
            computes=True,
            numbers=scheduler.random.randrange(1 << 32),
        )
        ours, theirs = channel(scheduler, World.faults)
        end_with(process, ours.receive_no_more)
        end_with(process, theirs.close)
        flow.ended.append(ours.close)
        scheduler.spawn(process, process.name, lambda: _serve(theirs, buffer, rank))
        super().__init__(ours, TrainerAsThread(scheduler, process), rank)

    @property
    def standing(self) -> str:
        return "It is a thread of a simulation"


def _serve(end: object, buffer: int, rank: Rank | None) -> None:
    """As `epochal.tasks.launch.trainer_main.main`, once all is imported."""
    kind = FollowerLink if rank is not None and rank.number else ProcessLink
    link = kind(end, Buffer(buffer))
    worker = Worker(link, rank=rank)
    while True:
        name, body, sent = link.next_request()
        try:
            reply, data = handle(worker, name, body, sent)
        except Exception as error:  # noqa: BLE001 - as there
            link.fail(told_error(error))
        else:
            link.reply(reply, data)


def _exit(code: int) -> NoReturn:
    scheduler = Here.scheduler
    assert scheduler is not None
    assert scheduler.process is not None
    scheduler.kill(scheduler.process, code)
    scheduler.switch("exit")
    raise AssertionError


def _after_each_micro_step(
    call: Callable[[watch.EpochWatch, object], None],
) -> Callable[[watch.EpochWatch, object], None]:
    def wrapped(self: watch.EpochWatch, progress: object) -> None:
        scheduler = Here.scheduler
        process = None if scheduler is None else scheduler.process
        if scheduler is not None and process is not None:
            _step(scheduler, process, progress)
        call(self, progress)

    return wrapped


def _step(scheduler: Scheduler, process: Process, progress: object) -> None:
    rank = int(process.name.rpartition(".")[2])
    kind = World.faults().strike("process", "micro-step", rank=rank)
    scheduler.note(f"micro-step {progress.epoch}/{progress.micro_steps} {kind or ''}")
    match kind:
        case "kill":
            scheduler.kill(process)
        case "stop":
            _stop(scheduler, process)
        case "term":
            assert process.parent is not None
            World.interrupt(process.parent)
        case "clock_back":
            Here.set_back_s += scheduler.random.uniform(1.0, 7200.0)
    scheduler.sleep(scheduler.random.uniform(0.0, STEP_S))


def _stop(scheduler: Scheduler, process: Process) -> None:
    """As SIGSTOP, and SIGCONT some time later, from somebody else."""
    after_s = scheduler.random.uniform(0.0, STOPPED_S)

    def go_on() -> None:
        scheduler.sleep(after_s)
        process.stopped = False

    scheduler.spawn(None, "somebody", go_on)
    process.stopped = True


def put_in_place() -> None:
    """Trainers that begin from here on are threads. Once for a process."""
    local.LocalMember = SimulatedMember
    local.select = Select
    process_link.os = SimpleNamespace(getpid=os.getpid, _exit=_exit)
    requests.joined = collectives.joined
    watch.EpochWatch.__call__ = _after_each_micro_step(watch.EpochWatch.__call__)
