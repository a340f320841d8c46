"""Why a curve is where it is: one update of a run with its samples, gradients and what came before.

Reads tables; runs none of the user's code but a data set that names the files of its samples, as
`epochal samples` does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from epochal.data.errors import InputError
from epochal.data.tables.schemas import OBSERVATIONS
from epochal.engine.config.mid_epoch import INSIDE
from epochal.tasks.run_data.sample_names import SampleNames
from epochal.tasks.runs.find_run import FoundRun
from epochal.tasks.runs.summary import EpochRow, epoch_rows
from epochal.tasks.why.batch import UpdateSamples, committed_samples, epoch_order, plan_of
from epochal.tasks.why.updates import (
    CLIPPED,
    GROUP,
    LOSS,
    NORM,
    RATE,
    EpochAtWork,
    EpochUpdates,
    KnownEpoch,
    Spike,
    TrainedEpoch,
    before,
    epoch_of,
    known_epochs,
    largest_spike,
    medians,
    read_updates,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

EARLIER_EPOCHS = 5
"""Epochs before this one whose losses of the same samples are told."""
UPDATES_BEFORE = 5
"""Updates before this one that are told each."""
MAX_EARLIER_ROWS = 1 << 25
"""Rows of the tables that are read for earlier losses: a few seconds' work."""
OBSERVED = ("loss", "label", "confidence", "p_true", "margin", "el2n", "correct")
_PARTS, _RATES = f"{LOSS}/", f"{RATE}/"
RATIO, SCALE, SKIPPED = "gradients/update_ratio", "gradients/scale", "gradients/skipped"


@dataclass(frozen=True)
class UpdateView:
    """An update of a run and what is known of it; `as_object` is what `--json` prints.

    body: that object. samples: in the order of training. spike: how it stands out, where that was
    asked for. medians: metric → median of up to 64 updates right before. notes: what else a person
    should know, a sentence each.
    """

    run: FoundRun
    trained: KnownEpoch
    update: int
    body: Mapping[str, Any]
    spike: Spike | None
    medians: Mapping[str, float]
    notes: Sequence[str] = ()
    replayed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def samples(self) -> Sequence[Mapping[str, Any]]:
        """A mapping for each sample."""
        samples: Sequence[Mapping[str, Any]] = self.body["samples"]
        return samples

    def as_object(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {**self.body, **self.replayed}


def view_update(
    run: FoundRun,
    *,
    update: int | None,
    epoch: int | None,
    names: Callable[[], SampleNames],
    notice: Callable[[str], None],
) -> UpdateView:
    """What is known of an update. With neither number: of the largest spike of the run.

    update: from 1 over the run. epoch: its largest spike. names: opens what samples are called;
    called once it is known that there is such an update.
    Raises NotFound, InputError for an update or epoch that there is not, CorruptObject.
    """
    import numpy as np

    epochs = known_epochs(run)
    spike, notes = None, []
    if update is None:
        _check_epoch(run, epochs, epoch)
        spike, not_finite = largest_spike(run, epochs, epoch=epoch)
        update = spike.update
        if not_finite:
            notes.append(
                f"{not_finite} updates{'' if epoch is None else ' of the epoch'} whose loss or "
                "norm was not finite are left out of the search"
            )
    trained = epoch_of(run, epochs, update)
    here = read_updates(run, trained)
    came_before = before(run, epochs, here, update)
    usual = medians(came_before)
    values = here.at(update)
    seen = _seen(run, here, update, notice)
    earlier = _earlier(run, epochs, trained, np.unique(seen.chosen.ids_B))
    samples = _samples(run, trained.epoch, seen, earlier, names())
    body = {
        "run": run.plan.run,
        "generation": run.plan.generation,
        "epoch": trained.epoch,
        "update": update,
        "update_of_epoch": update - trained.first + 1,
        **_progress(trained),
        "loss": _number(values[LOSS]),
        **_named_parts("loss_parts", values, _PARTS),
        "gradients": _gradients(values),
        "rate": _number(values[RATE]),
        **_named_parts("rates", values, _RATES),
        "clip": _clip(run, values),
        **_named_parts("validation_inside", values, INSIDE),
        "samples": samples,
        "before": _before(came_before, usual, update, trained.first),
        "epochs": _epochs(run, trained.epoch),
        **({} if spike is None else {"spike": spike.as_object()}),
    }
    if isinstance(trained, EpochAtWork):
        notes += _missing(trained, samples)
    return UpdateView(run, trained, update, body, spike, usual, notes)


def _check_epoch(run: FoundRun, epochs: Sequence[KnownEpoch], epoch: int | None) -> None:
    if epoch is not None and all(one.epoch != epoch for one in epochs):
        raise InputError(
            f"--epoch {epoch}: {run.plan.reference} has trained epochs {epochs[0].epoch} to "
            f"{epochs[-1].epoch}"
        )


@dataclass(frozen=True, eq=False)
class _Seen:
    """The samples of the update. rows_B: of `observed`, which has its first sight of each sample.

    own_B: whether that row is of this very time that the sample came.
    """

    chosen: UpdateSamples
    observed: Mapping[str, npt.NDArray[Any]]
    rows_B: npt.NDArray[np.int64]
    own_B: npt.NDArray[np.bool_]


def _seen(run: FoundRun, here: EpochUpdates, update: int, notice: Callable[[str], None]) -> _Seen:
    import numpy as np

    from epochal.data.tables.writing import read_table

    trained, row = here.trained, update - here.trained.first
    if isinstance(trained, EpochAtWork):
        assert trained.open.recorded is not None
        ends_U = trained.open.recorded.ends_U
        chosen = committed_samples(run.config, trained.open, row=row)
        rows_B = np.arange(int(ends_U[row]) - len(chosen.ids_B), int(ends_U[row]))
        own_B = np.ones(len(rows_B), dtype=np.bool_)
        return _Seen(chosen, trained.open.recorded.observations, rows_B, own_B)
    most = trained.record.values["samples"]
    with run.stage_store.fetch_artifact(trained.record, "observations") as path:
        observed = dict(read_table(path, schema=OBSERVATIONS, max_rows=most).columns)
    order = epoch_order(run, trained.record, observed, here, notice=notice)
    chosen = order.samples(run.config, epoch=trained.epoch, row=row)
    known_N = observed["sample_id"]
    rows_B = np.searchsorted(known_N, chosen.ids_B).clip(max=max(len(known_N) - 1, 0))
    # The table has what the epoch saw of a sample the first time.
    own_B = (chosen.repeats_B == 0) & (known_N[rows_B] == chosen.ids_B)
    return _Seen(chosen, observed, rows_B, own_B)


def _progress(trained: KnownEpoch) -> dict[str, Any]:
    """How many updates the epoch has; of one at work, how many of them are committed."""
    if isinstance(trained, TrainedEpoch):
        return {"updates_in_epoch": trained.count}
    return {"updates_in_epoch": trained.open.num_updates, "updates_committed": trained.count}


def _missing(trained: EpochAtWork, samples: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is not known of an update before its epoch is done."""
    of = "" if trained.open.num_updates is None else f" of {trained.open.num_updates}"
    text = (
        f"epoch {trained.epoch} is not done: this is of its last commit, at update "
        f"{trained.count}{of}; what came after it, and the epoch's validation, is not known yet"
    )
    notes = [text]
    if any(one["micro_batch"] is None for one in samples):
        notes.append(
            "into which micro-batches these samples were cut, and whom each was mixed with, is "
            "known when the epoch is done"
        )
    return notes


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _named_parts(name: str, values: Mapping[str, float], prefix: str) -> dict[str, Any]:
    found = {
        key.removeprefix(prefix): value
        for key, value in values.items()
        if key.startswith(prefix) and not (prefix == INSIDE and math.isnan(value))
    }
    return {name: {key: _number(value) for key, value in found.items()}} if found else {}


def _gradients(values: Mapping[str, float]) -> dict[str, Any]:
    extras = {
        name.rpartition("/")[2]: _number(values[name]) for name in (RATIO, SCALE) if name in values
    }
    skipped = {"skipped": values[SKIPPED] > 0} if SKIPPED in values else {}
    groups = {
        name.removeprefix(GROUP): _number(value)
        for name, value in values.items()
        if name.startswith(GROUP)
    }
    return {
        "norm": _number(values[NORM]),
        "norm_clipped": _number(values[CLIPPED]),
        "groups": groups,
        **extras,
        **skipped,
    }


def _clip(run: FoundRun, values: Mapping[str, float]) -> dict[str, Any]:
    gradients = run.config.gradients
    return {
        "norm": gradients.clip_norm,
        "value": gradients.clip_value,
        "clipped": values[CLIPPED] < values[NORM],
    }


def _before(
    came_before: Mapping[str, npt.NDArray[np.float64]],
    usual: Mapping[str, float],
    update: int,
    first: int,
) -> dict[str, Any]:
    """The updates right before, and medians of up to 64 of them."""
    count = len(came_before[LOSS])
    told = [
        {
            "update": update - back,
            "in_this_epoch": update - back >= first,
            "loss": _number(float(came_before[LOSS][-back])),
            "norm": _number(float(came_before[NORM][-back])),
            "rate": _number(float(came_before[RATE][-back])),
        }
        for back in range(min(UPDATES_BEFORE, count), 0, -1)
    ]
    groups = {
        name.removeprefix(GROUP): value for name, value in usual.items() if name.startswith(GROUP)
    }
    return {
        "updates": told,
        "of": count,
        "median": {"loss": usual.get(LOSS), "norm": usual.get(NORM), "groups": groups},
    }


def _epochs(run: FoundRun, epoch: int) -> list[dict[str, Any]]:
    """The epoch before and the one itself, as their records have them."""
    return [
        {
            "epoch": row.epoch,
            "loss": row.loss,
            "gradient_norm": row.gradient_norm,
            "samples": row.trained,
            "validation": dict(row.metrics),
        }
        for row in rows_around(run, epoch)
    ]


def rows_around(run: FoundRun, epoch: int) -> list[EpochRow]:
    """The epoch before and the one itself, as a table of epochs shows them."""
    return [row for row in epoch_rows(run) if epoch - 1 <= row.epoch <= epoch]


def _earlier(
    run: FoundRun, epochs: Sequence[KnownEpoch], trained: KnownEpoch, ids_Q: npt.NDArray[np.int64]
) -> dict[int, list[dict[str, Any]]]:
    """Sample id → what up to five epochs before this one saw of it, oldest first."""
    import numpy as np

    from epochal.data.tables.writing import read_table

    found: dict[int, list[dict[str, Any]]] = {int(one): [] for one in ids_Q}
    rows, place = 0, epochs.index(trained)
    asked = []
    for one in reversed(epochs[max(0, place - EARLIER_EPOCHS) : place]):
        assert isinstance(one, TrainedEpoch)  # the one at work is the last
        rows += one.record.values["samples"]
        if rows > MAX_EARLIER_ROWS:
            break
        asked.append(one)
    for one in reversed(asked):
        most = one.record.values["samples"]
        with run.stage_store.fetch_artifact(one.record, "observations") as path:
            columns = read_table(
                path, schema=OBSERVATIONS, max_rows=most, only=("loss", "correct", "label")
            ).columns
        known_N = columns["sample_id"]
        if not len(known_N):
            continue
        rows_Q = np.searchsorted(known_N, ids_Q).clip(max=len(known_N) - 1)
        for sample_id, row in zip(ids_Q.tolist(), rows_Q.tolist(), strict=True):
            if int(known_N[row]) == sample_id:
                seen = {"epoch": one.epoch, "loss": _number(float(columns["loss"][row]))}
                if int(columns["label"][row]) >= 0:
                    seen["correct"] = bool(columns["correct"][row])
                found[sample_id].append(seen)
    return found


def _samples(
    run: FoundRun,
    epoch: int,
    update: _Seen,
    earlier: Mapping[int, list[dict[str, Any]]],
    names: SampleNames,
) -> list[dict[str, Any]]:
    chosen, observed = update.chosen, update.observed
    ids, rows, own = chosen.ids_B.tolist(), update.rows_B.tolist(), update.own_B.tolist()
    table = plan_of(run, epoch)
    weights = None if table is None else table.weight_by_id(chosen.ids_B).tolist()
    paths = names.paths(ids)
    found = []
    for place, (sample_id, row) in enumerate(zip(ids, rows, strict=True)):
        repeat, micro_batch = int(chosen.repeats_B[place]), int(chosen.micro_batch_B[place])
        seen = {name: _plain(observed[name][row]) for name in OBSERVED}
        if not own[place]:
            seen = {name: seen[name] if name == "label" else None for name in OBSERVED}
        if seen["label"] == -1:
            seen["label"] = seen["correct"] = None
        label = seen["label"]
        name, class_name = names.texts.get(sample_id), None
        if label is not None:
            class_name = names.class_of(label)
        mixed = None if chosen.mixed is None else chosen.mixed[place]
        found.append(
            {
                "sample_id": sample_id,
                **({} if name is None else {"name": name}),
                **({} if class_name is None else {"class": class_name}),
                **({} if paths[place] is None else {"path": paths[place]}),
                **seen,
                **({} if weights is None else {"weight": weights[place]}),
                "micro_batch": None if micro_batch < 0 else micro_batch,
                **({"repeat": repeat} if repeat else {}),
                **({} if chosen.mixed is None else {"mixed_with": mixed}),
                "earlier": earlier.get(sample_id, []),
            }
        )
    return found


def _plain(value: Any) -> Any:
    plain = value.item() if hasattr(value, "item") else value
    return _number(plain) if isinstance(plain, float) else plain
