"""Tables as data sets: CSV, TSV, Parquet, Arrow and Feather files, read once into memory."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from epochal.data.datasets.split import Split, read_split, split_rows
from epochal.data.errors import DataError
from epochal.data.files.columns import (
    ColumnReader,
    Numbers,
    as_floats,
    is_number,
    is_text,
)
from epochal.data.loading.in_memory import InMemory

# N rows, K of them in the part, F features, T targets, M masks

MANY_CLASSES = 1000
"""Of more distinct whole numbers in a target it is asked whether they are classes."""
_DTYPES = {"float32": np.float32, "float64": np.float64, "float16": np.float16}

logger = logging.getLogger(__name__)


def table(
    path: str,
    target: str | Sequence[str],
    features: Sequence[str] | None = None,
    mask: str | Sequence[str] | None = None,
    ids: str | None = None,
    split: Split | Mapping[str, Any] | None = None,
    *,
    task: Literal["classification", "regression"] | None = None,
    classes: Sequence[str | int] | None = None,
    categories: Mapping[str, Sequence[str]] | None = None,
    missing: Mapping[str, float] | None = None,
    normalize: Literal["train"] | Mapping[str, Any] | None = None,
    dtype: str = "float32",
) -> InMemory:
    """Rows of a table, as `(features, target)`; with `mask` dicts of `input`, `target`, `mask`.

    path: a CSV, TSV, Parquet, Arrow or Feather file, a folder of such, or a glob; of this machine
    or any fsspec URL. CSV and TSV have names in their first line, and may be packed by gzip.
    features: columns, numbers of `dtype` and shape (N, F); none: all that nothing else names, in
    the file's order. target: a column of whole numbers or texts: labels, int64 of shape (N,), which
    for texts count their sorted names, or `classes`; a column of other numbers: values of `dtype`
    and shape (N,). Several columns, in a list: values of shape (N, T). task: says which, whatever
    the column's type. mask: columns of true and false, or of 1 and 0, shape (N,) or (N, M) as the
    target's; where one is false its target may be missing, and is 0. ids: the samples' ids.
    split: the part that is meant; a column may say it. categories: texts of a feature's column, in
    the order of the codes 0, 1, … that stand for them. missing: `{fill: 0.0}`: what stands for a
    feature that is missing. normalize: `{mean: …, std: …}`, numbers or lists by feature; or
    `train`: of the training part of `split`, also in the validation's; or `{path: ./train.csv}`: of
    the same features of that table; constant features become 0.

    Raises DataError, naming file, column and row, for what is missing, not finite or no number.
    """
    reader = ColumnReader(path, categories or {}, _fill(missing))
    if dtype not in _DTYPES:
        raise DataError(f"table: dtype: found {dtype!r}; expected one of {', '.join(_DTYPES)}")
    if task not in {None, "classification", "regression"}:
        raise DataError(f"table: task: found {task!r}; expected classification or regression")
    targets, masks = _listed(target), _listed(mask)
    if masks and len(masks) not in {1, len(targets)}:
        raise DataError(
            f"table: mask: found {len(masks)} columns; expected one, or one for each of the "
            f"{len(targets)} targets"
        )
    part = read_split(split, name="table")
    by = [] if part is None or part.column is None else [part.column]
    others = {*targets, *masks, *([] if ids is None else [ids]), *by}
    chosen = [one for one in reader.names if one not in others] if features is None else features
    columns = reader.read(
        _listed(chosen), texts=[*targets, *by, *([ids] if ids else [])], masks=masks
    )

    mask_NM = None
    if masks:
        mask_NM = np.stack([reader.mask(columns[one], one) for one in masks], axis=1)
    labels_N, names, values = _target(
        reader,
        columns,
        targets,
        several=not isinstance(target, str),
        task=task,
        classes=classes,
        mask_NM=mask_NM,
        dtype=_DTYPES[dtype],
    )
    features_NF = np.empty((reader.count, len(chosen)), dtype=_DTYPES[dtype])
    for place, one in enumerate(chosen):
        features_NF[:, place] = reader.numbers(columns[one], one)

    rows_K = np.arange(reader.count, dtype=np.int64)
    if part is not None:
        rows_K = _rows(part, reader, columns, labels_N)
    scale = _scale(normalize, chosen, features_NF, part, reader, columns, labels_N)
    features_KF = features_NF[rows_K]
    if scale is not None:
        features_KF = ((features_KF.astype(np.float64) - scale[0]) / scale[1]).astype(
            _DTYPES[dtype]
        )
    tensors = [
        torch.from_numpy(features_KF),
        torch.from_numpy(np.ascontiguousarray(values[rows_K])),
    ]
    if mask_NM is not None:
        mask_KM = mask_NM[rows_K]
        tensors.append(torch.from_numpy(mask_KM if not isinstance(mask, str) else mask_KM[:, 0]))
    return InMemory(
        *tensors,
        names=("input", "target", "mask") if masks else (),
        classes=names,
        sample_ids=None if ids is None else _ids(reader, columns[ids], ids, rows_K),
        path_of=lambda position: reader.place(int(rows_K[position])),
        stamp=reader.files.stamp,
    )


def _listed(given: str | Sequence[str] | None) -> list[str]:
    return [given] if isinstance(given, str) else list(given or ())


def _fill(missing: Mapping[str, float] | None) -> float | None:
    if missing is None:
        return None
    fill = missing.get("fill") if isinstance(missing, Mapping) and len(missing) == 1 else None
    if isinstance(fill, bool) or not isinstance(fill, int | float) or not np.isfinite(fill):
        raise DataError(f"table: missing: found {missing!r:.80}; expected {{fill: 0.0}}")
    return float(fill)


def _target(
    reader: ColumnReader,
    columns: Mapping[str, pa.ChunkedArray],
    targets: Sequence[str],
    *,
    several: bool,
    task: str | None,
    classes: Sequence[str | int] | None,
    mask_NM: npt.NDArray[np.bool_] | None,
    dtype: Any,
) -> tuple[npt.NDArray[np.int64] | None, list[str] | None, Numbers]:
    """Labels where they are classes, names of these, and the targets as items have them."""
    if not targets:
        raise DataError("table: target: found none; expected a column, or a list of columns")
    listed = [_typed(columns[name]) for name in targets]
    measured = _is_measured(listed[0].type)
    places = range(len(targets)) if mask_NM is None or mask_NM.shape[1] > 1 else [0] * len(targets)
    if several or task == "regression" or (task is None and measured and classes is None):
        if classes is not None or (several and task == "classification"):
            raise DataError(
                "table: classes are of one target column, not of a list, nor of task: regression"
            )
        values_NT = np.stack(
            [
                _values(reader, column, name, None if mask_NM is None else mask_NM.T[place])
                for place, name, column in zip(places, targets, listed, strict=True)
            ],
            axis=1,
        ).astype(dtype)
        return None, None, values_NT if several else values_NT[:, 0]
    name, column = targets[0], listed[0]
    present_N = np.asarray(column.is_valid())
    needed_N = np.ones(reader.count, dtype=bool) if mask_NM is None else mask_NM[:, 0]
    reader.present(~present_N & needed_N, name)
    if is_text(column.type) or classes is not None:
        labels_N, names = _named_labels(reader, column, name, classes, present_N)
        return labels_N, names, labels_N
    labels_N = _whole(reader, column, name)
    truth = ["False", "True"] if pa.types.is_boolean(column.type) else None
    if task is None and len(np.unique(labels_N)) > MANY_CLASSES:
        logger.warning(
            "table: target %r has more than %d whole numbers, taken for classes; if they are "
            "measured values, state task: regression (or task: classification)",
            name,
            MANY_CLASSES,
        )
    return labels_N, truth, labels_N


def _typed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts of numbers as numbers: of CSV files the whole column tells its type."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not is_text(column.type):
        return column
    for kind in (pa.int64(), pa.float64()):
        try:
            return column.cast(kind)
        except pa.ArrowInvalid:
            continue
    return column


def _is_measured(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _values(
    reader: ColumnReader,
    column: pa.ChunkedArray,
    name: str,
    mask_N: npt.NDArray[np.bool_] | None,
) -> Numbers:
    if not is_number(column.type):
        raise DataError(
            f"table: {reader.first}, target {name!r}: of type {column.type}; expected numbers; "
            "state task: classification where its values are classes"
        )
    values_N = as_floats(column)
    missing_N = np.isnan(values_N)
    if mask_N is not None:
        values_N[missing_N & ~mask_N] = 0
        missing_N &= mask_N
    reader.present(missing_N, name)
    return reader.finite(values_N, name)


def _named_labels(
    reader: ColumnReader,
    column: pa.ChunkedArray,
    name: str,
    classes: Sequence[str | int] | None,
    present_N: npt.NDArray[np.bool_],
) -> tuple[npt.NDArray[np.int64], list[str]]:
    texts = column.cast(pa.string())
    if classes is None:
        names = sorted(one for one in texts.unique().to_pylist() if one is not None)
    else:
        names = [str(one) for one in classes]
        if len(set(names)) != len(names):
            raise DataError(f"table: classes: found one twice in {', '.join(names)}")
    codes_N = as_floats(pc.index_in(texts, value_set=pa.array(names, pa.string())))
    unknown_N = np.isnan(codes_N) & present_N
    if unknown_N.any():
        row = int(np.flatnonzero(unknown_N)[0])
        raise DataError(
            f"table: {reader.place(row)}, column {name!r}: found {texts[row].as_py()!r}, none of "
            f"the classes {', '.join(map(repr, names[:12]))}"
        )
    return np.nan_to_num(codes_N).astype(np.int64), names


def _whole(reader: ColumnReader, column: pa.ChunkedArray, name: str) -> npt.NDArray[np.int64]:
    if pa.types.is_integer(column.type):
        try:
            whole = column.cast(pa.int64()).fill_null(0)
        except pa.ArrowInvalid as error:
            message = f"table: {reader.first}, target {name!r}: {error}; expected labels"
            raise DataError(message) from error
        return np.array(whole.to_numpy(), dtype=np.int64)
    if not is_number(column.type):
        raise DataError(
            f"table: {reader.first}, target {name!r}: of type {column.type}; expected whole "
            "numbers or texts"
        )
    values_N = np.nan_to_num(as_floats(column))
    broken_N = values_N != np.floor(values_N)
    if broken_N.any():
        row = int(np.flatnonzero(broken_N)[0])
        raise DataError(
            f"table: {reader.place(row)}, column {name!r}: found {values_N[row]}, which is no "
            "class; expected whole numbers, or task: regression"
        )
    return values_N.astype(np.int64)


def _rows(
    part: Split,
    reader: ColumnReader,
    columns: Mapping[str, pa.ChunkedArray],
    labels_N: npt.NDArray[np.int64] | None,
) -> npt.NDArray[np.int64]:
    return split_rows(
        part,
        reader.count,
        labels_N=labels_N,
        name="table",
        column=lambda name: np.array(columns[name].to_pylist(), dtype=object),
    )


def _scale(
    normalize: str | Mapping[str, Any] | None,
    features: Sequence[str],
    features_NF: Numbers,
    part: Split | None,
    reader: ColumnReader,
    columns: Mapping[str, pa.ChunkedArray],
    labels_N: npt.NDArray[np.int64] | None,
) -> tuple[Numbers, Numbers] | None:
    """Mean and standard deviation of each feature, float64 of shape (F,); None: as they are."""
    if normalize is None:
        return None
    if normalize == "train":
        if part is None:
            raise DataError(
                "table: normalize: train: there is no `split` that says which rows train; give "
                "one, or state normalize: {mean: […], std: […]}"
            )
        rows_K = _rows(part.model_copy(update={"part": "train"}), reader, columns, labels_N)
        return _moments([features_NF[rows_K, place] for place in range(len(features))])
    if isinstance(normalize, Mapping) and set(normalize) == {"path"}:
        other = reader.like(normalize["path"])
        columns = other.read(features, texts=[], masks=[])
        dtype = features_NF.dtype
        return _moments([other.numbers(columns[one], one).astype(dtype) for one in features])
    if not isinstance(normalize, Mapping) or set(normalize) != {"mean", "std"}:
        raise DataError(
            f"table: normalize: found {normalize!r:.80}; expected train, {{path: ./train.csv}} or "
            "{mean: […], std: […]}"
        )
    mean_F, std_F = (_by_feature(normalize[one], features, one) for one in ("mean", "std"))
    if not (std_F > 0).all():
        raise DataError(f"table: normalize.std: found {std_F.min()}; expected numbers above 0")
    return mean_F, std_F


def _moments(columns_F: Sequence[Numbers]) -> tuple[Numbers, Numbers]:
    """Mean and standard deviation of each column; 1 where it is constant."""
    # A column at a time: sums of contiguous numbers are NumPy's pairwise ones on any machine.
    wide = [np.ascontiguousarray(one, dtype=np.float64) for one in columns_F]
    std_F = [one.std() if one.min() < one.max() else 1.0 for one in wide]
    return np.array([one.mean() for one in wide]), np.array(std_F)


def _by_feature(given: Any, features: Sequence[str], name: str) -> Numbers:
    try:
        values_F = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        values_F = np.full(0, np.nan)
    if values_F.shape not in {(), (len(features),)} or not np.isfinite(values_F).all():
        raise DataError(
            f"table: normalize.{name}: found {given!r:.80}; expected a number, or one for each of "
            f"the {len(features)} features: {', '.join(features[:12])}"
        )
    return np.broadcast_to(values_F, (len(features),))


def _ids(
    reader: ColumnReader, column: pa.ChunkedArray, name: str, rows_K: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64] | list[str]:
    column = _typed(column)
    if column.null_count:
        row = int(np.flatnonzero(~np.asarray(column.is_valid()))[0])
        raise DataError(f"table: {reader.place(row)}, column {name!r}: the id is missing")
    if pa.types.is_integer(column.type):
        return np.array(column.to_numpy(), dtype=np.int64)[rows_K]
    if not is_text(column.type):
        raise DataError(
            f"table: {reader.first}, ids: column {name!r} is of type {column.type}; expected whole "
            "numbers or texts"
        )
    texts = column.to_pylist()
    return [texts[row] for row in rows_K.tolist()]
