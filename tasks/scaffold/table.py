"""A table of rows: what its columns hold, which may be the target, and a project for it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from epochal.data.errors import DataError, InputError
from epochal.data.files.columns import ColumnReader, as_floats, is_number, is_text
from epochal.tasks.scaffold.project import (
    OwnModel,
    Project,
    last_part,
    listed,
    project_name,
    render,
    seen_from,
)

MAX_CLASSES = 20
"""Of more distinct whole numbers in a target, values are meant."""

MAX_CATEGORIES = 32
"""Texts of a feature that become codes; a column of more is left out."""

FRACTION = 0.2
_TARGETS = ("target", "label", "labels", "class", "y", "outcome", "response")
_IDS = re.compile(r"(?i)(.*[_\s.-])?(id|uuid|key)|unnamed: 0|index|")
_MAX_TEXT_CLASSES = 1000
_MIN_ROWS = 10


@dataclass(frozen=True)
class Column:
    """A column of the table. kind: number, truth, text or other. ids: whether it names the rows."""

    name: str
    kind: str
    distinct: Sequence[Any]
    num_distinct: int
    missing: int
    ids: bool
    whole: bool
    mean: float
    std: float


@dataclass(frozen=True)
class FoundTable:
    """What was seen of the files that `path` names."""

    path: str
    columns: Sequence[Column]
    num_rows: int

    @property
    def likely_target(self) -> str:
        """A column of a name that says so, else the last that can be one."""
        usable = [one for one in self.columns if one.kind != "other" and not one.ids]
        if not usable:
            raise DataError(f"{self.path}: no column holds numbers or texts to learn")
        named = [one for one in usable if one.name.lower() in _TARGETS]
        return (named or usable[-1:])[0].name

    def column(self, name: str) -> Column:
        """The column of that name. Raises InputError."""
        for one in self.columns:
            if one.name == name:
                return one
        names = listed([one.name for one in self.columns], at_most=30)
        raise InputError(f"--target {name!r}: {self.path} has no such column; it has {names}")


def look_at_table(path: str) -> FoundTable:
    """Reads the table, as training does. Raises DataError, naming what is wrong."""
    reader = ColumnReader(path, {}, None)
    read = reader.everything()
    if read.num_rows < _MIN_ROWS:
        raise DataError(
            f"{path}: {read.num_rows} rows; expected {_MIN_ROWS} at least, to learn some and try "
            "others"
        )
    names = read.column_names
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{path} has the column {name!r} twice; rename one")
    columns = [_column(name, read.column(name)) for name in names]
    return FoundTable(path, columns, read.num_rows)


def _column(name: str, values: pa.ChunkedArray) -> Column:
    kind = values.type
    if pa.types.is_dictionary(kind):
        values = values.cast(kind.value_type)
    called = (
        "other" if pa.types.is_null(kind)
        else "truth" if pa.types.is_boolean(kind)
        else "number" if is_number(kind)
        else "text" if is_text(kind)
        else "other"
    )  # fmt: skip
    if called == "other":
        return Column(name, called, (), 0, values.null_count, False, False, 0.0, 1.0)
    distinct = pc.unique(values.drop_null())
    numbers = as_floats(values) if called != "text" else np.zeros(0)
    known = numbers[np.isfinite(numbers)]
    unique = len(distinct) == len(values)
    whole = bool(len(known)) and bool((known == np.floor(known)).all())
    # As ids rows may have whole numbers from 0, or texts.
    names_rows = unique and _IDS.fullmatch(name) is not None
    if called != "text":
        names_rows = names_rows and pa.types.is_integer(kind) and bool(known.min() >= 0)
    shown = sorted(distinct.to_pylist()) if len(distinct) <= _MAX_TEXT_CLASSES else ()
    return Column(
        name=name,
        kind=called,
        distinct=shown,
        num_distinct=len(distinct),
        missing=len(values) - len(known) if called != "text" else values.null_count,
        ids=names_rows,
        whole=whole and not pa.types.is_floating(kind),
        mean=float(known.mean()) if len(known) else 0.0,
        std=float(known.std()) if len(known) else 1.0,
    )


def table_project(
    found: FoundTable, *, target: str, name: str | None, folder: Path, model: OwnModel | None
) -> Project:
    """The config, and a small network where there is no `model`. Raises InputError, DataError."""
    name = project_name(name, instead=last_part(found.path))
    aim = found.column(target)
    classes = _classes(found, aim)
    features, ids, left_out = _features(found, aim)
    categories = {one.name: list(one.distinct) for one in features if one.kind == "text"}
    args: dict[str, Any] = {"path": seen_from(found.path, folder), "target": target}
    if left_out or ids is not None:
        args["features"] = [one.name for one in features]
    if ids is not None:
        args["ids"] = ids
    if classes is None and aim.whole:
        args["task"] = "regression"
    if classes is not None and aim.kind == "number" and list(classes) != list(range(len(classes))):
        args["classes"] = list(classes)
    if categories:
        args["categories"] = categories
    if any(one.missing for one in features):
        args["missing"] = {"fill": 0.0}
    split = {"fraction": FRACTION, "seed": 0}
    outputs: Mapping[str, Any] = (
        {"classes": len(classes)}
        if classes is not None
        else {"mean": _rounded(aim.mean), "std": _rounded(aim.std) or 1.0}
    )
    template = "MLP" if classes is not None else "Regression"
    config = render(
        "table.yaml",
        name=name,
        count=found.num_rows,
        path=seen_from(found.path, folder),
        target=target,
        classes=classes,
        model=OwnModel(f"model:{template}", {"features": len(features), **outputs})
        if model is None
        else model,
        own_model=model is not None,
        train={**args, "normalize": "train", "split": {"part": "train", **split}},
        validation={**args, "normalize": "train", "split": {"part": "validation", **split}},
        batch_size=32 if found.num_rows < 20_000 else 256,  # noqa: PLR2004 - some hundred updates
    )
    files = {f"{name}.yaml": config}
    if model is None:
        files["model.py"] = render("table.model.py", classes=classes)
    says = (
        f"{target}: {len(classes)} classes, {listed([str(one) for one in classes])}"
        if classes is not None
        else f"{target}: a number, {aim.mean:.4g} ± {aim.std:.4g}"
    )
    seen = [
        ("rows", f"{found.num_rows:,} in {found.path}"),
        ("target", says),
        ("features", f"{len(features)}: {listed([one.name for one in features])}"),
        *([("names rows", ids)] if ids is not None else []),
        *([("codes", listed(list(categories)))] if categories else []),
        ("held out", f"{round(FRACTION * found.num_rows):,} rows for validation"),
    ]
    notes = [
        *(f"column {one.name!r} is left out: {why}" for one, why in left_out),
        *(
            f"column {one.name!r} lacks {one.missing:,} of {found.num_rows:,} numbers, for which "
            "stands 0: `missing:`"
            for one in features
            if one.missing
        ),
    ]
    return Project(kind="table", name=name, files=files, found=seen, notes=notes)


def known_of_table(found: FoundTable, target: str) -> dict[str, int | None]:
    """What a model of one's own may be told: how many features and classes there are."""
    aim = found.column(target)
    classes = _classes(found, aim)
    features, _, _ = _features(found, aim)
    return {"features": len(features), "classes": None if classes is None else len(classes)}


def _classes(found: FoundTable, aim: Column) -> Sequence[Any] | None:
    """What the target tells apart; None where it is a number to be estimated."""
    place = f"{found.path}, column {aim.name!r}"
    if aim.kind == "other" or not aim.num_distinct:
        raise InputError(f"{place}: is no column of numbers or texts; name another with --target")
    if aim.missing:
        raise DataError(
            f"{place}: {aim.missing:,} of {found.num_rows:,} rows have no target; leave them out "
            "of the file, or name a column that says which count: `mask` of "
            "epochal.data.datasets:table"
        )
    if aim.num_distinct == 1:
        raise DataError(f"{place}: is {aim.distinct[0]!r} in every row: there is nothing to learn")
    if aim.kind == "text":
        if aim.num_distinct > min(_MAX_TEXT_CLASSES, found.num_rows // 2):
            raise DataError(
                f"{place}: has {aim.num_distinct:,} different texts in {found.num_rows:,} rows, "
                "too many for classes; name another with --target"
            )
        return aim.distinct
    is_few = aim.whole and aim.num_distinct <= MAX_CLASSES
    return aim.distinct if aim.kind == "truth" or is_few else None


def _features(
    found: FoundTable, aim: Column
) -> tuple[list[Column], str | None, list[tuple[Column, str]]]:
    """The columns to learn from, the one that names rows, and those that are left out, and why."""
    features: list[Column] = []
    ids: str | None = None
    left_out: list[tuple[Column, str]] = []
    for one in found.columns:
        if one is aim:
            continue
        if one.ids and one.name and ids is None and not one.missing:
            ids = one.name
        elif one.ids:
            left_out.append((one, "it numbers the rows"))
        elif one.kind == "other":
            left_out.append((one, "it holds neither numbers nor texts"))
        elif one.kind == "text" and (one.num_distinct > MAX_CATEGORIES or one.missing):
            why = f"it has {one.num_distinct:,} different texts"
            left_out.append((one, why if not one.missing else f"{one.missing:,} texts are missing"))
        else:
            features.append(one)
    if not features:
        raise DataError(
            f"{found.path}: beside {aim.name!r} no column holds numbers or a few different texts. "
            f"For texts of any kind: `epochal init MODEL --kind huggingface --data {found.path}`"
        )
    return features, ids, left_out


def _rounded(value: float) -> float:
    """Four digits: enough to bring outputs to the size of the target."""
    return float(f"{value:.4g}") if math.isfinite(value) else 0.0
