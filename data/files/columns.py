"""Columns of tables: of CSV, TSV, Parquet, Arrow and Feather files, one file after the other."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, ipc, parquet

from epochal.data.errors import DataError, EpochalError
from epochal.data.files.named import Files, kind_of, list_files
from epochal.data.traces import in_one_line

# N rows

SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
SUFFIXES = (*SEPARATORS, ".parquet", ".arrow", ".feather")
_NULLS = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "#N/A", "-nan", "-NaN")

Numbers = npt.NDArray[Any]


@dataclass(frozen=True)
class _Part:
    """The rows of one file: from `start` on of all."""

    name: str
    start: int


class ColumnReader:
    """Columns of all files, one after the other, and where a row of theirs lies."""

    def __init__(
        self, path: str, categories: Mapping[str, Sequence[str]], fill: float | None
    ) -> None:
        # Arrow would watch for Ctrl-C with a pipe of its own, whose numbers it closes in every fork
        # that follows; what a signal does, the process decides.
        pa.enable_signal_handlers(False)
        self.files: Files = list_files(path, suffixes=SUFFIXES, name="table")
        self._categories = categories
        self._fill = fill
        self._parts: list[_Part] = []
        self._kinds = [kind_of(file.name) for file in self.files]
        self.count = 0
        for file, kind in zip(self.files, self._kinds, strict=True):
            if kind not in SUFFIXES:
                raise DataError(
                    f"table: {file.name}: expected a file that ends in one of {', '.join(SUFFIXES)}"
                )
        self._schema = self._schema_of(0)
        self.names: list[str] = list(self._schema.names)

    def like(self, path: str) -> ColumnReader:
        """A reader of another table, whose features are made the same way."""
        return ColumnReader(path, self._categories, self._fill)

    @property
    def first(self) -> str:
        """The name of the first file."""
        return self.files[0].name

    def read(
        self, features: Sequence[str], *, texts: Sequence[str], masks: Sequence[str]
    ) -> dict[str, pa.ChunkedArray]:
        """The columns by name. texts: of which CSV files tell no type. Raises DataError."""
        wanted = list(dict.fromkeys([*features, *texts, *masks]))
        if not features:
            raise DataError("table: features: there is no column left; expected one at least")
        for name in self._categories:
            if name not in features:
                raise DataError(f"table: categories: {name!r} is none of the features")
        self._check_names(wanted, self.names, self.first)
        read: list[pa.Table] = []
        for number, file in enumerate(self.files):
            schema = self._schema if number == 0 else self._schema_of(number)
            self._check_names(wanted, schema.names, file.name)
            for name in features if self._kinds[number] not in SEPARATORS else ():
                self._check_type(schema.field(name).type, name, file.name)
            part = self._table(number, wanted, features, texts, schema)
            self._parts.append(_Part(file.name, self.count))
            self.count += part.num_rows
            read.append(part)
        if not self.count:
            raise DataError(f"table: {self.first}: no rows; expected one at least")
        try:
            whole = pa.concat_tables(read, promote_options="permissive")
        except pa.ArrowException as error:
            raise DataError(f"table: the files' columns have other types: {error}") from error
        return {name: whole.column(name) for name in wanted}

    def everything(self) -> pa.Table:
        """All columns of all files, of the types that the files tell. Raises DataError."""
        read = []
        for number, kind in enumerate(self._kinds):
            with self.files.opened(number) as stream, self._told(number):
                if kind == ".parquet":
                    read.append(parquet.read_table(stream))
                elif kind in SEPARATORS:
                    options = {"parse_options": _parse(kind), "convert_options": _convert()}
                    read.append(csv.read_csv(stream, **options))
                else:
                    read.append(_arrow_reader(stream).read_all())
        with self._told(0):
            return pa.concat_tables(read, promote_options="permissive")

    def numbers(self, column: pa.ChunkedArray, name: str) -> Numbers:
        """A feature's numbers, float64 of shape (N,). Raises DataError for what is none."""
        if name in self._categories:
            return self._codes(column, name)
        if is_text(column.type):  # of a CSV file
            self._refuse_texts(column, name)
        values_N = as_floats(column)
        missing_N = np.isnan(values_N)
        if missing_N.any():
            if self._fill is None:
                raise DataError(
                    f"table: {self._where(missing_N, name)}: missing; expected a number; state "
                    "missing: {fill: 0.0} for a number that stands for it, or leave the row out"
                )
            values_N[missing_N] = self._fill
        return self.finite(values_N, name)

    def _refuse_texts(self, column: pa.ChunkedArray, name: str) -> None:
        good_N = np.array([one is None or is_float(one) for one in column.to_pylist()])
        if good_N.all():
            return
        value = column[int(np.flatnonzero(~good_N)[0])].as_py()
        hint = "mend the cell, or leave the row out"
        if good_N.sum() < len(good_N) / 2:
            hint = _of_texts(name)
        raise DataError(
            f"table: {self._where(~good_N, name)}: found {value!r:.60}; expected a number; {hint}"
        )

    def finite(self, values_N: Numbers, name: str) -> Numbers:
        """The values. Raises DataError for one that is not finite."""
        if not (good_N := np.isfinite(values_N)).all():
            raise DataError(
                f"table: {self._where(~good_N, name)}: found {values_N[~good_N][0]}; expected a "
                "finite number"
            )
        return values_N

    def present(self, missing_N: npt.NDArray[np.bool_], name: str) -> None:
        """Raises DataError where a target is missing."""
        if missing_N.any():
            raise DataError(
                f"table: {self._where(missing_N, name)}: the target is missing; leave the row "
                "out, or name a `mask` column that is false there"
            )

    def mask(self, column: pa.ChunkedArray, name: str) -> npt.NDArray[np.bool_]:
        """True and false, of shape (N,). Raises DataError for what is neither."""
        values_N = as_floats(column)
        good_N = (values_N == 0) | (values_N == 1)
        if not good_N.all():
            raise DataError(
                f"table: {self._where(~good_N, name)}: found {values_N[~good_N][0]} in a mask; "
                "expected true and false, or 1 and 0"
            )
        true_N: npt.NDArray[np.bool_] = values_N == 1
        return true_N

    def place(self, row: int) -> str:
        """File and row in it, from 0 without its header."""
        starts = [part.start for part in self._parts]
        part = self._parts[int(np.searchsorted(starts, row, side="right")) - 1]
        return f"{part.name} row {row - part.start}"

    def _where(self, bad_N: npt.NDArray[np.bool_], name: str) -> str:
        rows = np.flatnonzero(bad_N)
        more = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
        return f"{self.place(int(rows[0]))}, column {name!r}{more}"

    def _codes(self, column: pa.ChunkedArray, name: str) -> Numbers:
        known = [str(one) for one in self._categories[name]]
        column = column.cast(pa.string())
        codes = pc.index_in(column, value_set=pa.array(known, pa.string()))
        codes_N = as_floats(codes)
        unknown_N = np.isnan(codes_N)
        if unknown_N.any():
            value = column[int(np.flatnonzero(unknown_N)[0])].as_py()
            raise DataError(
                f"table: {self._where(unknown_N, name)}: found {value!r}; expected one of the "
                f"categories {', '.join(map(repr, known[:12]))}"
            )
        return codes_N

    def _check_names(self, wanted: Sequence[str], names: Sequence[str], file: str) -> None:
        for name in wanted:
            if list(names).count(name) > 1:
                raise DataError(f"table: {file} has the column {name!r} twice; rename one")
            if name not in names:
                near = difflib.get_close_matches(str(name), names, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise DataError(
                    f"table: {file} has no column {name!r}; {hint}it has "
                    f"{', '.join(map(str, list(names)[:30]))}{', …' if len(names) > 30 else ''}"  # noqa: PLR2004 - as many as a person reads
                )

    def _check_type(self, kind: pa.DataType, name: str, file: str) -> None:
        if name in self._categories or is_number(kind) or pa.types.is_null(kind):
            return
        if is_text(kind):
            raise DataError(f"table: {file}, column {name!r}: expected numbers; {_of_texts(name)}")
        raise DataError(
            f"table: {file}, column {name!r} is of type {kind}; expected numbers; leave it out of "
            "`features`, or convert it"
        )

    def _schema_of(self, number: int) -> pa.Schema:
        with self.files.opened(number) as stream, self._told(number):
            schema = _schema(stream, self._kinds[number])
            list(schema.names)  # raises for names that are no texts in UTF-8
        return schema

    def _table(
        self,
        number: int,
        wanted: Sequence[str],
        features: Sequence[str],
        texts: Sequence[str],
        schema: pa.Schema,
    ) -> pa.Table:
        kind = self._kinds[number]
        with self.files.opened(number) as stream, self._told(number):
            if kind not in SEPARATORS:
                if kind == ".parquet":
                    whole = parquet.read_table(stream, columns=list(wanted))
                else:
                    whole = _arrow_reader(stream).read_all().select(list(wanted))
                whole.validate(full=True)  # a damaged length would end the process at its use
                return whole
            types = {one: pa.string() for one in (*self._categories, *texts)}
            numbers = {
                one: pa.float64()
                for one in features
                if one not in types and not pa.types.is_boolean(schema.field(one).type)
            }
            options = {"read_options": None, "parse_options": _parse(kind)}
            convert = {"include_columns": list(wanted)}
            try:
                return csv.read_csv(
                    stream,
                    convert_options=_convert(column_types={**types, **numbers}, **convert),
                    **options,
                )
            except pa.ArrowInvalid:
                pass
        # Something is no number: read as texts it is found by `numbers`, which tells where.
        types |= dict.fromkeys([*numbers, *features], pa.string())
        with self.files.opened(number) as stream, self._told(number):
            return csv.read_csv(
                stream, convert_options=_convert(column_types=types, **convert), **options
            )

    def _told(self, number: int) -> _Told:
        return _Told(self.files[number].name)


def _of_texts(name: str) -> str:
    return (
        "texts are no features: name the columns that are, in `features`, or state categories: "
        f"{{{name}: [first, second]}}, whose codes 0, 1, … stand for the texts"
    )


class _Told:
    """Tells the file of what Arrow cannot read."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # Of damaged bytes Arrow and the unpackers raise errors of many kinds.
        if isinstance(error, Exception) and not isinstance(error, EpochalError):
            text = in_one_line(error)
            raise DataError(f"table: {self._name} cannot be read: {text:.400}") from error


def _schema(stream: Any, kind: str) -> pa.Schema:
    if kind == ".parquet":
        return parquet.read_schema(stream)
    if kind not in SEPARATORS:
        return _arrow_reader(stream).schema
    return csv.open_csv(stream, parse_options=_parse(kind), convert_options=_convert()).schema


def _parse(kind: str) -> csv.ParseOptions:
    return csv.ParseOptions(delimiter=SEPARATORS[kind], newlines_in_values=True)


def _convert(**more: Any) -> csv.ConvertOptions:
    return csv.ConvertOptions(null_values=list(_NULLS), strings_can_be_null=True, **more)


def _arrow_reader(stream: Any) -> Any:
    """Of the file format, or of the stream format that `datasets` writes."""
    try:
        file = ipc.open_file(stream)
    except pa.ArrowInvalid:
        stream.seek(0)
        return ipc.open_stream(stream)
    return _OfFile(file)


class _OfFile:
    def __init__(self, file: Any) -> None:
        self._file = file
        self.schema = file.schema

    def read_all(self) -> pa.Table:
        return self._file.read_all()


def is_float(text: str) -> bool:
    """Whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def is_number(kind: pa.DataType) -> bool:
    """Whether a column of that type holds numbers, or true and false."""
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    )


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of that type holds texts."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def as_floats(column: pa.ChunkedArray) -> Numbers:
    """Float64 of shape (N,), NaN where there is nothing."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    values_N = column.cast(pa.float64(), safe=False).fill_null(float("nan")).to_numpy()
    return np.array(values_N, dtype=np.float64)
