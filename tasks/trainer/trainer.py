"""Who computes, as the flow's process sees it: what can be asked of a trainer, and what comes back.

The two ways are `LocalTrainer`, a process of its own, and `InlineTrainer`, this one.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochal.data.errors import EpochalError, TrainingFailed
from epochal.data.inspection.file_stamps import files_stamp
from epochal.data.stage_store.records import StageRecord, dump_record
from epochal.data.store.store import Store
from epochal.tasks.checkpoints.commit_writer import CommitWriter, EpochCommit
from epochal.tasks.computing.buffer import Buffer, Packed
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.stage import Stage
from epochal.tasks.reporting import Live, Reporter, Told
from epochal.tasks.trainer.answers import Answer, answers_of_store
from epochal.tasks.trainer.channel import Message
from epochal.tasks.trainer.interruption import Interruption

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_OF_TABLE = "/"  # between a table and its column, in the names of packed arrays


@dataclass(frozen=True)
class Received:
    """What came of a stage, as `Computed` has it; images are of safetensors files.

    goodput: what it has cost there, as `Totals.body` gives it.

    Valid while the block of `Trainer.compute` is open.
    """

    values: Mapping[str, Any]
    images: Mapping[str, memoryview]
    documents: Mapping[str, Any]
    columns: Mapping[str, Mapping[str, npt.NDArray[Any]]]
    files: Mapping[str, Path]
    side: Mapping[str, Any]
    facts: Mapping[str, Any]
    goodput: Mapping[str, Any]


@dataclass
class Trainer(ABC):
    """One run's trainer. Used by one thread at a time.

    starts: how often it has started again, whose state was lost then.
    """

    config: RunConfig
    store: Store
    reporter: Reporter
    interruption: Interruption
    buffer: Buffer = field(default_factory=Buffer)
    starts: int = 0
    _writer: CommitWriter | None = None
    _answers: dict[str, Answer] = field(default_factory=dict)
    _turn: threading.RLock = field(default_factory=threading.RLock)

    # --- what is asked of it ------------------------------------------------------------------

    @abstractmethod
    def request(
        self, name: str, body: Message, answers: Mapping[str, Answer]
    ) -> tuple[Message, bytes | None]:
        """Has something done, and gives the reply. Raises what was raised there."""

    @abstractmethod
    def close(self) -> None:
        """Ends it. Nothing happens if it has ended."""

    def ask_for(
        self,
        name: str,
        body: Message | None = None,
        *,
        answers: Mapping[str, Answer] | None = None,
    ) -> tuple[Message, bytes | None]:
        """As `request`, with the answers that are always given."""
        own: dict[str, Answer] = {
            **answers_of_store(self.store),
            "file": lambda path: path,
            "files_stamp": partial(files_stamp, folder=Path(self.config.folder)),
        }
        with self._turn:
            return self.request(name, body or {}, {**own, **(answers or {})})

    @contextmanager
    def compute(
        self,
        stage: Stage,
        parents: Mapping[str, StageRecord],
        *,
        live: bool = False,
        signs: Sequence[str] | None = None,
        given: Mapping[str, Any] | None = None,
        answers: Mapping[str, Answer] | None = None,
        writer: CommitWriter | None = None,
    ) -> Iterator[Received]:
        """Has a stage computed. parents: those that it loads. writer: of commits inside it.

        Raises what the stage raises; where a signal came, what that raises, once what is to be kept
        is durable.
        """
        self._writer = None
        if writer is not None:
            self.attach(writer)
        order = {
            "kind": stage.kind,
            "epoch": stage.epoch,
            "key": stage.known_key,
            "inputs": dict(stage.inputs),
            "parents": {
                role: [record.key, dump_record(record).decode()] for role, record in parents.items()
            },
            "live": live,
            "signs": signs,
            "given": dict(given or {}),
        }
        try:
            reply, _ = self.ask_for(
                "compute", {"label": stage.label, "order": order}, answers=answers
            )
        except BaseException as error:
            self.freed()
            if writer is not None:
                self._end_writing(writer)
            if isinstance(error, TrainingFailed) and self.interruption.came:
                # The signal may have come to the user's code too, and be what has ended it.
                self.reporter.notice(str(error))
                self.interruption.obey()
            raise
        if reply.get("put_down"):
            self._put_down(writer)
        try:
            yield self._received(reply)
        finally:
            self.freed()

    def images(self, sample_ids: Sequence[int]) -> list[npt.NDArray[np.float32]]:
        """An image of each sample of the training data, float32 of shape (H, W, 3)."""
        import numpy as np

        reply, data = self.ask_for("images", {"sample_ids": [int(one) for one in sample_ids]})
        images, start = [], 0
        for shape in reply["shapes"]:
            count = int(np.prod(shape))
            one = np.frombuffer(data or b"", np.float32, count, start)
            images.append(one.reshape(shape))
            start += one.nbytes
        return images

    def attach(self, writer: CommitWriter) -> None:
        """From now on `writer` writes the commits of the epoch at work."""
        self._writer = writer
        writer.freed, writer.done, writer.failed = self.freed, self.committed, self.stop

    # --- what it tells ------------------------------------------------------------------------

    @abstractmethod
    def freed(self) -> None:
        """Tells it that nobody reads the buffer any more. From any thread."""

    @abstractmethod
    def committed(self) -> None:
        """Tells it that the commit has ended. From any thread."""

    @abstractmethod
    def stop(self) -> None:
        """Tells it that what it does is of no use any more. From any thread."""

    def prepare(self, size: int) -> None:
        """Makes memory for the buffer, beside the work."""
        threading.Thread(target=self._allocate, args=(size,), daemon=True).start()

    def _allocate(self, size: int) -> None:
        with suppress(EpochalError):  # the commit itself will say it, unless the run has ended
            self.buffer.allocate(size)

    def begin_commit(self, commit: Mapping[str, Any]) -> None:
        """Has what is in the buffer written as a commit of the epoch at work."""
        assert self._writer is not None
        packed = Packed(**commit["packed"])
        self._writer.begin(
            EpochCommit(
                micro_steps=commit["micro_steps"],
                updates=commit["updates"],
                updates_before=commit["updates_before"],
                body=commit["body"],
                image=self.buffer.file(packed, "partial"),
                metrics={name: self.buffer.array(packed, name) for name in packed.arrays},
                times=commit["times"],
            )
        )

    def give_up_commit(self) -> None:
        """The buffer is wanted for what is more than a commit inside the epoch."""
        if self._writer is not None:
            self._writer.give_up()

    def answer(
        self, question: str, given: Mapping[str, Any], data: bytes | None
    ) -> tuple[Any, bytes | None]:
        """The answer to a question, plain JSON or bytes."""
        extra = {} if data is None else {"data": data}
        found = self._answers[question](**given, **extra)
        return (None, found) if isinstance(found, bytes) else (found, None)

    def tell_live(self, live: Mapping[str, Any]) -> None:
        """Shows how far an epoch is."""
        self.reporter.live(Live(**live))

    def tell_report(self, what: Told, body: Mapping[str, Any]) -> None:
        """Tells the reporter what a trainer does."""
        told: Callable[..., None] = getattr(self.reporter, what)
        told(**body)

    # ------------------------------------------------------------------------------------------

    def _received(self, reply: Message) -> Received:
        packed = Packed(**reply["packed"])
        columns: dict[str, dict[str, npt.NDArray[Any]]] = {name: {} for name in reply["tables"]}
        for name in packed.arrays:
            table, _, column = name.partition(_OF_TABLE)
            columns[table][column] = self.buffer.array(packed, name)
        return Received(
            values=reply["values"],
            images={name: self.buffer.file(packed, name) for name in packed.files},
            documents=reply["documents"],
            columns=columns,
            files={name: Path(path) for name, path in reply["files"].items()},
            side=reply["side"],
            facts=reply["facts"],
            goodput=reply["goodput"],
        )

    def _put_down(self, writer: CommitWriter | None) -> None:
        """The work was put down: raises why, once the epoch's last commit is durable."""
        if writer is not None:
            left_s = self.config.checkpoint.grace_seconds - self.interruption.since_s
            writer.end(within_s=max(0.0, left_s) if self.interruption.came else None)
        self.interruption.obey()
        raise TrainingFailed("the trainer put its work down although nobody asked it to")

    def _end_writing(self, writer: CommitWriter) -> None:
        """The stage has failed: waits for the commit that is under way; an error of it is told."""
        within_s = 0.0 if self.interruption.obeyed else self.config.checkpoint.grace_seconds
        try:
            writer.end(within_s=within_s)
        except Exception as error:  # noqa: BLE001 - the stage's own error is the one that counts
            self.reporter.notice(f"the last commit inside the epoch failed: {error}")


def now_s() -> float:
    """Seconds of a clock that only runs forward."""
    return time.monotonic()


Starter = Callable[[RunConfig, Store, Reporter, Interruption], Trainer]
