"""Trainer processes on this machine: asked, answered, watched, ended.

They have no Prefect, no MLflow and no store, and none of their variables. They end with this
process, by SIGKILL too. What they print is printed here.

Several share each update of a run. All are asked to compute a stage; the first of them tells what
came of it, and commits. Where one is gone the others cannot go on: all are ended, and as many start
again from the last commit.
"""

from __future__ import annotations

import select
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from epochal.data.errors import PeerLost, TrainingFailed
from epochal.tasks.launch.failures import error_of, told_error
from epochal.tasks.launch.meeting import Rank
from epochal.tasks.launch.member import LocalMember, Member, MemberEnded
from epochal.tasks.launch.trainer_process import END_WITHIN_S, stopped_with_this_process
from epochal.tasks.trainer.answers import Answer
from epochal.tasks.trainer.channel import Message
from epochal.tasks.trainer.trainer import Trainer, now_s

Reply = tuple[Message, bytes | None]


@dataclass(frozen=True)
class _Opened:
    """A request that a process answers before it computes: what was asked, and the answer."""

    body: Message
    answers: Mapping[str, Answer]
    reply: Reply


@dataclass
class LocalTrainer(Trainer):
    """Processes of its own: one, or as many as share the run."""

    _members: list[Member] = field(default_factory=list)
    _meeting: str | None = None
    _opened: dict[str, _Opened] = field(default_factory=dict)
    _following: bool = False
    _restarts: int = 0
    _heard_s: float = 0.0
    _closed: bool = False

    def __post_init__(self) -> None:
        self._begin()

    @property
    def pid(self) -> int:
        """Of the first process."""
        return self._members[0].process.pid

    @property
    def pids(self) -> list[int]:
        """Of all processes, by rank."""
        return [member.process.pid for member in self._members]

    def request(self, name: str, body: Message, answers: Mapping[str, Answer]) -> Reply:
        """Has it done there."""
        while True:
            try:
                if not self._members:
                    self._begin_again()
                return self._requested(name, body, answers)
            except (MemberEnded, PeerLost) as error:
                meant = self._meant(error, body)
                self._end(within_s=0.0)
                if name != "compute" or not self._may_restart:
                    raise meant from None
                self._restarts += 1
                self.reporter.notice(
                    f"{meant}. All {self._size} processes start again from the last commit "
                    f"({self._restarts} of launch.max_restarts: {self.config.launch.max_restarts})"
                )
                self._wait_for_commit()
                body = {**body, "order": {**body["order"], "live": False}}

    def close(self) -> None:
        """Ends the processes, at once where they are at work."""
        if self._closed:
            return
        self._closed = True
        busy = any(member.busy for member in self._members)
        for member in self._members:
            member.tell({"type": "end"})
        self._end(within_s=0.0 if busy else END_WITHIN_S)
        self.buffer.close()

    def freed(self) -> None:
        """The buffer may be written to."""
        self._tell_first({"type": "freed"})

    def committed(self) -> None:
        """Another commit may begin."""
        self._tell_first({"type": "committed"})

    def stop(self) -> None:
        """The work is of no use any more."""
        self._tell_first({"type": "stop"})

    # --- the processes ------------------------------------------------------------------------

    @property
    def _size(self) -> int:
        return self.config.launch.processes

    @property
    def _restartable(self) -> bool:
        """Whether a run goes on in new processes: one alone has the user look at what it did."""
        return self._size > 1

    @property
    def _may_restart(self) -> bool:
        allowed = self._restarts < self.config.launch.max_restarts
        return self._restartable and allowed and not self.interruption.came

    def _begin(self) -> None:
        self._following = False
        ranks: list[Rank | None] = [None]
        if self._size > 1:
            self._meeting = tempfile.mkdtemp(prefix="epochal-ranks-")
            meeting = str(Path(self._meeting) / "meeting")
            ranks = [Rank(number, self._size, meeting) for number in range(self._size)]
        self._members = [
            LocalMember(buffer=self.buffer.descriptor, printed=self.reporter.printed, rank=rank)
            for rank in ranks
        ]

    def _complete(self) -> None:
        """Before all compute: starts those that opening the run does not need."""

    def _begin_again(self) -> None:
        """New processes, opened as those before were. Raises TrainingFailed if that is not so."""
        if self._closed or not self._restartable or not self._opened:
            raise TrainingFailed("the trainer process has ended: the same command starts another")
        self._begin()
        self.starts += 1
        for name, before in list(self._opened.items()):
            reply, data = self._requested(name, before.body, before.answers)
            if (reply, data) != before.reply:
                raise TrainingFailed(
                    "code or data of the run have changed since it began, and its processes "
                    "were to start again: the same command starts with what there is now"
                )

    def _end(self, *, within_s: float) -> None:
        members, self._members = self._members, []
        for member in members:
            if within_s <= 0:
                member.process.kill()
        for member in members:
            member.end(within_s=within_s)
        if self._meeting is not None:
            shutil.rmtree(self._meeting, ignore_errors=True)
            self._meeting = None

    def _wait_for_commit(self) -> None:
        """Until nobody reads the buffer any more, which the next processes write to."""
        if self._writer is not None:
            self._writer.end(within_s=self.config.checkpoint.grace_seconds)

    def _follow(self) -> Message:
        """What the others need to know of the run that the first has opened."""
        opened, checked = self._opened["open"], self._opened.get("check")
        last = opened if checked is None else checked
        return {"config": last.body["config"], "data": opened.reply[0]["data"]}

    # --- a request ----------------------------------------------------------------------------

    def _requested(self, name: str, body: Message, answers: Mapping[str, Answer]) -> Reply:
        self._answers = dict(answers)
        try:
            if name == "compute":
                self._complete()
            asked = self._members if name == "compute" else self._members[:1]
            with stopped_with_this_process(self._send_all, woken=self.heard):
                if len(asked) > 1 and not self._following:
                    ids = self._opened["open"].reply[1]
                    for member in asked[1:]:
                        member.request("follow", self._follow(), ids)
                    self._replies(asked[1:])
                    self._following = True
                for member in asked:
                    member.request(name, body)
                reply = self._replies(asked)[0]
        except (MemberEnded, PeerLost):  # what has ended one of them is still to be asked of it
            raise
        except BaseException:
            if any(member.busy for member in self._members):  # nobody waits for them any more
                self._end(within_s=0.0)
            raise
        if name in {"open", "check"}:
            self._opened[name] = _Opened(body, dict(answers), reply)
        return reply

    def _replies(self, asked: Sequence[Member]) -> list[Reply]:
        """What comes of it; meanwhile answers, shows, and passes a signal on."""
        waiting = _Waiting(self, asked)
        replies: dict[Member, Reply] = {}
        lost = 0
        self.heard()
        while len(replies) < len(asked):
            for member in waiting.ready():
                try:
                    reply = self._take(member, *member.receive())
                except PeerLost:  # the cause is told by another, or by its end
                    lost += 1
                    if lost + len(replies) == len(asked):
                        raise
                else:
                    if reply is not None:
                        replies[member] = reply
        return [replies[member] for member in asked]

    def heard(self) -> None:
        """Notes a sign of the first process."""
        self._heard_s = now_s()

    @property
    def silent_until_s(self) -> float:
        """When it is said that there was none for long."""
        return self._heard_s + self.config.launch.silence_seconds

    def _take(self, member: Member, message: Message, data: bytes | None) -> Reply | None:
        match message["type"]:
            case "reply":
                member.busy = False
                return message["reply"], data
            case "failure":
                member.busy = False
                raise self._failure(member, message["failure"])
            case "ask":
                self._answer_to(member, message, data)
            case "live":
                self.tell_live(message["live"])
            case "report":
                self.tell_report(message["what"], message["body"])
            case "notice":
                self.reporter.notice(message["text"])
            case "commit":
                self.begin_commit(message["commit"])
            case "give_up_commit":
                self.give_up_commit()
            case "prepare":
                self.prepare(message["size"])
        return None

    def _answer_to(self, member: Member, message: Message, data: bytes | None) -> None:
        try:
            answer, found = self.answer(message["question"], message["given"], data)
        except Exception as error:  # noqa: BLE001 - raised there, as if the question had raised it
            member.asked = error
            member.send({"type": "refusal", "failure": told_error(error)})
        else:
            member.send({"type": "answer", "answer": answer}, data=found)

    def _tell_first(self, message: Message) -> None:
        if self._members:
            self._members[0].tell(message)

    def _send_all(self, number: int) -> None:
        for member in self._members:
            member.process.send(number)

    # --- what went wrong ----------------------------------------------------------------------

    def _failure(self, member: Member, told: Message) -> Exception:
        if member.asked is not None and told_error(member.asked)["text"] == told["text"]:
            return member.asked  # of this process, which had been told there
        error = error_of(told)
        if isinstance(error, TrainingFailed) and error.trace is None:
            # A process that it has forked may have crashed: what it was at says more.
            place = member.process.crashed_since(member.noted)
            if place.trace is not None:
                error.args = (f"{error}{place.where}",)
                error.trace = place.trace
        return error

    def _meant(self, error: MemberEnded | PeerLost, body: Mapping[str, Any]) -> Exception:
        """What it means that a process is gone."""
        if isinstance(error, PeerLost):
            return error
        member = error.member
        death = member.process.death(body.get("label"), member.noted)
        if member.name:
            death.args = (f"{member.name}: {death}",)
        return death

    def give_up(self) -> None:
        """The trainer did not put its work down in time: it is ended, and the signal obeyed."""
        self.reporter.notice(
            "the trainer did not put its work down within "
            f"{self.config.checkpoint.grace_seconds:g} s (checkpoint.grace_seconds): it is ended, "
            f"and the run goes on from the last commit. {self._standing()}"
        )
        self._end(within_s=0.0)
        self.interruption.obey()

    def tell_silence(self) -> None:
        """Says where the processes stand."""
        self.reporter.notice(
            f"no sign of the trainer for {self.config.launch.silence_seconds:g} s "
            f"(launch.silence_seconds). {self._standing()}"
        )

    def _standing(self) -> str:
        """Where they are, for a person."""
        if self._size == 1:
            return self._members[0].standing
        return " ".join(f"{member.name}: {member.standing}" for member in self._members)


class _Waiting:
    """For messages of processes: what is done meanwhile goes by the clock and by signals."""

    def __init__(self, trainer: LocalTrainer, asked: Sequence[Member]) -> None:
        self._trainer = trainer
        self._first = asked[0]
        self._members = {member.channel.fileno(): member for member in asked}
        self._poll = select.poll()
        for descriptor in self._members:
            self._poll.register(descriptor, select.POLLIN | select.POLLHUP)
        self._signals = trainer.interruption.fileno()
        self._poll.register(self._signals, select.POLLIN)
        self._passed_on = self._told_silence = False

    def ready(self) -> list[Member]:
        """Those that have sent something, maybe none. Raises where a signal must be obeyed."""
        trainer, interruption = self._trainer, self._trainer.interruption
        if interruption.came and not self._passed_on:
            self._passed_on = True
            self._poll.unregister(self._signals)
            self._first.send({"type": "interrupt"})
            trainer.reporter.doing("committing what is done; a second signal ends it at once")
        left_s = trainer.silent_until_s - now_s()
        if self._passed_on:
            left_s = trainer.config.checkpoint.grace_seconds - interruption.since_s
            if left_s <= 0:
                trainer.give_up()
        forever = self._told_silence and not self._passed_on
        found = self._poll.poll(None if forever else max(0.0, left_s) * 1000)
        ready = [self._members[one] for one, _ in found if one != self._signals]
        if not found and not self._passed_on:
            self._told_silence = True
            trainer.tell_silence()
        if self._first in ready:
            trainer.heard()
            self._told_silence = False
        return ready
