"""An epoch of training: its batches, its plan, its recipe, the state before its first update.

For the train stage, and for whoever plans an epoch or computes one of its updates again.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from epochal.tasks.computing.work import Work
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.layout import order_blocks, order_lengths
from epochal.tasks.planning.run_length import rate_function, updates_left, updates_of

if TYPE_CHECKING:
    from epochal.data.inspection.dataset import OpenDataset
    from epochal.data.loading.order import MicroBatchPlan
    from epochal.data.loading.readers import Readers
    from epochal.data.samples.table import SampleTable
    from epochal.data.types import Batch
    from epochal.engine.loop.epoch import Recipe
    from epochal.engine.loop.progress import MidEpochValidation
    from epochal.engine.model.state import TrainingState


def epoch_batches(
    work: Work,
    micro_batches: MicroBatchPlan,
    table: SampleTable | None,
    *,
    epoch: int,
    start: int,
    readers: Readers,
) -> Generator[Batch, None, None]:
    """The batches of an epoch from micro-step `start` on, as the loop gets them: augmented.

    table: whose weights the samples have; None: one each. readers: who reads ahead.
    """
    from epochal.data.loading.loader import train_batches
    from epochal.tasks.computing.augmented import augmented

    config, data, components = work.config, work.data["train_data"], work.ready_components()
    batches = train_batches(
        data.dataset,
        micro_batches,
        sample_ids_N=data.ids_N,
        weights_N=None if table is None else table.weight_by_id(data.sample_ids_N),
        readers=readers,
        seed=config.seed,
        epoch=epoch,
        start=start,
        own=None if work.group is None else work.group.micro_batches,
        collate=components.collate,
    )
    return augmented(batches, config, "train", epoch=epoch, device=components.state.device)


def epoch_recipe(
    work: Work, *, lowered: float, validation: MidEpochValidation | None = None
) -> Recipe:
    """How the run trains. lowered: what a plateau multiplies the rate of the epoch by."""
    from epochal.engine.loop.epoch import Recipe

    config, norm = work.config, work.config.batch_norm
    num_samples = work.data["train_data"].info.num_samples
    return Recipe(
        work.ready_components().step,
        gradients=config.gradients,
        precision=config.precision,
        mixing=config.mixing,
        rate=rate_function(config, num_samples=num_samples, lowered=lowered),
        momentum=None if norm is None else norm.function(config.epochs),
        frozen=config.optimizer.frozen_in,
        validation=validation,
        seed=config.seed,
    )


def updates_for_rate(config: RunConfig, data: OpenDataset, epoch: int) -> int | None:
    """The updates that the rate of an epoch goes by; None: those that it has."""
    if _cut(config, data, epoch) is None:
        return None
    return updates_of(config, epoch, num_samples=data.info.num_samples)


def epoch_plan(
    config: RunConfig, data: OpenDataset, *, epoch: int, table: SampleTable | None
) -> MicroBatchPlan:
    """The micro-batches of an epoch. table: what the policy has chosen; None: every sample."""
    from epochal.data.loading.batch_sampler import mixture_of, sampler_order, sampler_plan
    from epochal.data.loading.lazy_order import head

    dataset, count = data.dataset, data.info.num_samples
    mixed = mixture_of(dataset)
    positions = sampler_order(
        config.batches,
        seed=config.seed,
        epoch=epoch,
        sample_ids_N=data.ids_N,
        keep_N=None if table is None else table.keep_by_id(data.sample_ids_N),
        labels_N=data.classes_N if config.batches.class_balanced else None,
        blocks_G1=order_blocks(config, dataset, count=count),
        epoch_samples=config.loader.epoch_samples,
        mixed=mixed,
    )
    size, accumulate = config.loader.batch_size, config.gradients.accumulated(epoch)
    if table is not None:
        kept = int(table["keep"].sum())
        size = config.sampling.batch_size(size, kept=kept, total=count)
    if (updates := _cut(config, data, epoch)) is not None:
        positions = head(positions, updates * accumulate * size)
    return sampler_plan(
        config.batches,
        positions,
        batch_size=size,
        accumulate=accumulate,
        drop_last=config.loader.drop_last,
        seed=config.seed,
        epoch=epoch,
        lengths_N=order_lengths(config, dataset, count=count),
        batch_tokens=config.loader.batch_tokens,
        repeated=mixed is not None,
    )


def _cut(config: RunConfig, data: OpenDataset, epoch: int) -> int | None:
    """The updates after which `max_updates` cuts this epoch, or None for a whole one."""
    return updates_left(config, epoch, num_samples=data.info.num_samples)


def begin_epoch(config: RunConfig, state: TrainingState, epoch: int | None) -> None:
    """What changes the state of the checkpoint before the epoch's first update."""
    if config.ema is not None and config.ema.copy_at_epoch == epoch and state.ema is not None:
        state.ema.copy_to_model()
