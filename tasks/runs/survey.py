"""Which stages the store has, told by their records and the sizes of their files.

One listing and one small read for each stage, several at once where the store is far away. Nothing
else is read: whoever loads an artifact finds out whether it is damaged, for `StageStore` gives out
none whose digest is wrong, and then the stage is computed again (`tasks.running.run`).
`epochal verify` reads everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from epochal.data.errors import BadStore, CorruptObject
from epochal.data.stage_store.stages import StageRecord, StageStore
from epochal.data.stage_store.status import STARTED
from epochal.tasks.planning.stage import Stage
from epochal.tasks.runs.lookup import look_up
from epochal.tasks.stages.registry import loaded


def survey(
    stage_store: StageStore, stages: Sequence[Stage], *, notice: Callable[[str], None]
) -> dict[str, StageRecord]:
    """Key → record of each stage that need not be computed, as far as records and sizes tell.

    Raises StoreUnavailable if the store cannot be read, BadStore if a folder that holds stages is
    a symbolic link.
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
                _set_aside(stage_store, path, str(status.problem))
            notice(f"{labels[key]}: {status.problem}; it is computed again")
    while needed := _pruned_and_needed(stages, records, pruned):
        for key, names in needed.items():
            del records[key]
            notice(
                f"{labels[key]}: `epochal gc` has removed its {', '.join(names)}, which a later "
                "stage needs; it is computed again"
            )
    return records


def _set_aside(stage_store: StageStore, path: str, problem: str) -> None:
    try:
        stage_store.store.set_aside(path, problem)
    except CorruptObject as error:
        raise BadStore(
            f"{error}; put a folder in its place: the store itself may be a link, or `store:` may "
            "name the other disk"
        ) from error


def _pruned_and_needed(
    stages: Sequence[Stage],
    records: Mapping[str, StageRecord],
    pruned: Mapping[str, frozenset[str]],
) -> dict[str, list[str]]:
    """Key → artifacts that `gc` has deleted although a stage that is not done loads them."""
    return {
        parent.known_key: names
        for stage in stages
        if stage.known_key not in records
        for role, parent in stage.parents.items()
        if parent.known_key in records
        and (names := sorted(pruned[parent.known_key] & {*loaded(stage, role, records)}))
    }
