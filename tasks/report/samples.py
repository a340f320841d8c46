"""What training saw of each sample, in the order that a person asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from epochal.data.errors import InputError, NotFound
from epochal.tasks.planning.stage import Stage
from epochal.tasks.report.tables import RunTables
from epochal.tasks.run_data.sample_names import SampleNames
from epochal.tasks.runs.find_run import FoundRun

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SHOWN_BY_DEFAULT = 20
SHEETS = {"hardest": "Hardest samples", "suspects": "Perhaps mislabelled"}
"""The orders that a report has a contact sheet of, and how it names them."""
SHEET_SAMPLES = 24
NO_DATA = "the data set was not opened for this page; `epochal report` opens it"
COLUMNS = (
    "sample_id", "label", "loss", "confidence", "p_true", "margin", "correct", "epoch_seen",
    "n_seen", "keep", "weight",
)  # fmt: skip
"""What is shown under every order, with the columns of the order behind the label."""
OF_ORDER = {
    "easiest": ("mean_p_true", "variability"),
    "hardest": ("mean_p_true", "variability"),
    "suspects": ("mean_margin", "flagged", "predicted"),
    "forgotten": ("forget_count", "never_right", "variability"),
}
DERIVED = (
    "mean_margin", "mean_p_true", "variability", "forget_count", "never_right", "flagged",
    "predicted",
)  # fmt: skip
BY_LOSS = ("easiest", "hardest")
OVER_EPOCHS = ("suspects", "forgotten")
"""Orders that need all epochs, and make their table where no stage has."""


@dataclass(frozen=True)
class TablePaths:
    """Where the tables of one epoch are, as DuckDB and pyarrow read them."""

    epoch: int
    observations: str | None
    samples: str | None


@dataclass(frozen=True)
class SampleView:
    """Samples in the order asked for, and the paths of every epoch's tables.

    notes: what else a person should know of them, a sentence each. left_out: samples that cannot
    be trained on: `data`, `position`, `path` and `error` of each.
    """

    run: str
    epoch: int
    order: str | None
    caption: str
    notes: Sequence[str]
    columns: Sequence[str]
    samples: list[dict[str, Any]]
    tables: list[TablePaths]
    left_out: Sequence[Mapping[str, Any]] = ()

    def rows(self) -> list[list[str]]:
        """The samples as text."""
        return [[_text(sample[name]) for name in self.columns] for sample in self.samples]

    def as_object(self) -> dict[str, Any]:
        """As `--json` prints it."""
        left_out = {"left_out": list(self.left_out)} if self.left_out else {}
        return {
            "run": self.run,
            "epoch": self.epoch,
            **left_out,
            "samples": self.samples,
            "tables": [
                {"epoch": paths.epoch, "observations": paths.observations, "samples": paths.samples}
                for paths in self.tables
            ],
        }


def view_samples(
    run: FoundRun,
    *,
    order: str | None,
    count: int | None,
    tables: RunTables | None = None,
    names: SampleNames,
) -> SampleView:
    """The samples of the newest epoch: all seen so far, or the observations where nothing mines.

    order: `easiest`, `hardest`, `suspects`, `forgotten`, or None for the order of ids.
    tables: of this run, if they are open already. names: of samples, classes and files.
    Raises NotFound if no epoch is trained, InputError if the tables cannot give that order.
    """
    mined, trained = run.newest_epoch("mine"), run.newest_epoch("train")
    if trained is None:
        raise NotFound(f"{run.plan.reference} has no trained epoch yet")
    tables = tables or RunTables.of_run(run)
    over_epochs = mined is not None or order in OVER_EPOCHS
    read = tables.scores if over_epochs else tables.observations(trained)
    assert read is not None
    columns = dict(read)
    ranked = _order(columns, order, run=run.plan.reference)
    chosen = ranked[: count or SHOWN_BY_DEFAULT]
    columns |= _derived(columns) if over_epochs else {}
    shown = [name for name in (*COLUMNS, *DERIVED) if name in columns]
    samples = [{name: _plain(columns[name][row]) for name in shown} for row in chosen]
    named = _named(samples, names)
    what = "all epochs so far" if over_epochs else f"epoch {trained} alone (policy: none)"
    return SampleView(
        run=run.plan.run,
        epoch=trained if mined is None else mined,
        order=order,
        caption=f"{run.plan.reference}: {len(chosen)} of {len(columns['sample_id'])} samples, "
        f"{order or 'by id'}; scores of {what}",
        notes=_notes(columns, order, ranked=len(ranked)),
        columns=_shown([*shown, *named], order),
        samples=samples,
        tables=_tables(run),
        left_out=left_out_rows(names),
    )


def left_out_rows(names: SampleNames) -> list[dict[str, Any]]:
    """The samples that cannot be trained on, by data set and position."""
    return [
        {"data": name, "position": one.position, "path": one.path, "error": one.error}
        for name, bad in names.left_out.items()
        for one in bad
    ]


def _named(samples: list[dict[str, Any]], names: SampleNames) -> list[str]:
    """Adds text id, class and file to each sample, where any has one; gives what it added."""
    found = {
        "name": [names.texts.get(sample["sample_id"]) for sample in samples],
        "class": [names.class_of(sample["label"]) for sample in samples],
        "file": names.paths([sample["sample_id"] for sample in samples]),
    }
    added = [name for name, texts in found.items() if any(texts)]
    for name in added:
        for sample, text in zip(samples, found[name], strict=True):
            sample[name] = text
    return added


def _shown(names: Sequence[str], order: str | None) -> list[str]:
    own = [name for name in OF_ORDER.get(order or "", ()) if name in names]
    shown = [name for name in names if name in COLUMNS]
    place = shown.index("label") + 1
    own = ["class", *own] if "class" in names else own
    shown, place = (["name", *shown], place + 1) if "name" in names else (shown, place)
    return [*shown[:place], *own, *shown[place:], *(["file"] if "file" in names else [])]


def _notes(columns: Mapping[str, Any], order: str | None, *, ranked: int) -> list[str]:
    from epochal.data.policies.shared.label_noise import noise_rate, num_suspects

    if order == "hardest" and _column(columns, "loss") is None:
        return ["by the lowest p_true: the loss is one number for a batch, none for each sample"]
    if order == "forgotten":
        never = int(columns["never_right"].sum())
        return [
            f"{ranked - never} samples were right and then wrong at least once",
            f"{never} were never right: first, as if forgotten without end (Toneva et al. 2019)",
        ]
    if order == "suspects":
        noise, flagged = noise_rate(columns), num_suspects(columns)
        share = "not known" if noise is None else f"{noise:.2%}"
        return [
            f"estimated share of wrong labels: {share}",
            f"left out by the policy for their label: {flagged or 'none'}",
            "the tables keep whether a prediction was right, not which class a wrong one named",
        ]
    return []


def _derived(columns: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """What follows from the columns of all epochs."""
    import numpy as np

    from epochal.data.samples import scores

    known_N = columns["correct"] & (columns["label"] >= 0)
    predicted_N = np.full(len(known_N), None, dtype=object)
    predicted_N[known_N] = columns["label"][known_N]
    return {
        "mean_margin": scores.mean_margin(columns),
        "mean_p_true": scores.mean_p_true(columns),
        "variability": scores.variability(columns),
        "never_right": scores.never_right(columns) & np.isfinite(columns["p_true"]),
        "flagged": scores.is_flagged(columns),
        "predicted": predicted_N,
    }


def _order(
    columns: dict[str, npt.NDArray[Any]], order: str | None, *, run: str
) -> npt.NDArray[np.int64]:
    import numpy as np

    from epochal.data.samples import scores

    ids = columns["sample_id"]
    if order is None:
        return np.lexsort((ids,))
    seen = columns["n_seen"] > 0 if "n_seen" in columns else np.ones(len(ids), dtype=bool)
    score = _badness(columns, order, run=run)
    score = np.where(np.isnan(score), np.inf, score)
    keys = [ids, score]
    if order == "forgotten":  # a count has many ties: those that were least sure go first
        keys.insert(1, np.nan_to_num(scores.mean_p_true(columns)))
        seen &= score < 0
    rows: npt.NDArray[np.int64] = np.lexsort(keys)
    chosen: npt.NDArray[np.int64] = rows[seen[rows]]
    return chosen


def _badness(
    columns: dict[str, npt.NDArray[Any]], order: str, *, run: str
) -> npt.NDArray[np.float64]:
    """What the samples are sorted by, the lowest first: float64 of shape (N,), NaN at the end."""
    import numpy as np

    from epochal.data.samples import scores

    if order in BY_LOSS:
        # Easiest: of highest confidence in a right answer; hardest: of highest loss. Where a table
        # has one of the two alone, the other decides: both say how far a prediction is off.
        loss, right = _column(columns, "loss"), _column(columns, "p_true")
        by_loss, by_right = (None if loss is None else -loss), right
        found = (by_loss, by_right) if order == "hardest" else (by_right, by_loss)
        for badness in found:
            if badness is not None:
                return badness if order == "hardest" else -badness
        raise InputError(_needs(run, order, "the loss of each sample, or classes"))
    if order == "forgotten":
        if not scores.has_classes(columns):
            raise InputError(_needs(run, order, "whether predictions were right"))
        # Toneva et al. 2019, section 4: never learnt counts as forgotten infinitely often.
        count = columns["forget_count"].astype(np.float64)
        return -np.where(scores.never_right(columns), np.inf, count)
    if _column(columns, "margin_sum") is None:
        raise InputError(_needs(run, order, "the margin between classes"))
    return scores.mean_margin(columns)  # AUM, Pleiss et al. 2020


def _needs(run: str, order: str, what: str) -> str:
    why = "the model's output is not of shape (batch, classes)"
    if order in BY_LOSS:
        why = f"the loss is one number for a batch, and {why}"
    return f"{run}: --{order} needs {what}, and its tables have none of it: {why}"


def _column(columns: Mapping[str, npt.NDArray[Any]], name: str) -> npt.NDArray[np.float64] | None:
    import numpy as np

    found = columns.get(name)
    if found is None or not len(found):
        return None
    values: npt.NDArray[np.float64] = found.astype(np.float64)
    return None if np.isnan(values).all() else values


def _tables(run: FoundRun) -> list[TablePaths]:
    def url(stage: Stage, name: str) -> str | None:
        record = run.records.get(stage.known_key)
        if record is None or name not in record.artifacts:
            return None
        address = run.store.address(run.stage_store.artifact_path(record, name))
        return address.removeprefix("file://")  # a plain path is what every reader takes

    tables = []
    for stage in run.stages:
        if stage.kind != "train" or stage.epoch is None or stage.key not in run.records:
            continue
        mined = next(
            (other for other in run.stages if (other.kind, other.epoch) == ("mine", stage.epoch)),
            None,
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
    plain = value.item() if hasattr(value, "item") else value
    if isinstance(plain, float):
        return plain if math.isfinite(plain) else None
    return plain


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
