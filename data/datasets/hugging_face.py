"""Hugging Face's `datasets.Dataset` as a data set: rows by Arrow batches, told from its columns."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from epochal.data.datasets.split import Split, read_split, split_rows
from epochal.data.errors import DataError, passes_through
from epochal.data.hashing import ContentDigest, digest
from epochal.data.traces import in_one_line

if TYPE_CHECKING:
    from datasets import Dataset

# N rows, B of a batch

WHOLE_BYTES = 2 << 30
"""Up to so many bytes the content is hashed whole; of more, `SLICES` of `SLICE_ROWS` rows."""
SLICES, SLICE_ROWS, BLOCK_ROWS = 64, 256, 4096
_TARGETS = ("target", "label", "labels")
_LENGTHS = "input_ids"
_OWN_ITEMS = ("torch", "numpy", "custom")
"""Formats whose items are kept as they are: made for training, or by a transform of the user."""


def hugging_face(
    path: str,
    name: str | None = None,
    split: str | Split | Mapping[str, Any] | None = None,
    columns: Sequence[str] | None = None,
    *,
    rows: str = "train",
    lengths: str | None = None,
    target: str | None = None,
    ids: str | None = None,
    revision: str | None = None,
) -> HuggingFaceRows:
    """Rows of a `datasets.Dataset`, as dicts of their columns.

    path: a folder or address that `save_to_disk` has written, or what `load_dataset` takes; name,
    revision: as there. split: one of its splits, as `train` or `train[:10%]`; or our parts,
    `{part: …}`, of its split `rows`. columns: those that items have; none: all. lengths: a column
    of whole numbers or of lists that says how long an item is; none: `input_ids`, where there is
    such a column. target: the column of labels; none: `target`, `label` or `labels`. ids: of the
    samples' ids.

    Whole numbers, texts and None stay as they are; lists of numbers are tensors, int64 or float32;
    all else is as the library's format `torch` has it: an image is uint8 of shape (C, H, W).
    Raises DataError for what cannot be loaded, and for a column that is not there.
    """
    part = None if isinstance(split, str) else read_split(split, name="hugging_face")
    wanted = split if isinstance(split, str) else rows
    dataset = _loaded(path, name, wanted, revision)
    if part is not None:
        dataset = dataset.select(_part(dataset, part, target))
    return HuggingFaceRows(
        dataset,
        columns=columns,
        lengths=lengths,
        target=target,
        ids=ids,
        place=f"{Path(path).name}/{wanted}",
    )


def adapted(dataset: Any, *, name: str) -> Any:
    """A `datasets.Dataset` of a user's own target as rows that can be batched; all else as it is.

    name: the config's field, for the error. Raises DataError for a dict of data sets.
    """
    library = sys.modules.get("datasets")
    if library is None:
        return dataset
    if isinstance(dataset, library.DatasetDict):
        raise DataError(
            f"{name}: found a DatasetDict of {', '.join(map(str, dataset))}; expected one of "
            "them: return dataset['train']"
        )
    return HuggingFaceRows(dataset) if isinstance(dataset, library.Dataset) else dataset


class HuggingFaceRows:
    """Items are rows of a `datasets.Dataset`; a format or transform that was set on it is kept."""

    unread = True  # Arrow's files are mapped: no position that processes would share

    def __init__(
        self,
        dataset: Dataset,
        *,
        columns: Sequence[str] | None = None,
        lengths: str | None = None,
        target: str | None = None,
        ids: str | None = None,
        place: str = "",
    ) -> None:
        given: dict[str, Any] = dataset.format
        self._own_items = given["type"] in _OWN_ITEMS
        self.thread_safe = given["type"] != "custom"  # a transform may be anything
        known = list(dataset.column_names)
        for one in (*(columns or ()), *filter(None, (lengths, target, ids))):
            _check_column(one, known)
        shown = set(given["columns"] or known)
        self._columns = list(columns or [one for one in known if one in shown])
        self._dataset = dataset
        self._place = place
        if columns is not None and self._own_items and given["type"] != "custom":
            dataset = dataset.with_format(
                given["type"], columns=self._columns, **given["format_kwargs"]
            )
        self._rows = dataset if self._own_items else dataset.with_format("arrow")
        self._plain = dataset.with_format("arrow")
        self._tell(lengths, target, ids)

    def _tell(self, lengths: str | None, target: str | None, ids: str | None) -> None:
        """Sets what is known of targets, classes, lengths, sample_ids, and nothing else."""
        features = self._dataset.features
        target = target or next((one for one in _TARGETS if one in self._columns), None)
        if target is not None and (labels_N := _whole(self._dataset, target)) is not None:
            self.targets = labels_N
            names = getattr(features[target], "names", None)
            if names:
                self.classes = [str(one) for one in names]
        if lengths is None and _LENGTHS in self._columns and _is_list(self._dataset, _LENGTHS):
            lengths = _LENGTHS
        if lengths is not None:
            self.lengths = _lengths(self._dataset, lengths)
        if ids is not None:
            self.sample_ids = _ids(self._dataset, ids)
        if self._dataset.cache_files:
            self.stamp = self._stamp

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, position: int) -> Any:
        return self._rows[position] if self._own_items else self.__getitems__([position])[0]

    def __getitems__(self, positions: Sequence[int]) -> list[Any]:
        """The rows, in order."""
        if self._own_items:
            items: list[Any] = self._rows.__getitems__(list(positions))
            return items
        table = self._rows[list(positions)]
        parts = {name: self._part_of(table.column(name), name) for name in self._columns}
        return [
            {name: values[row] for name, values in parts.items()} for row in range(len(positions))
        ]

    def _part_of(self, column: pa.ChunkedArray, name: str) -> Sequence[Any]:
        """A column's values as items have them."""
        kind = column.type
        if _is_plain(self._dataset.features[name]) and _is_scalar(kind):
            values: list[Any] = column.to_pylist()
            return values
        if _is_plain(self._dataset.features[name]) and _is_numbers(kind):
            lines = _tensors(column.combine_chunks())
            if lines is not None:
                return lines
        formatter = _torch_formatter(self._dataset.features)
        decoded = formatter.format_column(pa.table({name: column}))
        return list(decoded)

    def fingerprint(self) -> str:
        """Names the content: not the library's own, which is of code, paths and times.

        A `map` whose function draws has one `_fingerprint` for other rows, and a set that was saved
        has another for the same rows.
        """
        content = ContentDigest("hugging-face")
        features = self._dataset.features.to_dict()
        told = json.dumps({name: features[name] for name in self._columns}, sort_keys=True)
        content.add("features", told.encode())
        count = len(self)
        content.add("rows", str(count).encode())
        share = count / max(self._dataset.data.num_rows, 1)
        if self._dataset.data.nbytes * share <= WHOLE_BYTES:
            spans = [(start, BLOCK_ROWS) for start in range(0, count, BLOCK_ROWS)]
        else:
            spans = [(count * step // SLICES, SLICE_ROWS) for step in range(SLICES)]
        for start, size in spans:
            table = self._plain[start : min(start + size, count)]
            for name in sorted(self._columns):
                _add(content, name, table.column(name).combine_chunks())
        return content.hexdigest()

    def path_of(self, position: int) -> str:
        """The row, in the set that it was loaded from."""
        indices = _indices(self._dataset)
        row = position if indices is None else int(indices[position])
        return f"{self._place} row {row}".strip()

    def _stamp(self) -> str:
        files = [Path(one["filename"]) for one in self._dataset.cache_files]
        stats = [(one.name, one.stat()) for one in files if one.is_file()]
        return digest("hugging-face-stamp", [[a, b.st_size, b.st_mtime_ns] for a, b in stats])


def _loaded(path: str, name: str | None, wanted: str, revision: str | None) -> Dataset:
    try:
        import datasets
    except ImportError as error:
        raise DataError("hugging_face: the package datasets is not installed") from error
    marks = ("state.json", "dataset_dict.json")
    saved = "://" in path or any(Path(path, one).is_file() for one in marks)
    try:
        if not saved:
            return datasets.load_dataset(path, name, split=wanted, revision=revision)
        found = datasets.load_from_disk(path)
    except BaseException as error:  # a builder may raise anything
        if passes_through(error):
            raise
        raise DataError(f"hugging_face: {path!r} cannot be loaded: {in_one_line(error)}") from error
    if isinstance(found, datasets.DatasetDict):
        if wanted not in found:
            raise DataError(
                f"hugging_face: split: {path!r} has no {wanted!r}; it has "
                f"{', '.join(map(str, found))}"
            )
        return found[wanted]
    return found


def _check_column(name: str, known: Sequence[str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise DataError(
            f"hugging_face: there is no column {name!r}; {hint}it has {', '.join(known)}"
        )


def _part(dataset: Dataset, part: Split, target: str | None) -> npt.NDArray[np.int64]:
    known = list(dataset.column_names)
    target = target or next((one for one in _TARGETS if one in known), None)
    if target is not None:
        _check_column(target, known)

    def column(name: str) -> npt.NDArray[Any]:
        _check_column(name, known)
        return np.array(list(dataset.with_format(None)[name]), dtype=object)

    return split_rows(
        part,
        len(dataset),
        labels_N=None if target is None else _whole(dataset, target),
        name="hugging_face",
        column=column,
    )


def _indices(dataset: Dataset) -> npt.NDArray[np.int64] | None:
    """The rows of the table that the set has, after `select` or `shuffle`; None: all in order."""
    indices = dataset._indices  # noqa: SLF001 - there is no public way that reads no rows
    return None if indices is None else np.asarray(indices.column(0), dtype=np.int64)


def _of_rows(dataset: Dataset, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    indices = _indices(dataset)
    return values if indices is None else values[indices]


def _whole(dataset: Dataset, name: str) -> npt.NDArray[np.int64] | None:
    column = dataset.data.column(name)
    if not pa.types.is_integer(column.type) or column.null_count:
        return None
    return _of_rows(dataset, np.asarray(column.to_numpy())).astype(np.int64)


def _lengths(dataset: Dataset, name: str) -> npt.NDArray[np.int64]:
    column = dataset.data.column(name)
    if not pa.types.is_integer(column.type):
        if not _is_list(dataset, name):
            raise DataError(
                f"hugging_face: lengths: column {name!r} is of type {column.type}; expected whole "
                "numbers, or lists"
            )
        column = pc.list_value_length(column)
    values = column.fill_null(0).to_numpy()
    return _of_rows(dataset, np.asarray(values)).astype(np.int64)


def _ids(dataset: Dataset, name: str) -> npt.NDArray[np.int64] | list[str]:
    column = dataset.data.column(name)
    if (whole := _whole(dataset, name)) is not None:
        return whole
    if column.null_count or not (
        pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    ):
        raise DataError(
            f"hugging_face: ids: column {name!r} is of type {column.type}, {column.null_count} "
            "missing; expected whole numbers or texts in all rows"
        )
    texts = np.array(column.to_pylist(), dtype=object)
    return [str(one) for one in _of_rows(dataset, texts)]


def _is_list(dataset: Dataset, name: str) -> bool:
    return _is_list_type(dataset.data.column(name).type)


def _is_list_type(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _is_plain(feature: Any) -> bool:
    """Whether a column holds what its Arrow type says: no image, audio or other encoded thing."""
    import datasets

    if isinstance(feature, datasets.Value | datasets.ClassLabel):
        return True
    if isinstance(feature, list):
        return all(map(_is_plain, feature))
    inner = getattr(feature, "feature", None)
    return isinstance(feature, datasets.Sequence | datasets.List) and _is_plain(inner)


def _is_scalar(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_null(kind)
    )


def _is_numbers(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    inner = kind.value_type
    return bool(pa.types.is_integer(inner) or pa.types.is_floating(inner))


def _tensors(lists: Any) -> list[torch.Tensor | None] | None:
    """A tensor for each list of numbers, None where there is none; None: numbers are missing."""
    values = lists.flatten()
    if values.null_count:
        return None
    dtype = np.int64 if pa.types.is_integer(values.type) else np.float32
    # Copied, as tensors may be written to.
    flat = torch.from_numpy(np.array(values.to_numpy(zero_copy_only=False), dtype=dtype))
    lengths = pc.list_value_length(lists)
    if not lists.null_count:
        return list(torch.split(flat, lengths.to_pylist()))
    present = iter(torch.split(flat, lengths.fill_null(0).to_pylist()))
    return [
        one if valid else None
        for one, valid in zip(present, lists.is_valid().to_pylist(), strict=True)
    ]


def _torch_formatter(features: Any) -> Any:
    from datasets.formatting import get_formatter

    return get_formatter("torch", features=features)


def _add(content: ContentDigest, name: str, array: Any) -> None:
    """Adds an array's values, however it is cut into chunks and whatever lies below its nulls."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        _add(content, name, array.storage)
    elif pa.types.is_dictionary(kind):
        _add(content, name, array.dictionary_decode())
    else:
        if array.null_count:
            content.add(f"{name} valid", np.packbits(np.asarray(array.is_valid())).tobytes())
        _add_values(content, name, array)


def _add_values(content: ContentDigest, name: str, array: Any) -> None:
    kind = array.type
    if pa.types.is_struct(kind):
        for place, field in enumerate(array.flatten()):
            _add(content, f"{name}.{kind.field(place).name}", field)
    elif _is_list_type(kind):
        _add_numbers(content, f"{name} lengths", pc.list_value_length(array))
        _add(content, f"{name}[]", array.flatten())
    elif pa.types.is_boolean(kind):
        _add_numbers(content, f"{name} {kind}", array.cast(pa.uint8()))
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        _add_numbers(content, f"{name} {kind}", array)
    elif pa.types.is_string(kind) or pa.types.is_binary(kind):
        large = array.cast(pa.large_binary()).fill_null(b"")
        _add_numbers(content, f"{name} lengths", pc.binary_length(large))
        offsets = np.frombuffer(large.buffers()[1], np.int64, len(large) + 1, 8 * large.offset)
        data = large.buffers()[2]
        content.add(name, b"" if data is None else memoryview(data)[offsets[0] : offsets[-1]])
    else:
        content.add(f"{name} {kind}", repr(array.to_pylist()).encode("utf-8", "surrogatepass"))


def _add_numbers(content: ContentDigest, name: str, array: Any) -> None:
    values = array.fill_null(0).to_numpy(zero_copy_only=False)
    content.add(name, np.ascontiguousarray(values).tobytes())
