"""Which stages the store really has: records read, sizes compared, bytes hashed where they matter.

Hashed at each `train`: every table; every artifact that a stage still to be computed will load;
the last epoch's model, for its digest is reported; and checkpoints beside these as long as they
are small (together `SMALL_BYTES`). Larger ones that nobody loads are left to `epochal verify`.
What is damaged is set aside by the store, and its stage is simply not done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from epochal.data.errors import CorruptObject
from epochal.data.stage_store.stages import StageRecord, StageStore
from epochal.data.stage_store.status import STARTED
from epochal.tasks.planning.stage import Stage
from epochal.tasks.runs.stage_schema import look_up
from epochal.tasks.stages.registry import loaded
from epochal.tasks.stages.score import SCORES

SMALL_BYTES = 256 << 20

TABLES = frozenset({"observations", "updates", "samples", SCORES})


def survey(
    stage_store: StageStore, stages: Sequence[Stage], *, notice: Callable[[str], None]
) -> dict[str, StageRecord]:
    """Key → record of each stage whose bytes may be used.

    Raises StoreUnavailable if the store cannot be read.
    """
    labels = {stage.known_key: stage.label for stage in stages}
    records: dict[str, StageRecord] = {}
    pruned: dict[str, frozenset[str]] = {}
    for key, status in look_up(stage_store, labels, stages=stages).items():
        if status.record is not None:
            records[key] = status.record
            pruned[key] = frozenset(status.pruned)
            for path in status.leftovers:
                stage_store.store.delete(path)
        elif status.problem not in (None, STARTED):
            for path in status.damaged:
                stage_store.store.set_aside(path, str(status.problem))
            notice(f"{labels[key]}: {status.problem}; it is computed again")
    checked: set[tuple[str, str]] = set()
    while damaged := _damaged(stage_store, stages, records, pruned, checked):
        for key, problem in damaged.items():
            del records[key]
            notice(f"{labels[key]}: {problem}; it is computed again")
    return records


def _damaged(
    stage_store: StageStore,
    stages: Sequence[Stage],
    records: Mapping[str, StageRecord],
    pruned: Mapping[str, frozenset[str]],
    checked: set[tuple[str, str]],
) -> dict[str, str]:
    """Key → problem of the stages of which an artifact is not what its record says."""
    found: dict[str, str] = {}
    for key, name in _to_hash(stages, records, pruned):
        if (key, name) in checked or key in found:
            continue
        checked.add((key, name))
        try:
            with stage_store.fetch_artifact(records[key], name):
                pass
        except CorruptObject as error:
            found[key] = str(error)
    return found


def _to_hash(
    stages: Sequence[Stage],
    records: Mapping[str, StageRecord],
    pruned: Mapping[str, frozenset[str]],
) -> Iterator[tuple[str, str]]:
    small = SMALL_BYTES
    # Of a run that was stopped early it is the last one that is done.
    done = [stage for stage in stages if stage.kind == "train" and stage.known_key in records]
    last = done[-1] if done else None
    for stage in stages:
        record = records.get(stage.known_key)
        if record is None:
            yield from _parents_artifacts(stage, records)
            continue
        for name, artifact in record.artifacts.items():
            if name in pruned[stage.known_key]:
                continue  # it is not there, and nobody has asked for it
            reported = stage is last and name == "model"
            if name not in TABLES and not reported:
                small -= artifact.size
            if name in TABLES or reported or small >= 0:
                yield stage.known_key, name


def _parents_artifacts(
    stage: Stage, records: Mapping[str, StageRecord]
) -> Iterator[tuple[str, str]]:
    for role, parent in stage.parents.items():
        record = records.get(parent.known_key)
        if record is None:
            continue
        for name in loaded(stage, role, records):
            if name in record.artifacts:
                yield parent.known_key, name
