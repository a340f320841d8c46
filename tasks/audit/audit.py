"""Epochs of a run that are stored, computed again and compared by their bytes.

A processor or a memory that computes wrongly now and then leaves no trace: the bytes that it makes
have the digests that their records name. A second computation, on another machine at best, tells.
Changes nothing in the store: what is computed goes to a folder of its own, and so does what is
remembered of code and data, or set aside.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from epochal.data.errors import CorruptObject, InputError
from epochal.data.hashing import digest
from epochal.data.stage_store.records import StageRecord, differences
from epochal.data.stage_store.stages import StageStore
from epochal.data.store.open import open_store, open_unchanged
from epochal.data.store.store import MAX_READ_BYTES
from epochal.tasks.audit.in_what import DifferentPart, parts_that_differ
from epochal.tasks.checkpoints.nearest import nearest_checkpoint
from epochal.tasks.goodput.run import run_goodput
from epochal.tasks.planning.run_view import differences as environment_differences
from epochal.tasks.planning.stage import Stage
from epochal.tasks.reporting import Outcome, Reporter
from epochal.tasks.run_data.run_data import own_config
from epochal.tasks.running.open import open_session
from epochal.tasks.running.run import compute
from epochal.tasks.runs.find_run import FoundRun
from epochal.tasks.session.session import Session

WHAT = "what is computed again comes out of model and data, and these are"
NEVER_S = 1e9
"""Between two commits inside an epoch: nobody goes on from one of an audit."""
TRAIN = "train"
BEGUN_WITH = frozenset({TRAIN, "mine", "score"})
"""Kinds of stages that later epochs begin with."""


@dataclass(frozen=True)
class Different:
    """A stage that came out otherwise. what: `artifact model: 01ab… → 23cd…`, a sentence each.

    parts: of these artifacts what is other; none where the stored one is there no more. damaged:
    it is what is stored that is other than it was written; nobody computed wrongly.
    """

    stage: Stage
    what: tuple[str, ...]
    parts: tuple[DifferentPart, ...] = ()
    damaged: bool = False

    def as_object(self) -> dict[str, Any]:
        """As `--json` has it."""
        return {
            "stage": self.stage.kind,
            "epoch": self.stage.epoch,
            "key": self.stage.known_key,
            "what": list(self.what),
            "parts": [one.as_object() for one in self.parts],
            "damaged": self.damaged,
        }


@dataclass(frozen=True)
class Lost:
    """What follows from what came out otherwise, and so is to be computed again.

    first: the first such epoch. epochs: how many of these are stored. seconds: that their stages
    have cost; None where that is not known.
    """

    first: int
    epochs: int
    seconds: float | None


@dataclass(frozen=True)
class Audit:
    """What came of it.

    epochs: that were computed again, with every stage of theirs that is stored. of: how many are
    stored. differ: stages whose bytes are others. unchecked: epochs that could not be, since what
    they begin with is not there, or damaged, or differs where it was computed again.
    other_environment: what of this machine is not as it was, `torch: 2.6 → 2.7`.
    seconds: that the audit has taken. share: of the run's own time, what the epochs that were
    computed again had cost in it, from 0 to 1; None where that is not known. lost: None where
    nothing differs that another epoch begins with.
    """

    epochs: tuple[int, ...]
    of: int
    differ: tuple[Different, ...]
    unchecked: tuple[int, ...]
    other_environment: tuple[str, ...]
    seconds: float = 0.0
    share: float | None = None
    lost: Lost | None = None

    def as_object(self) -> dict[str, Any]:
        """What `--json` has of it."""
        return {
            "checked": len(self.epochs),
            "differ": [one.as_object() for one in self.differ],
            "epochs": list(self.epochs),
            "stored": self.of,
            "unchecked": list(self.unchecked),
            "environment": list(self.other_environment),
            "seconds": round(self.seconds, 3),
            "share_of_time": self.share,
            "lost": None if self.lost is None else asdict(self.lost),
        }


def audit(run: FoundRun, *, share: float, seed: int, reporter: Reporter) -> Audit:
    """Computes a share of the run's stored epochs again, and compares all that they made.

    share: of the epochs, above 0 and at most 1; one at least. seed: which ones; the same seed
    chooses the same epochs. An epoch begins with the stored checkpoint before it; where `gc` has
    removed that, with an earlier one, and the epochs between are compared too.

    Raises InputError for a run that was not named by its config's path, or of which nothing is
    stored as its config, code and data are now; NotFound where no checkpoint is left;
    TrainingFailed where the user's code raises, CorruptObject.
    """
    config = own_config(run, WHAT)
    seldom = config.checkpoint.model_copy(update={"every_seconds": NEVER_S, "every_updates": None})
    here = config.model_copy(update={"store": run.store.url, "checkpoint": seldom})
    with _folder_of_its_own() as folder:
        session = open_session(here, open_unchanged(here.store, folder=folder), reporter=reporter)
        try:
            return _Auditing(session, run.plan.reference).epochs(share, seed)
        finally:
            session.trainer.close()
            session.interruption.close()


def chosen(stages: Sequence[Stage], *, share: float, seed: int) -> list[Stage]:
    """So many of the stages, by a hash of their keys: others with another seed."""
    count = max(1, math.ceil(share * len(stages) - 1e-9))
    ranked = sorted(stages, key=lambda stage: digest("audit", [seed, stage.known_key]))
    return sorted(ranked[:count], key=lambda stage: stage.number)


class _Auditing:
    """Stages computed again, one after the other, and what of them differs."""

    def __init__(self, session: Session, reference: str) -> None:
        self._session, self._reference = session, reference
        self._same: dict[int, bool] = {}
        self._differ: list[Different] = []
        self._intact: dict[str, bool] = {}

    def epochs(self, share: float, seed: int) -> Audit:
        """Computes the share again."""
        began = time.monotonic()
        view = self._session.run
        stored = [stage for stage, _ in view.of_kind(TRAIN)]
        if not stored:
            raise InputError(
                f"{self._reference}: no epoch is in {self._session.store.url} as config, code and "
                "data are now; what is computed again is what they say now (`epochal plan` says "
                "what has changed)"
            )
        asked = chosen(stored, share=share, seed=seed)
        other = environment_differences(
            [view.record_of(stage).environment for stage in asked], self._session.environment
        )
        if other:
            self._session.reporter.notice(
                f"this machine is not as that of the run was: {'; '.join(other)}"
            )
        unchecked = [
            stage.number
            for stage in asked
            if stage.number not in self._same and not self._epoch(stage.number)
        ]
        return Audit(
            epochs=tuple(self._same),
            of=len(stored),
            differ=tuple(self._differ),
            unchecked=tuple(unchecked),
            other_environment=tuple(other),
            seconds=time.monotonic() - began,
            **self._goodput(),
        )

    def _goodput(self) -> dict[str, Any]:
        """The share of the run's time that was audited, and what is lost."""
        view = self._session.run
        goodput = run_goodput(view, self._session.stage_store)
        spent = {} if goodput is None else goodput.epochs
        whole = 0.0 if goodput is None else goodput.whole.wall_seconds
        known = [spent[epoch].wall_seconds for epoch in self._same if epoch in spent]
        share = math.fsum(known) / whole if known and whole > 0 else None
        first = [
            one.stage.number + (one.stage.kind != TRAIN)  # a table is what the next one begins with
            for one in self._differ
            if one.stage.epoch is not None and one.stage.kind in BEGUN_WITH and not one.damaged
        ]
        after = [
            stage.number for stage, _ in view.of_kind(TRAIN) if first and stage.number >= min(first)
        ]
        if not after:
            return {"share": share, "lost": None}
        seconds = [spent[epoch].wall_seconds for epoch in after if epoch in spent]
        lost = Lost(min(after), len(after), math.fsum(seconds) if seconds else None)
        return {"share": share, "lost": lost}

    def _epoch(self, number: int) -> bool:
        """Computes an epoch again, from the nearest checkpoint on; False where it cannot be."""
        session = self._session
        before, first = nearest_checkpoint(
            session.run, session.stage_store, number, reference=self._reference
        )
        live = [epoch for epoch in range(first, number) if self._holds(epoch)]
        first = live[-1] + 1 if live else first
        for epoch in range(first, number + 1):
            held = bool(live) or epoch > first
            if not self._can_begin(session.run.stage(TRAIN, epoch), held=held):
                return False
        if first < number:
            session.reporter.notice(
                f"epoch {number} begins with {before.label}: checkpoints between were removed by "
                "`epochal gc`; the epochs between are computed again too"
            )
        for epoch in range(first, number + 1):
            self._same[epoch] = self._compare(epoch)
            if not self._same[epoch] and epoch < number:
                return False
        return True

    def _can_begin(self, stage: Stage, *, held: bool = False) -> bool:
        """Whether all is stored that it begins with, as it was written; says it where not.

        held: the trainer has by then what it goes on from, whether that is stored or not.
        """
        run, notice = self._session.run, self._session.reporter.notice
        for role, parent in stage.parents.items():
            if not run.is_done(parent):
                notice(
                    f"{stage.label} is not checked: {parent.label}, with which it begins, is not "
                    "in the store, or was damaged; `epochal train` computes it again"
                )
                return False
            if not (held and role == "parent") and not self._is_intact(parent):
                notice(f"{stage.label} is not checked: it begins with what is damaged")
                return False
        return True

    def _is_intact(self, stage: Stage) -> bool:
        """Whether what is stored of a stage is what was written; damage is told once."""
        if (known := self._intact.get(stage.known_key)) is not None:
            return known
        what = tuple(_damage(self._session, stage))
        if what:
            self._differ.append(Different(stage, what, damaged=True))
            self._session.reporter.notice(f"{stage.label} is damaged: {'; '.join(what)}")
        self._intact[stage.known_key] = not what
        return not what

    def _holds(self, epoch: int) -> bool:
        """Whether the trainer holds what that epoch left, computed here and found the same."""
        key = self._session.run.stage(TRAIN, epoch).known_key
        return self._same.get(epoch, False) and self._session.live_key == key

    def _compare(self, epoch: int) -> bool:
        """Computes every stage of the epoch that is stored; True where training came out alike."""
        stored, alike = self._session, True
        with _aside(stored) as aside:
            for stage in stored.run.stages:
                if stage.epoch != epoch or not stored.run.is_done(stage):
                    continue
                if stage.kind != TRAIN and not self._can_begin(stage):
                    continue
                before, now = stored.run.record_of(stage), _computed(aside, stage)
                if not (what := _different(before, now)):
                    self._is_intact(stage)
                    continue
                parts = _parts(stored, before, aside, now) if self._is_intact(stage) else ()
                self._differ.append(Different(stage, what, parts))
                stored.reporter.notice(f"{stage.label} differs: {'; '.join(what)}")
                if stage.kind == TRAIN:
                    alike, aside.live_key = False, None
                    if stored.stage_store.lookup([stage.known_key])[stage.known_key].pruned:
                        break  # the others begin with what is nowhere any more
            stored.live_key = aside.live_key
        return alike


def _computed(session: Session, stage: Stage) -> StageRecord:
    session.reporter.started(stage)
    began = time.monotonic()
    with session.interruption.noted():
        record = compute(session, stage)
    seconds = time.monotonic() - began
    session.reporter.ended(Outcome(stage, record, cached=False, resumed_at=None, seconds=seconds))
    return record


def _different(stored: StageRecord, record: StageRecord) -> tuple[str, ...]:
    """What is not as stored, but for the environment."""
    same = replace(
        record, environment=stored.environment, environment_digest=stored.environment_digest
    )
    return tuple(differences(stored, same))


def _damage(session: Session, stage: Stage) -> Iterator[str]:
    """What of a stage's artifacts is not what was written; what `gc` has removed is no damage."""
    record, stages = session.run.record_of(stage), session.stage_store
    pruned = stages.lookup([record.key])[record.key].pruned
    for name in sorted(record.artifacts.keys() - {*pruned}):
        try:
            with stages.fetch_artifact(record, name):
                pass
        except FileNotFoundError:
            yield f"artifact {name}: it is not there"
        except CorruptObject:
            yield f"artifact {name}: what is stored is not what was written"


def _parts(
    stored: Session, before: StageRecord, aside: Session, now: StageRecord
) -> tuple[DifferentPart, ...]:
    """What is other in the artifacts of one stage that differ."""
    parts: list[DifferentPart] = []
    for name in sorted(before.artifacts.keys() & now.artifacts.keys()):
        if before.artifacts[name] == now.artifacts[name]:
            continue
        if stored.store.size(stored.stage_store.artifact_path(before, name)) is None:
            continue  # `epochal gc` has removed it
        with (
            stored.stage_store.fetch_artifact(before, name) as old,
            aside.stage_store.fetch_artifact(now, name) as new,
        ):
            parts += parts_that_differ(name, old, new)
    return tuple(parts)


@contextmanager
def _folder_of_its_own() -> Iterator[Path]:
    # A trainer that was told to end may still be writing.
    with tempfile.TemporaryDirectory(prefix="epochal-audit-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextmanager
def _aside(session: Session) -> Iterator[Session]:
    """The session with a store for what is computed that ends with the block."""
    with _folder_of_its_own() as folder:
        store = open_store(f"file://{folder}")
        yield replace(
            session,
            store=store,
            stage_store=_Aside(StageStore(store), session.stage_store),
            signs=None,
        )


class _Aside(StageStore):
    """Takes what is computed, and reads of the stored stages what is still there."""

    def __init__(self, aside: StageStore, stored: StageStore) -> None:
        super().__init__(aside.store)
        self._stored = stored

    def read_artifact(
        self, record: StageRecord, name: str, *, max_bytes: int = MAX_READ_BYTES
    ) -> bytes:
        """Of what was computed here, else of the store."""
        if self._has(record, name):
            return super().read_artifact(record, name, max_bytes=max_bytes)
        return self._stored.read_artifact(record, name, max_bytes=max_bytes)

    @contextmanager
    def fetch_artifact(self, record: StageRecord, name: str) -> Iterator[Path]:
        """Likewise."""
        here = self._has(record, name)
        fetched = super().fetch_artifact if here else self._stored.fetch_artifact
        with fetched(record, name) as path:
            yield path

    def _has(self, record: StageRecord, name: str) -> bool:
        return self.store.size(self.artifact_path(record, name)) is not None
