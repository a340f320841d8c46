"""Which samples an update was computed from, in the order of training, and with whom each is mixed.

The order of an epoch is a pure function. Where it is a permutation of the samples that the epoch
observed, it follows from the store alone; an order that goes by the data set (its blocks, lengths,
classes, a mixture) needs that, and so the config that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from epochal.data.errors import InputError
from epochal.data.stage_store.records import StageRecord
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.run_length import with_epochs
from epochal.tasks.run_data.run_data import own_config
from epochal.tasks.runs.find_run import FoundRun
from epochal.tasks.runs.open_epoch import OpenEpoch
from epochal.tasks.why.updates import LOSS, EpochUpdates

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from epochal.data.loading.order import MicroBatchPlan
    from epochal.data.samples.table import SampleTable

# B samples of the update, N of the epoch, U its updates, M its micro-batches

Columns = Mapping[str, "npt.NDArray[Any]"]
TOLERANCE = 1e-2
"""Share by which the mean of an update's samples may miss its loss: other samples miss it by more,
and half precision by less."""


@dataclass(frozen=True, eq=False)
class UpdateSamples:
    """The samples of an update, in the order of training.

    ids_B: as the tables have them. micro_batch_B: of the epoch, from 0. repeats_B: how often each
    came before in the epoch. sizes: micro-batch → height and width of its images, where the config
    varies them. mixed: for each sample whom it is mixed with; None where nothing is mixed.
    """

    ids_B: npt.NDArray[np.int64]
    micro_batch_B: npt.NDArray[np.int64]
    repeats_B: npt.NDArray[np.int64]
    sizes: Mapping[int, tuple[int, int]]
    mixed: list[dict[str, Any] | None] | None


def committed_samples(config: RunConfig, open_: OpenEpoch, *, row: int) -> UpdateSamples:
    """Those of the update `row`, from 0, of the epoch at work: a commit has them in order.

    Where they are cut into micro-batches a commit does not say: known where an update has one, or
    where all have one size; else `micro_batch_B` is -1, and `mixed` None.
    """
    import numpy as np

    assert open_.recorded is not None
    ends_U, ids_N = open_.recorded.ends_U, open_.recorded.observations["sample_id"]
    start, end = (int(ends_U[row - 1]) if row else 0), int(ends_U[row])
    ids_B = ids_N[start:end]
    accumulate = config.gradients.accumulated(open_.epoch)
    largest = int(np.diff(ends_U, prepend=0).max())  # a whole update; the last one may be smaller
    size = largest if accumulate == 1 else largest // accumulate
    known = accumulate == 1 or (largest == size * accumulate and config.loader.batch_tokens is None)
    cuts = range(start, end, size) if known and accumulate > 1 else [start] * (end > start)
    parts = [slice(cut, min(cut + size, end) if accumulate > 1 else end) for cut in cuts]
    repeats_N = _repeats(ids_N[:end])
    mixed: list[dict[str, Any] | None] | None = None
    if known and config.mixing is not None and config.mixing.mixes:
        mixed = []
        for part in parts:
            mixed += _mixed(config, ids_N[part], repeats_N[part], epoch=open_.epoch, size_HW=None)
    numbers_B = np.full(len(ids_B), -1, dtype=np.int64)
    if known:
        lengths = [part.stop - part.start for part in parts]
        numbers_B = np.repeat(np.arange(len(parts)) + row * accumulate, lengths)
    return UpdateSamples(ids_B, numbers_B, repeats_N[start:end], {}, mixed)


def _repeats(ids_N: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How often each sample came before it."""
    import numpy as np

    order_N = np.argsort(ids_N, kind="stable")
    sorted_N = ids_N[order_N]
    is_first_N = np.append(True, sorted_N[1:] != sorted_N[:-1])[: len(ids_N)]
    begin_N = np.maximum.accumulate(np.where(is_first_N, np.arange(len(ids_N)), 0))
    repeats_N = np.empty(len(ids_N), dtype=np.int64)
    repeats_N[order_N] = np.arange(len(ids_N)) - begin_N
    return repeats_N


@dataclass(frozen=True, eq=False)
class EpochOrder:
    """An epoch's micro-batches. ids_N: of the positions that the plan names."""

    plan: MicroBatchPlan
    ids_N: npt.NDArray[np.int64]

    def samples(self, config: RunConfig, *, epoch: int, row: int) -> UpdateSamples:
        """Those of the epoch's update `row`, from 0."""
        import numpy as np

        plan = self.plan
        start = row * plan.accumulate
        steps = range(start, min(start + plan.accumulate, plan.num_micro_steps))
        positions = [plan.slice(step) for step in steps]
        ids = [self.ids_N[rows_B] for rows_B in positions]
        repeats = [plan.repeats(step) for step in steps]
        sizes = {step: size for step in steps if (size := plan.size_HW(step)) is not None}
        mixed: list[dict[str, Any] | None] | None = None
        if config.mixing is not None and config.mixing.mixes:
            mixed = []
            for one, before, step in zip(ids, repeats, steps, strict=True):
                mixed += _mixed(config, one, before, epoch=epoch, size_HW=sizes.get(step))
        return UpdateSamples(
            ids_B=np.concatenate(ids),
            micro_batch_B=np.repeat(np.array(steps), [len(one) for one in ids]),
            repeats_B=np.concatenate(
                [
                    np.zeros(len(one), dtype=np.int64) if before is None else before
                    for one, before in zip(ids, repeats, strict=True)
                ]
            ),
            sizes=sizes,
            mixed=mixed,
        )


def _mixed(
    config: RunConfig,
    ids_B: npt.NDArray[np.int64],
    repeats_B: npt.NDArray[np.int64] | None,
    *,
    epoch: int,
    size_HW: tuple[int, int] | None,
) -> list[dict[str, Any] | None]:
    """Whom each sample of a micro-batch is mixed with, how, and the partner's share.

    The share of a CutMix is an area, and known where the images' size is.
    """
    from epochal.engine.loop.mixing import plan_mixing

    assert config.mixing is not None
    drawn = plan_mixing(
        config.mixing,
        ids_B,
        seed=config.seed,
        epoch=epoch,
        size_HW=size_HW or (1 << 10, 1 << 10),
        repeats_B=repeats_B,
    )
    found: list[dict[str, Any] | None] = []
    for row, partner in enumerate(drawn.partner_B.tolist()):
        cut, share = bool(drawn.cut_B[row]), 1.0 - float(drawn.share_B[row])
        if not cut and not share:
            found.append(None)
            continue
        known = not cut or size_HW is not None
        found.append(
            {
                "sample_id": int(ids_B[partner]),
                "how": "cutmix" if cut else "mixup",
                "share": share if known else None,
            }
        )
    return found


def epoch_order(
    run: FoundRun,
    record: StageRecord,
    observed: Columns,
    updates: EpochUpdates,
    *,
    notice: Callable[[str], None],
) -> EpochOrder:
    """The order in which that epoch was trained, as its tables confirm it.

    record: of its train stage. observed: its observations. Raises InputError where the order goes
    by the data set and the run was not named by its config's path, and what opening it raises.
    """
    epoch = record.epoch
    assert epoch is not None
    table = plan_of(run, epoch)
    because = _by_data_set(run.config, record, observed)
    if because is None:
        found = _of_tables(run, epoch, observed, table)
        if _agrees(found, observed, updates, table):
            return found
        because = "its updates' losses are not those of the samples in an order without it"
    config = own_config(run, f"the order of epoch {epoch} goes by the data set ({because}), and is")
    found = _of_data_set(run, config, epoch, table, notice)
    if not _agrees(found, observed, updates, table):
        notice(
            f"epoch {epoch}: the losses of its updates are not the means of the samples' losses in "
            "the order that this config and its data give: what was trained is not this data any "
            "more, or its loss is another mean; the samples may be others"
        )
    return found


def plan_of(run: FoundRun, epoch: int) -> SampleTable | None:
    """Who was to train in that epoch, and with which weights; None: all, with weight one."""
    from epochal.data.samples.table import read_plan

    parent = run.stage("train", epoch).parents.get("samples")
    if parent is None:
        return None
    record = run.record_of(parent)
    with run.stage_store.fetch_artifact(record, "samples") as path:
        return read_plan(path, max_rows=record.values["samples"])


def _by_data_set(config: RunConfig, record: StageRecord, observed: Columns) -> str | None:
    """Why the order of an epoch does not follow from the samples that it observed, or None."""
    from epochal.data.loading.lazy_order import LAZY_ROWS

    batches, loader = config.batches, config.loader
    asked = {
        "batches.class_balanced": batches.class_balanced,
        "batches.repeats": batches.repeats > 1,
        "batches.by_length": batches.by_length is not None,
        "batches.shuffle: blocks": batches.shuffle == "blocks",
        "loader.batch_tokens": loader.batch_tokens is not None,
        "loader.epoch_samples": loader.epoch_samples is not None,
        "samples come more than once": len(observed["sample_id"]) != record.values["samples"],
        f"more than {LAZY_ROWS:,} samples": record.values["samples"] > LAZY_ROWS,
    }
    return next((name for name, does in asked.items() if does), None)


def _of_tables(
    run: FoundRun, epoch: int, observed: Columns, table: SampleTable | None
) -> EpochOrder:
    """What was observed is what was trained: the order of any samples is that of their hashes."""
    import numpy as np

    from epochal.data.loading.batch_sampler import sampler_order, sampler_plan

    config, ids_N = run.config, observed["sample_id"]
    size = config.loader.batch_size
    if table is not None:
        kept, total = int(table["keep"].sum()), len(table)
        size = config.sampling.batch_size(size, kept=kept, total=total)
    plan = sampler_plan(
        config.batches,
        sampler_order(config.batches, seed=config.seed, epoch=epoch, sample_ids_N=ids_N),
        batch_size=size,
        accumulate=config.gradients.accumulated(epoch),
        drop_last=False,  # what it has dropped was not observed
        seed=config.seed,
        epoch=epoch,
    )
    return EpochOrder(plan, np.asarray(ids_N))


def _of_data_set(
    run: FoundRun,
    config: RunConfig,
    epoch: int,
    table: SampleTable | None,
    notice: Callable[[str], None],
) -> EpochOrder:
    from epochal.tasks.run_data.run_data import found_data
    from epochal.tasks.stages.training_epoch import epoch_plan
    from epochal.tasks.user_code.components import prepare_numerics

    prepare_numerics(config)
    data = found_data(
        run, "train_data", config=config, notice=notice, changed="its order may be another"
    )
    count = data.info.num_samples
    if count != run.plan.num_samples and run.plan.num_samples is not None:
        raise InputError(
            f"train_data: it has {count} samples now, and {run.plan.num_samples} when "
            f"{run.plan.reference} was trained: their order was another; give the data as it was"
        )
    config = with_epochs(config, num_samples=count)
    return EpochOrder(epoch_plan(config, data, epoch=epoch, table=table), data.sample_ids_N)


def _agrees(
    order: EpochOrder, observed: Columns, updates: EpochUpdates, table: SampleTable | None
) -> bool:
    """Whether the losses of the updates are those of the samples that the order gives each.

    True where no sample has a loss of its own, and where samples come again: a table has what an
    epoch saw of a sample first.
    """
    import numpy as np

    plan, count = order.plan, updates.trained.count
    if plan.num_updates != count:
        return False
    if plan.repeats_K is not None:
        return True
    known_N = observed["sample_id"]
    ids_N = order.ids_N[plan.order_K[:]]
    rows_N = np.searchsorted(known_N, ids_N).clip(max=len(known_N) - 1)
    if not np.array_equal(known_N[rows_N], ids_N):
        return False
    loss_N = observed["loss"][rows_N].astype(np.float64)
    if np.isnan(loss_N).all():
        return True
    denominator_N = observed.get("denominator", np.ones(len(known_N)))[rows_N].astype(np.float64)
    weight_N = 1.0 if table is None else table.weight_by_id(ids_N).astype(np.float64)
    # Where nothing of a sample counts its loss is a sum already.
    loss_N = loss_N * np.where(denominator_N == 0, 1.0, denominator_N) * weight_N
    starts_U = plan.offsets_M1[:-1][:: plan.accumulate]
    total_U = np.add.reduceat(denominator_N, starts_U)
    mean_U = np.add.reduceat(loss_N, starts_U) / np.where(total_U == 0, 1.0, total_U)
    told_U = updates.columns[LOSS]
    fits_U = np.isfinite(mean_U) & np.isfinite(told_U)
    scale = float(np.abs(told_U[fits_U]).mean()) if fits_U.any() else 0.0
    off_U = np.abs(mean_U - told_U)[fits_U]
    return bool((off_U <= TOLERANCE * (np.abs(told_U[fits_U]) + scale) + 1e-6).all())
