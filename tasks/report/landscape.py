"""The loss around a checkpoint of a run: loads it, computes the plane, writes it as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochal.data.config.loader import COLLATE
from epochal.data.errors import InputError, NonFinite, NotFound
from epochal.data.stage_store.stages import StageRecord
from epochal.data.types import seed_64
from epochal.tasks.checkpoints.end_of_epoch import load_model
from epochal.tasks.config.run import RunConfig
from epochal.tasks.run_data.run_data import found_data, own_config
from epochal.tasks.runs.find_run import FoundRun
from epochal.tasks.runs.run_sources import read_sources
from epochal.tasks.stages.commit import number
from epochal.tasks.user_code.components import Components, build_components, prepare_numerics

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from epochal.data.inspection.dataset import OpenDataset
    from epochal.data.types import Batch
    from epochal.engine.landscape import Landscape


@dataclass(frozen=True)
class Asked:
    """Which landscape is asked for. artifact: `model` or `ema`. extent: in norms of the filters."""

    epoch: int
    artifact: str
    points: int
    extent: float
    samples: int
    seed: int


@dataclass(frozen=True)
class Computed:
    """A landscape and what it is of. reference: `name@generation`, for its title."""

    run: str
    asked: Asked
    landscape: Landscape
    reference: str = ""

    @property
    def lowest(self) -> float:
        """The smallest finite loss."""
        return float(self._finite.min())

    @property
    def highest(self) -> float:
        """The largest finite loss."""
        return float(self._finite.max())

    @property
    def _finite(self) -> Any:
        import numpy as np

        losses_PP = self.landscape.losses_PP
        return losses_PP[np.isfinite(losses_PP)]

    @property
    def gaps(self) -> int:
        """Points whose loss was not finite."""
        return int(self.landscape.losses_PP.size - self._finite.size)

    def as_object(self) -> dict[str, Any]:
        """The file: the axis, and a row of losses for each place along the second direction."""
        return {
            "run": self.run,
            "epoch": self.asked.epoch,
            "weights": self.asked.artifact,
            "seed": self.asked.seed,
            "samples": self.landscape.num_samples,
            "axis": self.landscape.axis_P.tolist(),
            "losses": [[number(loss) for loss in row] for row in self.landscape.losses_PP.tolist()],
        }


def compute_landscape(
    run: FoundRun,
    asked: Asked,
    *,
    notice: Callable[[str], None],
    on_point: Callable[[], None],
) -> Computed:
    """The losses around that checkpoint, over a fixed part of the validation data.

    Raises InputError for a run that was not named by its config's path, NotFound if the store does
    not have the checkpoint (any more), NonFinite if no loss is finite.
    """
    import numpy as np

    from epochal.engine import metrics_of, validate_epoch
    from epochal.engine.landscape import axis_of, loss_landscape

    config = own_config(run, "losses come out of model and data, and these are")
    _check_unchanged(config, run)
    record = _record(run, asked)
    components = build_components(config, device=prepare_numerics(config), trains=False)
    load_model(run.stage_store, record, components, artifact=asked.artifact)
    data = _validation_data(run, config, notice)
    measure = partial(
        validate_epoch,
        components.state.model,
        _batches(config, data, asked, components),
        step=components.step,
        metrics=metrics_of("loss"),
        seed=seed_64(config.seed, "validate", asked.epoch),
        precision=config.precision,
        forward=components.state.forward,
    )
    landscape = loss_landscape(
        components.state.model,
        measure,
        seed=asked.seed,
        axis_P=axis_of(asked.points, asked.extent),
        on_point=on_point,
    )
    if not np.isfinite(landscape.losses_PP).any():
        raise NonFinite(
            f"{run.plan.reference}, epoch {asked.epoch}: no loss around this checkpoint is "
            "finite; try another --epoch, or a smaller --range"
        )
    return Computed(
        run=run.plan.run, asked=asked, landscape=landscape, reference=run.plan.reference
    )


def _check_unchanged(config: RunConfig, run: FoundRun) -> None:
    for name in ("model", "loss", "step", COLLATE, "validation_data"):
        now, then = map(attrgetter(name), (config, run.config))
        if now != then:
            raise InputError(
                f"{name}: the config says {now}, the run was trained with {then}; a landscape is "
                "of what was trained: give a copy of the config that says so"
            )


def _record(run: FoundRun, asked: Asked) -> StageRecord:
    record = run.record("train", asked.epoch)
    where = f"{run.plan.reference}, epoch {asked.epoch}"
    if record is None:
        newest = run.newest_epoch("train")
        has = "none yet" if newest is None else f"epochs up to {newest}"
        raise NotFound(f"{where}: it is not trained; the store has {has} of this run")
    if asked.artifact not in record.artifacts:
        raise NotFound(
            f"{where}: no average of the weights was kept; give `ema` in the config, and train"
        )
    if asked.artifact in run.stage_store.lookup([record.key])[record.key].pruned:
        raise NotFound(
            f"{where}: its checkpoint was removed by `epochal gc`, as `checkpoint:` says; ask for "
            "an --epoch that was kept, or raise checkpoint.keep_last and train again"
        )
    return record


def _validation_data(
    run: FoundRun, config: RunConfig, notice: Callable[[str], None]
) -> OpenDataset:
    sources, planned = read_sources(config, run.store).digests, run.plan.sources
    for name in ("model", "loss", "step", COLLATE):
        if sources.get(name, {}) != planned.get(name, {}):
            notice(f"{name}: its source has changed since the run; the landscape is of what it is")
    return found_data(
        run,
        "validation_data",
        config=config,
        notice=notice,
        changed="losses are of what it is",
    )


def _batches(
    config: RunConfig, data: OpenDataset, asked: Asked, components: Components
) -> list[Batch]:
    """The samples with the smallest hash of (seed, id), in the data set's order, kept in memory.

    As validation sees them: on the device, changed by `augment.validation`.
    """
    import numpy as np
    from torch.utils.data import Subset

    from epochal.data.loading.loader import validation_batches
    from epochal.data.loading.order import epoch_order
    from epochal.data.loading.readers import Readers
    from epochal.tasks.computing.augmented import augmented

    loader = config.loader
    ids_N = data.sample_ids_N
    order_N = epoch_order(seed=seed_64(asked.seed, "landscape"), epoch=0, sample_ids_N=ids_N)
    chosen_K = np.sort(order_N[: asked.samples])
    dataset: Dataset[Any] = Subset(data.looked, chosen_K.tolist())
    batches = validation_batches(
        dataset,
        batch_size=config.loader.validation_batch_size or config.loader.batch_size,
        sample_ids_N=ids_N[chosen_K],
        readers=Readers(
            0 if loader.workers == "auto" else loader.workers, loader.threads, loader.prefetch
        ),
        collate=components.collate,
    )
    with closing(augmented(batches, config, "validation", device=components.device)) as changed:
        return list(changed)


def grid_file(picture: Path) -> Path:
    """Where the numbers of a picture go: beside it."""
    return picture.with_suffix(".json")


def write_grid(computed: Computed, picture: Path) -> Path:
    """Writes the numbers beside the picture. Raises InputError if they cannot be written."""
    path = grid_file(picture)
    try:
        path.write_text(json.dumps(computed.as_object(), allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"--out {picture}: cannot write {path}: {error.strerror}") from error
    return path
