"""A commit inside an epoch that was read again, compared with the epoch that would go on from it.

The store has checked the digests of its bytes. Whether they are a state of this epoch is checked
here, before training goes on from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from epochal.data.errors import CorruptObject, StateMismatch
from epochal.data.stage_store.mid_epoch import MidEpochCommit
from epochal.data.tables.schemas import OBSERVATIONS
from epochal.tasks.checkpoints.mid_epoch_codec import restore

if TYPE_CHECKING:
    from epochal.data.loading.order import MicroBatchPlan
    from epochal.engine.config.numerics import GradientsConfig
    from epochal.engine.loop.progress import MidEpochState
    from epochal.engine.model.state import TrainingState

# U updates done, N samples trained on


def checked_restore(
    commit: MidEpochCommit,
    state: TrainingState,
    plan: MicroBatchPlan,
    *,
    gradients: GradientsConfig,
) -> MidEpochState:
    """Loads a commit into the live state; gives what `train_epoch` goes on from.

    Raises CorruptObject, naming the commit, if no epoch of this plan could have written it; the
    live state may then be half loaded and must not be used.
    """
    name = f"the commit at micro-step {commit.micro_steps}"
    try:
        epoch = restore(commit, state)
        _check_columns(epoch, state, gradients)
    except (CorruptObject, StateMismatch) as error:
        raise CorruptObject(f"{name}: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CorruptObject(f"{name} lacks or misstates {error}") from error
    problem = next(_problems(epoch, state, plan), None)
    if problem is not None:
        raise CorruptObject(f"{name}: {problem}")
    return epoch


def _check_columns(epoch: MidEpochState, state: TrainingState, config: GradientsConfig) -> None:
    """Raises StateMismatch unless the columns are those that this epoch would have recorded."""
    from epochal.engine.loop.gradients import Gradients
    from epochal.engine.loop.progress import new_recorder, without_validations
    from epochal.engine.measure.observe import Observer

    recorder = new_recorder(state, Gradients(state, config), config)
    kept = without_validations(epoch.metrics)
    recorder.restore(kept, partial_loss=epoch.partial_loss, device=state.device)
    Observer().restore(epoch.observations)


def _problems(epoch: MidEpochState, state: TrainingState, plan: MicroBatchPlan) -> Iterator[str]:
    done = epoch.micro_steps
    if not 0 < done <= plan.num_micro_steps:
        yield f"the epoch has {plan.num_micro_steps} micro-steps"
        return
    whole = done == plan.num_micro_steps
    updates = plan.num_updates if whole else done // plan.accumulate
    ends = tuple(
        plan.rows_after(min((index + 1) * plan.accumulate, plan.num_micro_steps))
        for index in range(updates)
    )
    if (epoch.updates, epoch.update_ends) != (updates, ends):
        yield f"{epoch.updates} updates, expected {updates} that end where this epoch's do"
    if state.updates_tried < epoch.updates:
        yield f"{state.updates_tried} updates in the run, {epoch.updates} of them in the epoch"
    yield from _column_problems(epoch, updates=updates, samples=plan.rows_after(done))
    named = state.named_parameters()
    for name, gradient in epoch.gradients.items():
        if name not in named or gradient.shape != named[name].shape:
            yield f"a gradient of {name}, which the model does not have in its shape"
        elif gradient.dtype != named[name].dtype:
            yield f"a gradient of {name} in {gradient.dtype}"


def _column_problems(epoch: MidEpochState, *, updates: int, samples: int) -> Iterator[str]:
    for name, column_U in epoch.metrics.items():
        if column_U.shape != (updates,) or column_U.dtype != "float64":
            yield f"the metric {name} is {column_U.dtype} of shape {column_U.shape}"
    for name, column_N in epoch.observations.items():
        known = OBSERVATIONS.column(name)
        if known is None or column_N.shape != (samples,) or column_N.dtype != known.dtype:
            yield f"the observation {name} is {column_N.dtype} of shape {column_N.shape}"
