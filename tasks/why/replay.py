"""An update computed again, bit for bit: from the nearest checkpoint before it, up to it.

In this process, with nothing written: the loss, norms and rate of every update on the way, and what
was observed of every sample, are compared with the stored tables.
"""

from __future__ import annotations

from bdb import BdbQuit
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from epochal.data.errors import InputError, TrainingFailed
from epochal.data.tables.schemas import OBSERVATIONS
from epochal.data.types import Target
from epochal.tasks.checkpoints.end_of_epoch import load_checkpoint, load_model
from epochal.tasks.checkpoints.nearest import nearest_checkpoint
from epochal.tasks.computing.work import Work
from epochal.tasks.config.run import RunConfig
from epochal.tasks.launch.failures import users_cause
from epochal.tasks.planning.plateau import factor_of
from epochal.tasks.planning.run_length import with_epochs
from epochal.tasks.planning.run_view import differences
from epochal.tasks.planning.stage import Stage
from epochal.tasks.run_data.run_data import found_data, own_config
from epochal.tasks.runs.find_run import FoundRun
from epochal.tasks.stages.training_epoch import (
    begin_epoch,
    epoch_batches,
    epoch_plan,
    epoch_recipe,
    updates_for_rate,
)
from epochal.tasks.stages.validate import mid_epoch_validation
from epochal.tasks.why.batch import plan_of
from epochal.tasks.why.opened import Hook, OpenedUpdate
from epochal.tasks.why.updates import (
    EpochAtWork,
    TrainedEpoch,
    epoch_of,
    known_epochs,
    read_updates,
    trained_epochs,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from epochal.engine.loop.progress import Progress

# U updates of an epoch so far, N its samples so far, Q of them by id

WHAT = "what is computed again comes out of model and data, and these are"
MAX_NAMED = 3  # metrics that are named of an update that came out otherwise


@dataclass(frozen=True)
class Replay:
    """What came of it.

    updates: computed again and compared. epochs: that they are of. differs: what is not as stored,
    a sentence each; empty where all bytes agree. other_environment: what of this machine is not as
    it was, `torch: 2.6 → 2.7`.
    """

    updates: int
    epochs: int
    differs: tuple[str, ...]
    other_environment: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether every number that was computed again has the bits of the stored one."""
        return not self.differs

    def as_object(self) -> dict[str, Any]:
        """What `--json` has of it."""
        return {
            "replayed": self.agrees,
            "replay": {
                "updates": self.updates,
                "epochs": self.epochs,
                "differs": list(self.differs),
                "environment": list(self.other_environment),
            },
        }


def hook_of(config: RunConfig, name: str) -> Hook:
    """The function `module:function`, looked for beside the config first. Raises TargetError."""
    from pydantic import ValidationError

    from epochal.tasks.user_code.targets import resolve_target

    try:
        target = Target(target=name)
    except ValidationError as error:
        raise InputError(
            f"--hook {name}: expected module:function, for example look:look for the function "
            "`look` of look.py beside the config"
        ) from error
    return resolve_target(target, field="--hook", folder=Path(config.folder))


def check_replay(run: FoundRun, *, hook: Hook | str | None, update: int | None = None) -> None:
    """What must be so for a replay, before any table is read. Raises InputError, TargetError.

    update: that is asked for, if it is known already.
    """
    config = own_config(run, WHAT)
    if update is not None and not any(_has(one, update) for one in trained_epochs(run)):
        known = known_epochs(run)
        if isinstance(epoch_of(run, known, update), EpochAtWork):
            raise _not_done(update)
    if isinstance(hook, str):
        hook_of(config, hook)


def _has(epoch: TrainedEpoch, update: int) -> bool:
    return epoch.first <= update <= epoch.last


def _not_done(update: int) -> InputError:
    return InputError(
        f"--replay: update {update} is of an epoch that is not done, and what it is compared with "
        "is stored at its end; ask again then"
    )


def replay(
    run: FoundRun,
    update: int,
    *,
    hook: Hook | str | None = None,
    debug: bool = False,
    notice: Callable[[str], None],
    on_update: Callable[[int, int], None] = lambda *_: None,
) -> Replay:
    """Computes the update again, from the nearest checkpoint before it.

    update: of the run, from 1; one that it has. hook: a function, or `module:function`, called
    after the forward pass of each of its micro-batches. debug: stops in Python's debugger before
    its step. on_update: told how many updates of how many are done.

    Raises InputError for a run that was not named by its config's path, NotFound where no
    checkpoint is left, TrainingFailed where the user's code raises, CorruptObject.
    """
    from epochal.engine.environment import numerics_environment

    config = own_config(run, WHAT)
    epochs = {one.epoch: one for one in trained_epochs(run)}
    target = next((one for one in epochs.values() if _has(one, update)), None)
    if target is None:
        raise _not_done(update)
    parent, first = nearest_checkpoint(
        run, run.stage_store, target.epoch, reference=run.plan.reference
    )
    if first < target.epoch:
        gone = (
            f"epoch {first}"
            if first == target.epoch - 1
            else f"epochs {first} to {target.epoch - 1}"
        )
        notice(
            f"checkpoints of {gone} are not in the store any more (`epochal gc` removes them, as "
            f"`checkpoint:` says): epoch {first} and those after it are computed again"
        )
    work = _work(run, config, target, notice)
    called = hook_of(work.config, hook) if isinstance(hook, str) else hook
    environment = numerics_environment(work.device)
    other = differences([run.record_of(parent).environment, target.record.environment], environment)
    if other:
        notice(f"this machine is not as that of the run was: {'; '.join(other)}")
    replaying = _Replaying(run, work, update, on_update)
    replaying.load(parent)
    for epoch in range(first, target.epoch):
        replaying.epoch(epochs[epoch], None)
    opened = OpenedUpdate(
        epoch=target.epoch,
        update=update,
        row=update - target.first,
        accumulate=work.config.gradients.accumulated(target.epoch),
        state=work.ready_components().state,
        hook=called,
        debug=debug,
    )
    replaying.epoch(target, opened)
    return Replay(
        updates=update - epochs[first].first + 1,
        epochs=target.epoch - first + 1,
        differs=tuple(replaying.differs),
        other_environment=tuple(other),
    )


def _work(
    run: FoundRun, config: RunConfig, target: TrainedEpoch, notice: Callable[[str], None]
) -> Work:
    """The run in this process, as a trainer has it in hand."""
    import torch

    from epochal.tasks.user_code.components import prepare_numerics

    device = prepare_numerics(config)
    threads = target.record.environment.get("threads")
    if config.threads is None and isinstance(threads, int) and threads > 0:
        torch.set_num_threads(threads)  # sums are split by them, and so round by them
    names = ["train_data"]
    if config.validation.every_updates is not None:
        names.append("validation_data")
    data = {
        name: found_data(
            run,
            name,  # type: ignore[arg-type]  # both are fields of data
            config=config,
            notice=notice,
            changed="it is computed again on what it is now",
        )
        for name in names
    }
    count = data["train_data"].info.num_samples
    return Work(with_epochs(config, num_samples=count), _NobodyElse(notice), device, data=data)


class _ReachedError(Exception):
    """The update is done; the rest of its epoch is not computed."""


class _Replaying:
    """Epochs computed again, one after the other, and what of them differs."""

    def __init__(
        self, run: FoundRun, work: Work, update: int, on_update: Callable[[int, int], None]
    ) -> None:
        self._run, self._work, self._update = run, work, update
        self._on_update = on_update
        self._first: int | None = None
        self.differs: list[str] = []

    def load(self, parent: Stage) -> None:
        """Brings the live state to that stage's checkpoint."""
        from epochal.engine.model.state import fresh_optimizer

        components, record = self._work.ready_components(), self._run.record_of(parent)
        stages = self._run.stage_store
        if "optimizer" in record.artifacts:
            load_checkpoint(stages, record, components)
        else:
            load_model(stages, record, components)
            fresh_optimizer(components.state)

    def epoch(self, trained: TrainedEpoch, opened: OpenedUpdate | None) -> None:
        """Trains an epoch from the live state on: all of it, or up to the update that is opened."""
        from epochal.data.loading.readers import Readers
        from epochal.engine.loop.epoch import train_epoch

        work, run, number = self._work, self._run, trained.epoch
        self._first = trained.first if self._first is None else self._first
        config, state = work.config, work.ready_components().state
        begin_epoch(config, state, number)
        table = plan_of(run, number)
        data = work.data["train_data"]
        plan = epoch_plan(config, data, epoch=number, table=table)
        loader = config.loader
        workers = 0 if loader.workers == "auto" or (opened and opened.debug) else loader.workers
        batches = epoch_batches(
            work, plan, table, epoch=number, start=0,
            readers=Readers(workers, loader.threads, loader.prefetch),
        )  # fmt: skip
        recipe = epoch_recipe(
            work,
            lowered=factor_of(run, number, num_samples=data.info.num_samples),
            validation=mid_epoch_validation(config.validation, work, _no_commit, epoch=number),
        )
        if opened is not None:
            batches = opened.noted(batches)
            recipe = replace(recipe, step=opened.step(recipe.step))
        until = trained.count if opened is None else opened.row + 1
        seen: list[Progress] = []

        def on_progress(progress: Progress) -> None:
            if not progress.between_updates:
                return
            done = trained.first + progress.updates - (self._first or 1)
            self._on_update(done, self._update - (self._first or 1) + 1)
            if progress.updates == until:
                progress.gather()
                seen.append(progress)
                if opened is not None:
                    raise _ReachedError

        try:
            with closing(batches):
                train_epoch(
                    state,
                    batches,
                    recipe,
                    epoch=number,
                    num_updates=plan.num_updates,
                    updates_per_epoch=updates_for_rate(config, data, number),
                    on_progress=on_progress,
                )
        except _ReachedError:
            pass
        except BdbQuit:  # a person has left the debugger
            raise
        except BaseException as error:
            cause = users_cause(error, work.ready_components().modules)
            if cause is None:
                raise
            raise TrainingFailed(f"replay of epoch {number}: {cause}") from error
        self._compare(trained, seen[0], until)

    def _compare(self, trained: TrainedEpoch, progress: Progress, until: int) -> None:
        """Notes what differs from the tables, of the epoch's first `until` updates."""
        found = unequal_updates(read_updates(self._run, trained).columns, progress.columns(), until)
        if found is not None:
            row, names = found
            more = f" and {len(names) - MAX_NAMED} more" * (len(names) > MAX_NAMED)
            self.differs.append(
                f"from update {trained.first + row} on (epoch {trained.epoch}): "
                f"{', '.join(names[:MAX_NAMED])}{more}"
            )
        from epochal.data.tables.writing import read_table

        most = trained.record.values["samples"]
        with self._run.stage_store.fetch_artifact(trained.record, "observations") as path:
            stored = read_table(path, schema=OBSERVATIONS, max_rows=most).columns
        count, first = unequal_samples(stored, progress.observer.columns())
        if count:
            self.differs.append(
                f"what was observed of {count} samples (epoch {trained.epoch}), first of sample "
                f"{first}"
            )


def unequal_updates(
    stored: Mapping[str, npt.NDArray[np.float64]],
    computed: Mapping[str, npt.NDArray[np.float64]],
    until: int,
) -> tuple[int, list[str]] | None:
    """The first update of an epoch, from 0, that has other bits, and its metrics that have.

    stored, computed: metric → float64 of shape (U,). until: so many updates are compared.
    """
    import numpy as np

    unequal: dict[str, npt.NDArray[np.bool_]] = {}
    nothing_U = np.full(until, np.nan)
    for name in {**stored, **computed}:
        one_U, other_U = (columns.get(name, nothing_U)[:until] for columns in (stored, computed))
        # Not by value: 0 and -0 are equal, and two NaN are not.
        same_U = (one_U.view(np.uint64) == other_U.view(np.uint64)) | (
            np.isnan(one_U) & np.isnan(other_U)
        )
        unequal[name] = ~same_U
    bad_U = np.any([*unequal.values()], axis=0)
    if not bad_U.any():
        return None
    row = int(np.argmax(bad_U))
    return row, [name for name, one_U in unequal.items() if one_U[row]]


def unequal_samples(
    stored: Mapping[str, npt.NDArray[Any]], computed: Mapping[str, npt.NDArray[Any]]
) -> tuple[int, int | None]:
    """How many samples that were computed have other observations than stored, and the first.

    computed: in order of training; of a sample that comes again the first time counts.
    """
    import numpy as np

    from epochal.data.tables.writing import first_of_each

    rows = first_of_each(computed["sample_id"])
    own = {name: one_N if rows is None else one_N[rows] for name, one_N in computed.items()}
    ids_Q, known_N = own["sample_id"], stored["sample_id"]
    if not len(ids_Q) or not len(known_N):
        return len(ids_Q), int(ids_Q[0]) if len(ids_Q) else None
    rows_Q = np.searchsorted(known_N, ids_Q).clip(max=len(known_N) - 1)
    bad_Q = known_N[rows_Q] != ids_Q
    for name, one_Q in own.items():
        if name in stored:
            other_Q = stored[name][rows_Q]
            same_Q = one_Q == other_Q
            if one_Q.dtype.kind == "f":
                same_Q |= np.isnan(one_Q) & np.isnan(other_Q)
            bad_Q |= ~same_Q
    count = int(bad_Q.sum())
    return count, int(ids_Q[np.argmax(bad_Q)]) if count else None


def _no_commit(progress: Progress) -> None:
    """Nothing of a replay is kept."""


class _NobodyElse:
    """The way to an orchestration where there is none: nothing is committed, nobody interrupts."""

    interrupted = stopped = can_commit = False

    def __init__(self, notice: Callable[[str], None]) -> None:
        self.notice = notice

    def alive(self) -> None:
        """Nobody waits for a sign."""

    def __getattr__(self, name: str) -> NoReturn:
        raise AssertionError(f"a replay asks nobody: {name}")
