"""Splits: which rows a part of a data set has, from its labels and a seed, or a column, alone.

The held-out parts of one seed lie in one another: that of a smaller fraction is within that of a
larger one, so `train` never shares a sample with `validation`, whatever the fractions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, StrictBool, StrictInt, StrictStr, ValidationError, model_validator

from epochal.data.errors import DataError
from epochal.data.hashing import hash_u64
from epochal.data.types import Frozen

# N samples, K of a part, C classes

Value = StrictStr | StrictBool | StrictInt
_NAMED = 8  # values of a column that an error names


class Split(Frozen):
    """Which part of a data set is meant; the other part is had by naming it, all else equal."""

    part: Literal["train", "validation"] = Field(description="which part")
    fraction: float = Field(
        default=0.2, gt=0, lt=1, description="share of each class that is held out for validation"
    )
    seed: int = Field(default=0, ge=0, lt=1 << 63, description="which samples are held out")
    column: str | None = Field(
        default=None,
        min_length=1,
        description="column whose values say the part; none: `fraction` of each class by `seed`",
        examples=["fold"],
    )
    values: tuple[Value, ...] | dict[Literal["train", "validation"], tuple[Value, ...]] = Field(
        default=(),
        description="with `column`: the values that are held out for validation, all others train; "
        "or those of each part, all others in neither",
        examples=[[4], {"train": ["train"], "validation": ["dev"]}],
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.column is None) != (not self.values):
            raise ValueError("column and values are given together, or neither")
        if self.column is not None and {"fraction", "seed"} & self.model_fields_set:
            raise ValueError("column stands instead of fraction and seed; give one of them")
        if isinstance(self.values, dict):
            if set(self.values) != {"train", "validation"}:
                raise ValueError("values: give those of both parts, train and validation")
            if both := set(self.values["train"]) & set(self.values["validation"]):
                raise ValueError(f"values: {sorted(map(str, both))} would be in both parts")
        return self


def read_split(given: Split | Mapping[str, Any] | None, *, name: str) -> Split | None:
    """The split that a data set's argument `split` says. name: of the data set, for the error."""
    if given is None or isinstance(given, Split):
        return given
    try:
        return Split.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, ("split", *first["loc"])))
        raise DataError(
            f"{name}: {place}: {first['msg']}, found {first['input']!r:.80}; expected "
            "split: {part: train or validation, fraction: 0.2, seed: 0}, or "
            "{part: …, column: fold, values: [4]}"
        ) from error


def split_rows(
    split: Split,
    count: int,
    *,
    labels_N: npt.NDArray[np.int64] | None,
    name: str,
    column: Callable[[str], npt.NDArray[Any]] | None = None,
) -> npt.NDArray[np.int64]:
    """The part's rows out of `count`, rising: int64 of shape (K,).

    labels_N: each label has its share in both parts, of int64 and shape (N,); None: no classes.
    Which samples are held out: those of a class with the lowest hash of (seed, row). column: gives
    the values of a column by its name, of shape (N,); it raises DataError for one that is not
    there. None: the data set has no columns. Raises DataError, with the data set's `name`, where
    the part would be empty, or a value is not in the column.
    """
    if split.column is not None:
        if column is None:
            raise DataError(
                f"{name}: split: column: {split.column!r}, but this data set has no columns; "
                "expected split: {part: …, fraction: 0.2, seed: 0}"
            )
        return _by_column(split, column(split.column), name)
    rows_N = np.arange(count, dtype=np.int64)
    class_N = np.zeros(count, dtype=np.int64)
    if labels_N is not None:
        class_N = np.unique(labels_N, return_inverse=True)[1].astype(np.int64)
    order_N = np.lexsort((rows_N, hash_u64(rows_N, "split", split.seed), class_N))
    size_C = np.bincount(class_N, minlength=1)
    rank_N = rows_N - np.repeat(np.cumsum(size_C) - size_C, size_C)
    held_C = np.floor(size_C * split.fraction + 0.5).astype(np.int64)
    held_out_N = rank_N < np.repeat(held_C, size_C)
    chosen_K = np.sort(order_N[held_out_N if split.part == "validation" else ~held_out_N])
    if not len(chosen_K):
        raise DataError(
            f"{name}: split: the part {split.part!r} with fraction {split.fraction} of {count} "
            f"samples in {len(size_C)} classes is empty; take another fraction"
        )
    return chosen_K


def _by_column(split: Split, values_N: npt.NDArray[Any], name: str) -> npt.NDArray[np.int64]:
    # As texts, so that 4 in the config is 4 in a column of whole numbers or of texts.
    texts_N = np.array([str(value) for value in values_N.tolist()], dtype=object)
    given = split.values if isinstance(split.values, tuple) else split.values[split.part]
    chosen_N = np.isin(texts_N, np.array([str(value) for value in given], dtype=object))
    if isinstance(split.values, tuple) and split.part == "train":
        chosen_N = ~chosen_N
    known = sorted({*texts_N.tolist()})
    if absent := [value for value in given if str(value) not in known]:
        more = ", …" if len(known) > _NAMED else ""
        raise DataError(
            f"{name}: split.values: {absent[0]!r} is not in the column {split.column!r}, which has "
            f"{', '.join(known[:_NAMED])}{more}"
        )
    chosen_K: npt.NDArray[np.int64] = np.flatnonzero(chosen_N).astype(np.int64)
    if not len(chosen_K):
        raise DataError(
            f"{name}: split: the part {split.part!r} by the column {split.column!r} is empty; "
            "take other values"
        )
    return chosen_K
