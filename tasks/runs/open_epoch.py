"""An epoch at work, as far as the store has it: what its commits have recorded so far.

Only looks on: whoever trains may put and delete commits meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from epochal.data.errors import CorruptObject
from epochal.data.stage_store.mid_epoch import MidEpochStore
from epochal.tasks.checkpoints.mid_epoch_codec import Recorded, read_recorded
from epochal.tasks.computing.stage_times import checked_times
from epochal.tasks.planning.run_view import consumed_others
from epochal.tasks.planning.stage import Stage
from epochal.tasks.runs.find_run import FoundRun

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# U updates that are committed, N samples trained on by then

MAX_COMMIT_BYTES = 1 << 30
"""Of the file of a commit, which is read whole and checked: some seconds' work at most."""
TRIES = 4
"""How often commits are listed that are deleted before they are read."""


@dataclass(frozen=True, eq=False)
class OpenEpoch:
    """An epoch that is not done, by its newest commit.

    updates: of it, that are committed. num_updates: of the whole epoch; None where the commit does
    not say. updates_before: of the run, when it began. times: pairs (updates done in the epoch, ms
    since 1970). recorded: their numbers, and the samples'. unread_bytes: of a commit that is too
    large to be read for them.
    """

    epoch: int
    updates: int
    num_updates: int | None
    updates_before: int
    times: Sequence[Sequence[int]]
    recorded: Recorded | None = None
    unread_bytes: int = 0

    @property
    def metrics(self) -> Mapping[str, npt.NDArray[np.float64]]:
        """Name → float64 of shape (U,)."""
        return {} if self.recorded is None else self.recorded.metrics

    @property
    def samples(self) -> int | None:
        """Trained on by the last committed update; None where that is not read."""
        if self.recorded is None:
            return None
        ends_U = self.recorded.ends_U
        return int(ends_U[-1]) if len(ends_U) else 0

    @property
    def text(self) -> str:
        """`epoch 3 is at update 120 of 400`."""
        of = "" if self.num_updates is None else f" of {self.num_updates:,}"
        return f"epoch {self.epoch} is at update {self.updates:,}{of}"


def open_stage(run: FoundRun) -> Stage | None:
    """The first epoch's training that is not done, or None."""
    stages = (stage for stage in run.needed if stage.kind == "train")
    stage = next((stage for stage in stages if not run.is_done(stage)), None)
    return None if stage is None or stage.key is None else stage


def latest_commit(run: FoundRun) -> str | None:
    """What changes with each commit of the epoch at work; None without one. One listing."""
    stage = open_stage(run)
    return None if stage is None else MidEpochStore(run.store, stage.known_key).latest_name()


def open_epoch(run: FoundRun) -> OpenEpoch | None:
    """The epoch at work by its newest commit that is whole; None where there is none.

    Of a stage that was begun in several environments the commit counts that was made last.
    """
    stage = open_stage(run)
    if stage is None:
        return None
    for _ in range(TRIES):
        commits = MidEpochStore(run.store, stage.known_key)
        listed = [one for one in commits.listed() if _fits(run, stage, one.body)]
        if not listed:
            return None
        last = max(listed, key=lambda one: one.body["anchors"][-1][1])
        if last.tensor_bytes > MAX_COMMIT_BYTES:
            return _opened(run, stage, last.body, unread_bytes=last.tensor_bytes)
        found = _read(run, stage, commits, place=last.body.get("environment_digest"))
        if found is not None:
            return found
    return None


def _read(run: FoundRun, stage: Stage, commits: MidEpochStore, *, place: Any) -> OpenEpoch | None:
    """The newest commit of that environment; None where it was deleted before it was read."""

    def fits(body: Mapping[str, Any]) -> bool:
        return body.get("environment_digest") == place and _fits(run, stage, body)

    with commits.newest(fits=fits, notice=lambda _: None) as commit:
        if commit is None:
            return None
        try:
            recorded = read_recorded(commit.tensors)
        except FileNotFoundError:
            return None
        if len(recorded.ends_U) != commit.body["updates"]:
            raise CorruptObject(
                f"{stage.label}: its commit at micro-step {commit.micro_steps} has the numbers of "
                f"{len(recorded.ends_U)} updates, expected {commit.body['updates']}"
            )
        return _opened(run, stage, commit.body, recorded=recorded)


def _fits(run: FoundRun, stage: Stage, body: Mapping[str, Any]) -> bool:
    """Whether it is a commit of this stage, on the checkpoints that the store has now."""
    updates, count, consumed = (body.get(name) for name in ("updates", "num_updates", "consumed"))
    if body.get("key") != stage.known_key or not isinstance(consumed, dict):
        return False
    if consumed_others(stage, consumed, run.records):
        return False
    try:
        checked_times(body.get("anchors"))
    except CorruptObject:
        return False
    return _is_count(updates) and (count is None or _is_count(count))


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _opened(run: FoundRun, stage: Stage, body: Mapping[str, Any], **found: Any) -> OpenEpoch:
    before = run.record("train", stage.number - 1) if stage.number else None
    return OpenEpoch(
        stage.number,
        body["updates"],
        body.get("num_updates"),
        0 if before is None else int(before.values["updates_done"]),
        body["anchors"],
        **found,
    )
