"""Faults that the proof must find: what a run leaves after something went wrong is another then.

Some change an unbroken run as well, and are found by its first life; the most do not, and are found
only where a life ends or fails at the right place. Left out is what heals: with commits in another
order, one that is deleted too early, or one that the restore sees to be none of its epoch, work is
done again, and the bytes are the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Hint = Mapping[str, Any]


@dataclass(frozen=True)
class ProofMutant:
    """One fault: in `file`, `old` becomes `new`.

    hint: what finds it soonest. `where` and `kind` of a fault; `processes`: an update is shared by
    so many, and one process gives the bytes to compare with; `beside`: what runs at the same time;
    `by`: `simulated`, in one process and with a model of MLflow; `unbroken`: an unbroken run ends
    in other bytes than that of the source as it is; `proof`: `crash_states`, what a crash may leave
    of the disk is judged, not a life.
    """

    name: str
    file: str
    old: str
    new: str
    hint: Hint = field(default_factory=dict)

    def problem(self, root: Path) -> str | None:
        """Why it cannot be planted in the source below `root`, or None."""
        try:
            count = (root / self.file).read_text().count(self.old)
        except FileNotFoundError:
            return f"{self.file} is not there"
        return None if count == 1 else f"its text occurs {count} times in {self.file}"


def of(file: str, hint: Hint, *faults: tuple[str, str, str]) -> list[ProofMutant]:
    """The mutants of one file that the same hint fits: (name, old text, new text)."""
    return [ProofMutant(name, file, old, new, hint) for name, old, new in faults]


CRASH = {"proof": "crash_states"}
KILL = {"where": "store", "kind": "kill"}
FLIP = {"where": "store", "kind": "flip"}
UNBROKEN = {"unbroken": True}
SHARED = {"processes": 2}
SIMULATED = {"by": "simulated"}

STORE = (
    *of(
        "data/store/local.py",
        CRASH,
        ("a-file-is-not-synced", "            disk().sync(temporary)\n", ""),
        ("a-file-handed-over-is-not-synced", "            disk().sync(source)\n", ""),
        (
            "a-new-name-is-not-synced",
            "            raise\n        disk().sync(target.parent)\n",
            "            raise\n",
        ),
        ("a-new-folder-is-not-synced", "            disk().sync(directory.parent)\n", ""),
        (
            "a-deletion-is-not-synced",
            "            return\n        disk().sync(target.parent)\n",
            "            return\n",
        ),
        (
            "an-object-is-written-in-its-place",
            "            disk().link(source, target)\n",
            "            (disk().link if target.exists() else disk().copy)(source, target)\n",
        ),
    ),
    *of(
        "data/store/local_disk.py",
        CRASH,
        (
            "a-folder-without-a-lock-stays",
            "os.path.lexists(parent / (folder.name + _SUFFIX))",
            "True",
        ),
    ),
    *of(
        "data/store/local_disk.py",
        {"beside": "second"},
        (
            "a-folder-in-use-is-swept",
            "fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)\n            if folder is",
            "if folder is",
        ),
    ),
    *of(
        "data/store/store.py",
        FLIP,
        ("a-files-digest-is-not-compared", "if actual == expected:", "if actual or expected:"),
    ),
    *of(
        "data/stage_store/mid_epoch.py",
        FLIP,
        (
            "a-commits-checksum-is-not-compared",
            "digest=file_checksum, expected=checksum",
            "digest=lambda _: checksum, expected=checksum",
        ),
    ),
    *of(
        "data/documents.py",
        FLIP,
        ("a-documents-digest-is-not-compared", "    if expected != data:\n", "    if False:\n"),
    ),
)

COMMIT = (
    *of(
        "tasks/stages/commit.py",
        CRASH,
        (
            "a-record-before-its-last-artifact",
            '        artifacts[name] = store.put_artifact(key, "json", dump_document(body))\n',
            """        from epochal.data.hashing import bytes_sha256

        data = dump_document(body)
        sha256, commit = bytes_sha256(data), store.commit
        artifacts[name] = Artifact(f"{sha256}.json", sha256, len(data))

        def late(record, commit=commit, data=data):
            vars(store).pop("commit", None)
            done = commit(record)
            store.put_artifact(key, "json", data)
            return done

        store.commit = late
""",
        ),
    ),
    *of(
        "tasks/upkeep.py",
        CRASH,
        (
            "deleted-before-it-is-noted",
            "        if StageStore(store).put_side_file(key, PRUNED, body) != body:\n",
            """        for name in files:
            store.delete(f"{stage_folder(key)}/{record.artifacts[name].file}")
        if StageStore(store).put_side_file(key, PRUNED, body) != body:
""",
        ),
    ),
    *of(
        "data/stage_store/stages.py",
        {"where": "store", "kind": "lost_answer"},
        (
            "an-equal-record-is-another",
            "        if dump_record(standing) == dump_record(record):\n",
            "        if standing is record:\n",
        ),
        (
            "what-a-lost-answer-has-written-is-an-error",
            "            except FileExistsError:\n                if self._problem(path, artifact)",
            "            except KeyError:\n                if self._problem(path, artifact)",
        ),
    ),
    *of(
        "tasks/upkeep.py",
        UNBROKEN,
        (
            "the-newest-checkpoints-are-not-kept",
            "    kept = set(trained[-checkpoint.keep_last :])\n",
            "    kept = set[int]()\n",
        ),
    ),
    *of(
        "tasks/checkpoints/mid_epoch_codec.py",
        KILL,
        (
            "a-commit-without-gradients",
            "        _GRADIENT: gradients,\n",
            "        _GRADIENT: {},\n",
        ),
        (
            "a-partial-loss-is-rounded",
            "[[value.hex(), kind] for value, kind in loss]",
            "[[round(value, 3).hex(), kind] for value, kind in loss]",
        ),
    ),
    *of(
        "tasks/computing/saver.py",
        {**SHARED, **KILL},
        (
            "a-commit-inside-a-shared-update",
            "        return progress.between_updates or not self._whole_updates\n",
            "        return True\n",
        ),
    ),
)

RESTORE = (
    *of(
        "engine/checkpoint/serialize.py",
        KILL,
        (
            "moments-are-not-restored",
            "    for name, values in decoded.items():\n        if name.startswith",
            "    for name, values in dict[str, Any]().items():\n        if name.startswith",
        ),
        (
            "the-average-is-not-restored",
            "        load_average(state.ema, parts.ema)\n    document",
            "        pass\n    document",
        ),
        (
            "counts-of-updates-are-not-restored",
            "    state.updates_done, state.updates_skipped = updates_done, updates_skipped\n",
            "    del updates_done, updates_skipped\n",
        ),
    ),
    *of(
        "engine/loop/epoch.py",
        KILL,
        (
            "gradients-are-not-put-back",
            "        named[name].grad = gradient.to(named[name].device, copy=True)\n",
            "        pass\n",
        ),
        (
            "observations-are-not-restored",
            "        observer.restore(resume.observations)\n",
            "        pass\n",
        ),
        (
            "validations-are-not-restored",
            "    progress.validations = validations_of(resume.metrics)\n",
            "    progress.validations = {}\n",
        ),
        (
            "a-partial-loss-is-not-restored",
            "partial_loss=resume.partial_loss, device",
            "partial_loss=None, device",
        ),
        (
            "the-phase-of-the-rate-is-lost",
            "    progress.micro_steps, progress.updates = resume.micro_steps, resume.updates\n",
            "    progress.micro_steps = resume.micro_steps\n",
        ),
        (
            "one-update-more-was-done",
            "= resume.micro_steps, resume.updates\n",
            "= resume.micro_steps, resume.updates + 1\n",
        ),
        (
            "rows-are-counted-from-the-resume-on",
            '    progress.rows = len(resume.observations["sample_id"])\n',
            "    progress.rows = 0\n",
        ),
        (
            "generators-are-seeded-once",
            "            if batch.num_samples:\n                reseed",
            "            if batch.num_samples and not progress.own_rows:\n                reseed",
        ),
        (
            "a-step-is-seeded-by-what-this-process-did",
            '"step", epoch, batch.index)',
            '"step", epoch, progress.own_rows)',
        ),
    ),
    *of(
        "tasks/stages/train.py",
        KILL,
        (
            "one-micro-step-too-many-is-skipped",
            "    start = 0 if resume is None else resume.micro_steps\n",
            "    start = 0 if resume is None else resume.micro_steps + 1\n",
        ),
        (
            "one-micro-step-is-done-twice",
            "    start = 0 if resume is None else resume.micro_steps\n",
            "    start = 0 if resume is None else resume.micro_steps - 1\n",
        ),
        ("batches-from-the-first-on", "        start=start,\n", "        start=0,\n"),
        (
            "the-average-is-copied-by-who-was-there",
            "    begin_epoch(work.config, state, order.epoch)\n",
            "    if order.live:\n        begin_epoch(work.config, state, order.epoch)\n",
        ),
    ),
    *of(
        "tasks/stages/commit.py",
        KILL,
        (
            "an-epoch-begins-with-the-weights-alone",
            '    if "optimizer" in record.artifacts:\n',
            '    if "optimizer" in record.artifacts and not order.number:\n',
        ),
    ),
)

DELIVERY = (
    *of(
        "tasks/tracking/points.py",
        {"where": "store", "kind": "kill", "points": True},
        (
            "a-part-is-one-update-early",
            "np.arange(1, updates + 1, dtype=np.int64) + part.updates_before",
            "np.arange(updates, dtype=np.int64) + part.updates_before",
        ),
        (
            "steps-of-a-part-begin-anew",
            "np.arange(1, updates + 1, dtype=np.int64) + part.updates_before",
            "np.arange(1, updates + 1, dtype=np.int64)",
        ),
    ),
    *of(
        "tasks/stages/train.py",
        {"where": "store", "kind": "kill", "points": True},
        (
            "updates-before-a-resume-count-twice",
            "state.updates_tried - (0 if resume is None else resume.updates)",
            "state.updates_tried",
        ),
    ),
    *of(
        "tasks/tracking/exporter.py",
        {**SIMULATED, "where": "tracker", "kind": "unavailable"},
        (
            "a-failed-delivery-is-taken-as-done",
            """        with tracker_lock():
            self._run.refresh()
            rows = [
""",
            """        with suppress(Exception), tracker_lock():
            self._run.refresh()
            rows = [
""",
        ),
    ),
    *of(
        "tasks/tracking/exporter.py",
        {**SIMULATED, "where": "tracker", "kind": "kill"},
        (
            "marked-before-it-is-delivered",
            "        with tracker_lock():\n            self._run.refresh()\n            rows = [\n",
            """        for record, _ in waiting:
            path = f"{self._folder}/{self._markers(record)[-1]}"
            with suppress(FileExistsError):
                self._stages.store.put_new(path, dump_document({}))
        with tracker_lock():
            self._run.refresh()
            rows = [
""",
        ),
    ),
    *of(
        "tasks/tracking/connection.py",
        {**SIMULATED, "where": "process", "kind": "kill"},
        (
            "each-life-has-a-run-of-its-own",
            "    return min(fitting, key=lambda run: (run.info.start_time, run.info.run_id), ",
            "    return None and min(fitting, key=lambda run: (0, ''), ",
        ),
    ),
)

ORDER = (
    *of(
        "data/loading/order.py",
        UNBROKEN,
        (
            "the-order-is-that-of-every-epoch",
            '"order", seed, epoch, rows_K=rows_K)',
            '"order", seed, rows_K=rows_K)',
        ),
        (
            "the-order-is-that-of-every-seed",
            '"order", seed, epoch, rows_K=rows_K)',
            '"order", epoch, rows_K=rows_K)',
        ),
        (
            "a-window-ends-one-too-late",
            "last=micro_step == end - 1,\n            position",
            "last=micro_step == min(end, self.num_micro_steps - 1),\n            position",
        ),
        (
            "a-window-counts-its-first-twice",
            "            num_samples=self._offsets[end] - self._offsets[first],\n",
            "            num_samples=self._offsets[end] - self._offsets[max(first - 1, 0)],\n",
        ),
    ),
    *of(
        "engine/loop/epoch.py",
        UNBROKEN,
        ("every-epoch-draws-alike", '"step", epoch, batch.index)', '"step", batch.index)'),
        (
            "the-rate-is-half-an-update-late",
            "(progress.updates + 0.5) / updates_per_epoch",
            "(progress.updates + 1.0) / updates_per_epoch",
        ),
    ),
    *of(
        "engine/loop/mixing.py",
        UNBROKEN,
        ("every-epoch-mixes-alike", '"mixing", seed, epoch, use)', '"mixing", seed, use)'),
    ),
    *of(
        "engine/model/ema.py",
        UNBROKEN,
        ("the-average-takes-too-much", "1.0 - self.decay(updates_done))", "1.0 - self.decay(0))"),
    ),
)

RANKS = (
    *of(
        "engine/shards/group.py",
        {"processes": 3},
        (
            "a-subtree-counts-as-one-leaf",
            "tree.add([numbers], leaves=node.leaves)",
            "tree.add([numbers])",
        ),
    ),
    *of(
        "engine/shards/group.py",
        SHARED,
        (
            "the-own-part-counts-twice",
            "            own.copy_(total)\n",
            "            own.add_(total)\n",
        ),
    ),
    *of(
        "engine/loop/shared_update.py",
        SHARED,
        (
            "batches-in-the-order-of-arrival",
            "in_order([_of_process(*one) for one in given])",
            "in_order([_of_process(*one) for one in given[::-1]])",
        ),
        (
            "statistics-of-the-first-batch-alone",
            "take_all([left.statistics for left in in_order])",
            "take_all([left.statistics for left in in_order[:1]])",
        ),
        (
            "one-loss-is-forgotten",
            "        for left in in_order:\n            recorder",
            "        for left in in_order[: max(1, len(in_order) - 1)]:\n            recorder",
        ),
    ),
    *of(
        "engine/loop/progress.py",
        SHARED,
        (
            "observations-of-the-others-are-lost",
            "        self.check_finite()\n        if self.group is not None:\n",
            "        self.check_finite()\n        if False:\n",
        ),
        (
            "rows-of-the-others-are-not-counted",
            "            self.rows += window.num_samples\n",
            "            self.rows += batch.num_samples\n",
        ),
    ),
    *of(
        "engine/loop/progress.py",
        {**SHARED, **KILL},
        (
            "a-shared-window-is-one-micro-step",
            "            self.micro_steps += window.count\n",
            "            self.micro_steps += 1\n",
        ),
    ),
    *of(
        "engine/loop/epoch.py",
        {**SHARED, **KILL},
        (
            "what-was-observed-is-lost-to-several",
            "    if group is None or group.first:\n        observer",
            "    if group is None:\n        observer",
        ),
    ),
)

PROOF_MUTANTS: tuple[ProofMutant, ...] = (
    *STORE,
    *COMMIT,
    *RESTORE,
    *DELIVERY,
    *ORDER,
    *RANKS,
)
