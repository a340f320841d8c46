"""What training saw of each sample, in the order that a person asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from epochal.data.errors import InputError, NotFound
from epochal.tasks.keys import Stage
from epochal.tasks.locate import FoundRun

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SHOWN_BY_DEFAULT = 20
COLUMNS = (
    "sample_id", "label", "loss", "confidence", "p_true", "margin", "correct", "epoch_seen",
    "n_seen", "keep", "weight",
)  # fmt: skip


@dataclass(frozen=True)
class TablePaths:
    """Where the tables of one epoch are, as DuckDB and pyarrow read them."""

    epoch: int
    observations: str | None
    samples: str | None


@dataclass(frozen=True)
class SampleView:
    """Samples in the order asked for, and the paths of every epoch's tables."""

    run: str
    epoch: int
    caption: str
    columns: Sequence[str]
    samples: list[dict[str, Any]]
    tables: list[TablePaths]

    def rows(self) -> list[list[str]]:
        """The samples as text."""
        return [[_text(sample[name]) for name in self.columns] for sample in self.samples]

    def as_object(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "run": self.run,
            "epoch": self.epoch,
            "samples": self.samples,
            "tables": [
                {"epoch": one.epoch, "observations": one.observations, "samples": one.samples}
                for one in self.tables
            ],
        }


def view_samples(found: FoundRun, *, order: str | None, count: int | None) -> SampleView:
    """The samples of the newest epoch: all seen so far, or the observations where nothing mines.

    order: `easiest`, `hardest`, `suspects`, or None for the order of ids.
    Raises NotFound if no epoch is trained, InputError if the tables cannot give that order.
    """
    mined, trained = found.newest_epoch("mine"), found.newest_epoch("train")
    if trained is None:
        raise NotFound(f"{found.plan.reference} has no trained epoch yet")
    kind, epoch = ("mine", mined) if mined is not None else ("train", trained)
    columns = _read(found, kind, epoch)
    chosen = _order(columns, order, run=found.plan.reference)[: count or SHOWN_BY_DEFAULT]
    names = [name for name in COLUMNS if name in columns]
    samples = [{name: _plain(columns[name][row]) for name in names} for row in chosen]
    total = len(columns["sample_id"])
    what = "all epochs so far" if kind == "mine" else f"epoch {epoch} alone (policy: none)"
    return SampleView(
        run=found.plan.run,
        epoch=epoch,
        caption=f"{len(samples)} of {total} samples, {order or 'by id'}; scores of {what}",
        columns=names,
        samples=samples,
        tables=_tables(found),
    )


def _read(found: FoundRun, kind: str, epoch: int) -> dict[str, npt.NDArray[Any]]:
    from epochal.data.tables import OBSERVATIONS, SAMPLES, read_table

    record = found.record(kind, epoch)
    assert record is not None
    name, schema = ("samples", SAMPLES) if kind == "mine" else ("observations", OBSERVATIONS)
    with found.stage_store.fetch_artifact(record, name) as path:
        table = read_table(path, schema=schema, max_rows=record.values["samples"])
        return dict(table.columns)


def _order(
    columns: dict[str, npt.NDArray[Any]], order: str | None, *, run: str
) -> npt.NDArray[np.int64]:
    import numpy as np

    ids = columns["sample_id"]
    if order is None:
        return np.lexsort((ids,))
    seen = columns["n_seen"] > 0 if "n_seen" in columns else np.ones(len(ids), dtype=bool)
    if order == "hardest":
        score = -columns["loss"].astype(np.float64)
    elif order == "easiest":
        # Highest confidence in a right answer; where there are no classes, the lowest loss.
        right = _column(columns, "p_true")
        score = columns["loss"].astype(np.float64) if right is None else -right
    else:
        margins = _column(columns, "margin_sum")
        if margins is not None:
            margins = margins / np.maximum(columns["n_seen"], 1)  # AUM, Pleiss et al. 2020
        else:
            margins = _column(columns, "margin")
        if margins is None:
            raise InputError(
                f"{run}: --suspects needs the margin between classes, and its tables have none: "
                "the model's output is not of shape (batch, classes)"
            )
        score = margins
    score = np.where(np.isnan(score), np.inf, score)
    rows: npt.NDArray[np.int64] = np.lexsort((ids, score))
    chosen: npt.NDArray[np.int64] = rows[seen[rows]]
    return chosen


def _column(columns: dict[str, npt.NDArray[Any]], name: str) -> npt.NDArray[np.float64] | None:
    import numpy as np

    values = columns.get(name)
    if values is None or not len(values) or np.isnan(values.astype(np.float64)).all():
        return None
    return values.astype(np.float64)


def _tables(found: FoundRun) -> list[TablePaths]:
    def url(stage: Stage, name: str) -> str | None:
        record = found.records.get(stage.known_key)
        if record is None or name not in record.artifacts:
            return None
        address = found.store.address(found.stage_store.artifact_path(record, name))
        return address.removeprefix("file://")  # a plain path is what every reader takes

    tables = []
    for stage in found.stages:
        if stage.kind != "train" or stage.epoch is None or stage.key not in found.records:
            continue
        mined = next(
            (one for one in found.stages if (one.kind, one.epoch) == ("mine", stage.epoch)), None
        )
        tables.append(
            TablePaths(
                epoch=stage.epoch,
                observations=url(stage, "observations"),
                samples=None if mined is None else url(mined, "samples"),
            )
        )
    return tables


def _plain(value: Any) -> Any:
    import math

    plain = value.item()
    if isinstance(plain, float):
        return plain if math.isfinite(plain) else None
    return plain


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
