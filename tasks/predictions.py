"""Which class the newest checkpoint of a run predicts for samples of its training data."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from epochal.data.errors import DataError, EpochalError, NotFound, passes_through
from epochal.data.traces import in_one_line
from epochal.data.types import seed_64
from epochal.tasks.checkpoints.end_of_epoch import load_model
from epochal.tasks.run_data.run_data import own_config
from epochal.tasks.run_data.sample_images import positions_of
from epochal.tasks.runs.find_run import FoundRun
from epochal.tasks.user_code.components import build_components, prepare_numerics

if TYPE_CHECKING:
    from epochal.data.inspection.dataset import OpenDataset

LOGITS_DIMENSIONS = 2  # (B, C)


def predicted_classes(
    run: FoundRun, data: OpenDataset, sample_ids: Sequence[int]
) -> list[int | None]:
    """The class of the highest logit for each sample; None where the model gives no classes.

    Samples are read and changed as a validation reads and changes them. Raises InputError for a run
    that was not named by its config's path, NotFound where the store has no checkpoint (any more),
    DataError where the model does not take the samples, and what building it raises.
    """
    from torch.utils.data import Subset

    from epochal.data.loading.loader import validation_batches
    from epochal.data.loading.readers import Readers
    from epochal.engine.loop.evaluate import evaluating
    from epochal.tasks.computing.augmented import augmented

    config = own_config(run, "predictions come out of the model, and that is")
    epoch = run.newest_epoch("train")
    record = None if epoch is None else run.record("train", epoch)
    if record is None or "model" in run.stage_store.lookup([record.key])[record.key].pruned:
        raise NotFound(f"{run.plan.reference}: the store has no checkpoint of its newest epoch")
    components = build_components(config, device=prepare_numerics(config), trains=False)
    load_model(run.stage_store, record, components, artifact="model")
    positions = positions_of(data, sample_ids)
    chosen: Any = Subset(data.looked, positions.tolist())
    batches = validation_batches(
        chosen,
        batch_size=config.loader.validation_batch_size or config.loader.batch_size,
        sample_ids_N=data.sample_ids_N[positions],
        readers=Readers(0, 0, config.loader.prefetch),
        collate=components.collate,
    )
    found: list[int | None] = []
    state = components.state
    try:
        with (
            closing(augmented(batches, config, "validation", device=components.device)) as changed,
            evaluating(
                state.model,
                components.step,
                seed=seed_64(config.seed, "predictions"),
                precision=config.precision,
                forward=state.forward,
            ) as output_of,
        ):
            for batch in changed:
                outputs = output_of(batch).outputs
                is_logits = getattr(outputs, "ndim", 0) == LOGITS_DIMENSIONS
                found += outputs.argmax(dim=1).tolist() if is_logits else [None] * batch.num_samples
    except BaseException as error:  # a user's model may raise anything
        if passes_through(error) or isinstance(error, EpochalError):
            raise
        raise DataError(f"the model raised {in_one_line(error)}") from error
    return found
