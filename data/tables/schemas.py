"""What the tables hold: names, types and encodings of their columns. Imports no pyarrow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Encoding = Literal["plain", "delta", "split", "dictionary"]


@dataclass(frozen=True)
class Column:
    """One column.

    dtype: NumPy's name of the type, or `text`.
    encoding: how Parquet stores it. `split` (BYTE_STREAM_SPLIT) for floats, `delta`
    (DELTA_BINARY_PACKED) for rising integers, `dictionary` where few values occur: a dictionary
    on floats is 2 to 7 times slower to write and no smaller.
    required: whether a table must have it.
    """

    name: str
    dtype: str
    encoding: Encoding
    required: bool = True


@dataclass(frozen=True)
class Schema:
    """The columns of one kind of table.

    version: goes up when a program that knows the old version would misread the new one.
    unique_by: an integer column by which rows are sorted and of which no value occurs twice; None
    where rows keep their order.
    """

    name: str
    version: int
    columns: tuple[Column, ...]
    unique_by: str | None = None

    def column(self, name: str) -> Column | None:
        """The column of that name, or None."""
        return next((column for column in self.columns if column.name == name), None)

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in order."""
        return tuple(column.name for column in self.columns)


OBSERVATIONS = Schema(
    name="observations",
    version=1,
    unique_by="sample_id",
    columns=(
        Column("sample_id", "int64", "delta"),
        Column("label", "int64", "dictionary"),
        Column("loss", "float32", "split"),
        Column("confidence", "float32", "split"),
        Column("p_true", "float32", "split"),
        Column("margin", "float32", "split"),
        Column("el2n", "float32", "split"),
        Column("correct", "bool", "plain"),
        Column("weight", "float32", "dictionary", required=False),
        Column("denominator", "float32", "dictionary", required=False),
    ),
)
"""What one training epoch saw of each sample.

sample_id; label: -1 where unknown; loss: of this sample alone; confidence: the highest probability
of a class; p_true: the probability of the label; margin: the label's logit minus the largest other
one (AUM, Pleiss et al. 2020); el2n: norm of probabilities minus one-hot label (Paul et al. 2021);
correct: the most probable class is the label; weight: of the loss, 1 where the column is missing;
denominator: what the sample adds to the denominator of its update's mean loss (the number of its
targets that count, the weight of its class), 1 where the column is missing; loss × denominator is
then its numerator.
NaN where the model gives no logits of classes; `correct` is false there.
"""

SAMPLES = Schema(
    name="samples",
    version=1,
    unique_by="sample_id",
    columns=(
        Column("sample_id", "int64", "delta"),
        Column("label", "int64", "dictionary"),
        Column("epoch_seen", "int32", "dictionary"),
        Column("n_seen", "int32", "dictionary"),
        Column("loss", "float32", "split"),
        Column("confidence", "float32", "split"),
        Column("p_true", "float32", "split"),
        Column("margin", "float32", "split"),
        Column("el2n", "float32", "split"),
        Column("correct", "bool", "plain"),
        Column("easy_streak", "int16", "dictionary"),
        Column("forget_count", "int16", "dictionary"),
        Column("margin_sum", "float32", "split"),
        Column("p_true_sum", "float32", "split"),
        Column("p_true_sq", "float32", "split"),
        Column("flags", "uint8", "dictionary"),
        Column("keep", "bool", "plain"),
        Column("weight", "float32", "dictionary"),
        Column("probability", "float32", "split", required=False),
        Column("credit", "float32", "split", required=False),
        Column("easy_count", "int16", "dictionary", required=False),
    ),
)
"""What all epochs so far saw of each sample, and who trains in the next one.

epoch_seen: the last epoch that trained on it, -1: none did; n_seen: how many did; loss … correct:
as last observed; easy_streak: easy verdicts in a row; forget_count: how often a right prediction
became wrong (Toneva et al. 2019); margin_sum, p_true_sum, p_true_sq: sums over the observations,
for AUM and data maps (Swayamdipta et al. 2020); flags: bits of `epochal.data.samples.table`; keep,
weight: the plan of the next epoch; probability: with which it was to be kept, credit: what of it
was saved up before (`importance`); easy_count: of `cvnets`. Scores are NaN until the sample is
seen.
"""

UPDATES = Schema(
    name="updates",
    version=1,
    columns=(
        Column("step", "int64", "delta"),
        Column("key", "text", "dictionary"),
        Column("value", "float64", "split"),
    ),
)
"""The metrics of every update: step (the update, counted from 1 over the whole run), key, value."""


TEXT_IDS = Schema(
    name="text_ids",
    version=1,
    unique_by="sample_id",
    columns=(Column("sample_id", "int64", "delta"), Column("text", "text", "plain")),
)
"""What the samples of a data set are called: sample_id, the hash of the text that is the id."""

KNOWN_SAMPLES = Schema(
    name="known_samples",
    version=1,
    unique_by="position",
    columns=(
        Column("position", "int64", "delta"),
        Column("sample_id", "int64", "delta"),
        Column("label", "int64", "delta"),
    ),
)
"""What was read of a data set whose reading takes long: ids and labels by position."""

BAD_SAMPLES = Schema(
    name="bad_samples",
    version=1,
    unique_by="position",
    columns=(
        Column("position", "int64", "delta"),
        Column("path", "text", "plain"),
        Column("error", "text", "plain"),
    ),
)
"""Samples that are left out. path: empty where the data set names none."""

MAX_KEYS = 1 << 14  # of an update: one for each group of parameters, and some more
