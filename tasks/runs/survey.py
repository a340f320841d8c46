"""Which stages the store has, told by their records and the sizes of their files.

One listing and one small read for each stage, several at once where the store is far away. Nothing
else is read: whoever loads an artifact finds out whether it is damaged, for `StageStore` gives out
none whose digest is wrong, and then the stage is computed again (`tasks.running.runner`).
`epochal verify` reads everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from epochal.data.stage_store.stages import StageRecord, StageStore
from epochal.data.stage_store.status import STARTED
from epochal.tasks.planning.averaging import AVERAGE, averaged_artifact, averaged_epoch
from epochal.tasks.planning.scoring import SCORE, SCORES, scored_artifacts
from epochal.tasks.planning.stage import Stage
from epochal.tasks.runs.stage_schema import look_up

_LOADED: dict[tuple[str, str], tuple[str, ...]] = {
    ("train", "parent"): ("model", "optimizer", "state", "ema"),
    ("train", "samples"): ("samples",),
    ("validate", "parent"): ("model", "ema"),
    ("validate_average", "parent"): ("model",),
    ("mine", "observations"): ("observations",),
    ("mine", SCORES): (SCORES,),
    ("mine", "samples"): ("samples",),
}
"""(kind, role of the parent) → the parent's artifacts that the stage loads, where it has them."""


def loaded(stage: Stage, role: str, records: Mapping[str, StageRecord]) -> tuple[str, ...]:
    """The artifacts that `stage` loads of its parent in that role, where the parent has them."""
    if stage.kind == SCORE:
        return scored_artifacts(stage)
    if stage.kind != AVERAGE:
        return _LOADED[(stage.kind, role)]
    return (averaged_artifact(stage),) if averaged_epoch(stage, role, records) else ()


def survey(
    stage_store: StageStore, stages: Sequence[Stage], *, notice: Callable[[str], None]
) -> dict[str, StageRecord]:
    """Key → record of each stage that need not be computed, as far as records and sizes tell.

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
    while needed := _pruned_and_needed(stages, records, pruned):
        for key, names in needed.items():
            del records[key]
            notice(
                f"{labels[key]}: `epochal gc` has removed its {', '.join(names)}, which a later "
                "stage needs; it is computed again"
            )
    return records


def _pruned_and_needed(
    stages: Sequence[Stage],
    records: Mapping[str, StageRecord],
    pruned: Mapping[str, frozenset[str]],
) -> dict[str, list[str]]:
    """Key → artifacts that retention has deleted, and a stage that is not done loads."""
    return {
        parent.known_key: names
        for stage in stages
        if stage.known_key not in records
        for role, parent in stage.parents.items()
        if parent.known_key in records
        and (names := sorted(pruned[parent.known_key] & {*loaded(stage, role, records)}))
    }
