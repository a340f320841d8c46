"""Looks after a store: checks every digest; finds what nothing needs, and removes it if asked to.

Nothing that a run could go on from is removed: the last checkpoint of each plan, each whose next
epoch is not done, and those that are averaged. Plans say what is needed: while one of them cannot
be read nothing is removed, and where one was lost (set aside as damaged) no stage is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from epochal.data.errors import BadStore, CorruptObject, StoreUnavailable
from epochal.data.stage_store.stages import StageRecord, StageStatus, StageStore
from epochal.data.stage_store.status import (
    PARTIAL,
    PRUNED,
    STARTED,
    Damage,
    side_path,
    stage_folder,
)
from epochal.data.store.backend import DAMAGED, TEMPORARY, UnfinishedUpload
from epochal.data.store.store import Store
from epochal.tasks.checkpoints.end_of_epoch import CHECKPOINT
from epochal.tasks.goodput.totals import GOODPUT
from epochal.tasks.planning.run_view import RunView
from epochal.tasks.runs.lookup import look_up, records_of
from epochal.tasks.runs.run_plans import (
    RunPlan,
    check_plan,
    plan_numbers,
    read_plans,
    run_names,
)
from epochal.tasks.stages.average import chosen_epochs

_LOST_PLAN = re.compile(rf"{DAMAGED}/runs/[^/]+/plans/")
UPLOAD_QUIET_S = 24 * 3600.0
"""An upload of which no part has come for so long is nobody's: a running one sends all the time."""
_FOLDERS = frozenset({"stages", "runs", "sweeps", "fingerprints", DAMAGED, TEMPORARY})


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` read.

    problems: in words, each naming its object. moved: paths of what was set aside. kept: what could
    not be, with the reason.
    """

    objects: int
    bytes: int
    stages: int
    problems: tuple[str, ...]
    moved: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class Garbage:
    """What nothing needs.

    objects: path → bytes, of folders of stages that no plan has, commits of finished epochs and
    what was set aside. pruned: stage key → artifacts of checkpoints that the runs' `checkpoint:`
    does not keep. problem: why nothing may be removed, or None. lost_plans: damaged plans that were
    set aside; while there is one, stages that no plan has are kept too: they may have been its own.
    uploads: parts on S3 of objects that were never completed; no_uploads: why they could not be
    listed, or None. unread: plans, with the reason, whose stages all stay.
    """

    objects: Mapping[str, int]
    pruned: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    problem: str | None = None
    lost_plans: tuple[str, ...] = ()
    uploads: tuple[UnfinishedUpload, ...] = ()
    no_uploads: str | None = None
    unread: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Bytes of everything that would be removed."""
        checkpoints = sum(size for files in self.pruned.values() for size in files.values())
        parts = sum(upload.bytes for upload in self.uploads)
        return sum(self.objects.values()) + checkpoints + parts


def stage_keys(listing: Iterable[str]) -> list[str]:
    """The keys of the stages among the store's paths, sorted."""
    names = {path.split("/")[1] for path in listing if path.startswith("stages/")}
    return sorted(name for name in names if _is_key(name))


def _is_key(text: str) -> bool:
    try:
        stage_folder(text)
    except BadStore:
        return False
    return True


def verify_store(store: Store, *, set_aside: bool = False) -> VerifyReport:
    """Reads every object of every stage, and every plan.

    set_aside: moves what is damaged to `damaged/`, so that its stages are not done any more; else
    nothing is changed.
    """
    sizes, stage_store = store.listing(), StageStore(store)
    keys = stage_keys(sizes)
    damages = [_no_folder(store, path) for path in sorted(_FOLDERS & sizes.keys())]
    statuses = look_up(stage_store, keys)
    for key, status in statuses.items():
        if status.record is not None:
            damages += stage_store.verify(status.record)
        elif status.problem not in (None, STARTED):
            damages += [Damage(str(status.problem), path) for path in status.damaged or (None,)]
        damages += _damaged_side_files(stage_store, key, sizes)
    if "runs" not in sizes:
        for name in run_names(sizes):
            damages += _damaged_plans(store, name, sizes)
    moved, kept = _moved(store, damages) if set_aside else ((), ())
    return VerifyReport(
        objects=len(sizes),
        bytes=sum(sizes.values()),
        stages=len(records_of(statuses)),
        problems=tuple(dict.fromkeys(damage.problem for damage in damages)),
        moved=moved,
        kept=kept,
    )


def _moved(store: Store, damages: Iterable[Damage]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Sets aside what is damaged: what was moved, and what could not be."""
    moved, kept = [], []
    reasons = {damage.path: damage.problem for damage in damages if damage.path is not None}
    for path, reason in reasons.items():
        try:
            if store.set_aside(path, reason) is not None:  # else it is missing already
                moved.append(path)
        except (StoreUnavailable, CorruptObject, FileNotFoundError) as error:
            kept.append(f"{path}: {error}")
    return tuple(moved), tuple(kept)


def _damaged_side_files(
    stage_store: StageStore, key: str, sizes: Mapping[str, int]
) -> Iterator[Damage]:
    for name in ("times.json", GOODPUT, PRUNED):
        if side_path(key, name) in sizes:
            try:
                stage_store.read_side_file(key, name)
            except CorruptObject as error:
                yield Damage(str(error), side_path(key, name))


def _damaged_plans(store: Store, run: str, sizes: Mapping[str, int]) -> Iterator[Damage]:
    taken = [path for path in (f"runs/{run}", f"runs/{run}/plans") if path in sizes]
    if taken:
        yield _no_folder(store, taken[0])
        return
    for number in sorted(plan_numbers(sizes, run)):
        if (damage := check_plan(store, run, number)) is not None:
            yield damage


def _no_folder(store: Store, path: str) -> Damage:
    return Damage(f"{store.address(path)} is a file or a symbolic link, expected a folder", path)


def find_garbage(store: Store) -> Garbage:
    """Finds what nothing needs. Changes nothing."""
    sizes, stage_store = store.listing(), StageStore(store)
    plans: list[RunPlan] = []
    for name in run_names(sizes):
        try:
            entries = read_plans(store, name)
        except CorruptObject as error:
            return Garbage({}, problem=f"the plans of run {name!r} cannot be read: {error}")
        if len(entries) < len(plan_numbers(sizes, name)):
            return Garbage(
                {}, problem=f"a plan of run {name!r} cannot be read; see `epochal verify`"
            )
        plans += [entry.plan for entry in entries]
    keys = stage_keys(sizes)
    statuses = look_up(stage_store, keys)
    needed = {stage.key for plan in plans for stage in plan.stages}
    lost = tuple(path for path in sorted(sizes) if _LOST_PLAN.match(path))
    objects = {
        path: size
        for path, size in sizes.items()
        if path.startswith(f"{DAMAGED}/") and path not in lost
    }
    for path, size in sizes.items():
        parts = path.split("/")
        if parts[0] != "stages" or len(parts) < len(("stages", "key", "file")):
            continue  # also a link or a file in the place of a folder
        if not _is_key(parts[1]):
            continue
        done = statuses[parts[1]].record is not None
        if (parts[1] not in needed and not lost) or (done and parts[2] == PARTIAL):
            objects[path] = size
    pruned, unread = _prunable(plans, statuses, sizes)
    uploads, no_uploads = _unfinished_uploads(store)
    return Garbage(
        dict(sorted(objects.items())),
        pruned,
        lost_plans=lost,
        uploads=uploads,
        no_uploads=no_uploads,
        unread=unread,
    )


def _unfinished_uploads(store: Store) -> tuple[tuple[UnfinishedUpload, ...], str | None]:
    """The uploads, and why they could not be listed: that takes a permission of its own."""
    try:
        uploads = store.unfinished_uploads(quiet_s=UPLOAD_QUIET_S)
    except StoreUnavailable as error:
        return (), str(error)
    # A store may be a whole bucket, with uploads of others in it.
    return tuple(one for one in uploads if one.path.split("/")[0] in _FOLDERS), None


def _prunable(
    plans: Sequence[RunPlan], statuses: Mapping[str, StageStatus], sizes: Mapping[str, int]
) -> tuple[dict[str, dict[str, int]], tuple[str, ...]]:
    """Checkpoints that no plan keeps: key → artifact → bytes; and plans that say nothing of it."""
    records = records_of(statuses)
    kept: set[str] = set()
    candidates: dict[str, StageRecord] = {}
    unread: list[str] = []
    for plan in plans:
        config = plan.run_config()
        try:
            stages = None if config is None else plan.listed_stages(config)
        except BadStore as error:
            stages = None
            unread.append(str(error))
        if config is None or stages is None:  # all of its stages stay
            kept |= {stage.key for stage in plan.stages}
            continue
        keep = _kept(RunView(config, stages, records))
        for stage in stages:
            record = records.get(stage.key or "")
            if stage.kind == "train" and record is not None and record.stage == "train":
                if stage.epoch in keep:
                    kept.add(record.key)
                else:
                    candidates[record.key] = record
    prunable = {
        key: files
        for key, record in candidates.items()
        if key not in kept
        and (
            files := {
                name: record.artifacts[name].size
                for name in CHECKPOINT
                if name in record.artifacts
                and f"{stage_folder(key)}/{record.artifacts[name].file}" in sizes
            }
        )
    }
    return prunable, tuple(dict.fromkeys(unread))


def _kept(run: RunView) -> set[int]:
    """Epochs whose checkpoints this plan keeps."""
    checkpoint, averaging = run.config.checkpoint, run.config.averaging
    trained = [stage.number for stage, _ in run.of_kind("train")]
    if checkpoint.keep_last is None:
        return set(trained)
    kept = set(trained[-checkpoint.keep_last :])
    ranked = run.validated()[: checkpoint.keep_best]
    if run.config.ema is not None:  # the average's best epochs may be others
        ranked += run.validated(run.metrics_of_ema)[: checkpoint.keep_best]
    kept |= {best.epoch for best in ranked}
    # What a stage that is not done would load; what is averaged now, or would be in a longer run.
    for stage in run.stages:
        if stage.kind == "average":
            kept |= {*chosen_epochs(stage, run.records)}
            if averaging is not None and averaging.last is not None:
                kept |= {*trained[-averaging.last :]}
        parent = stage.parents.get("parent")
        if not run.is_done(stage) and parent is not None and parent.epoch is not None:
            kept.add(parent.epoch)
    return kept


def remove_garbage(store: Store, garbage: Garbage) -> None:
    """Removes `garbage`; of a checkpoint it first notes which files go, then deletes them.

    A stage stays done without its checkpoint, and is computed again only if something needs it.
    Raises BadStore if nothing may be removed.
    """
    if garbage.problem is not None:
        raise BadStore(f"{store.url}: nothing is removed: {garbage.problem}")
    for upload in garbage.uploads:
        store.abort_upload(upload)
    # The record goes first: without it the other files of the folder are no stage. All of them go
    # before a note is written: the disk may be full.
    for path in sorted(garbage.objects, key=lambda name: not name.endswith("/record.json")):
        store.delete(path)
    statuses = StageStore(store).lookup(list(garbage.pruned))
    for key, files in garbage.pruned.items():
        record = statuses[key].record
        if record is None:
            continue
        body = {"artifacts": sorted({*files, *statuses[key].pruned})}
        if StageStore(store).put_side_file(key, PRUNED, body) != body:
            continue  # an older version has pruned other artifacts: leave what is there
        for name in files:
            store.delete(f"{stage_folder(key)}/{record.artifacts[name].file}")
