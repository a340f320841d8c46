"""Commits of a bare epoch: a saver whose orchestration is this process, without any run around."""

from types import SimpleNamespace

from epochal.data.store.open import open_store
from epochal.tasks.checkpoints.commit_writer import CommitWriter
from epochal.tasks.computing.saver import MidEpochSaver
from epochal.tasks.config.parts import CheckpointConfig
from epochal.tasks.launch.inline import InlineTrainer
from epochal.tasks.reporting import SilentReporter
from epochal.tasks.trainer.interruption import Interruption

KEY = "a" * 64


class EpochCommits:
    """A saver and the writer of what it commits, in a store below `folder`."""

    def __init__(self, folder, **config):
        self.store = open_store(f"file://{folder}/store")
        checkpoint = CheckpointConfig(**{"every_seconds": 1e9, **config})
        self.trainer = InlineTrainer(
            SimpleNamespace(checkpoint=checkpoint), self.store, SilentReporter(), Interruption()
        )
        self.saved = []
        self.writer = CommitWriter(self.store, KEY, {}, saved=self.saved.append)
        self.trainer.attach(self.writer)
        self.link = self.trainer.worker.link
        self.saver = MidEpochSaver(
            self.link, checkpoint, times=lambda _: [[0, 0]], updates_before=0, beside=lambda _: {}
        )

    def when_due(self, progress):
        """As the epoch does between two micro-steps."""
        if self.saver.is_due(progress):
            self.saver.now(progress)


def durable_at_once(monkeypatch):
    """Training waits until a commit is stored: an epoch's end would give up one that is not."""
    begin = CommitWriter.begin

    def begin_and_end(self, commit):
        begin(self, commit)
        self._thread.join()

    monkeypatch.setattr(CommitWriter, "begin", begin_and_end)
