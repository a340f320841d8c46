"""Images in Parquet files, as the Hugging Face hub has them; on any storage."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from epochal.data.datasets.image_items import add_transformed
from epochal.data.datasets.split import Split, read_split, split_rows
from epochal.data.errors import DataError
from epochal.data.files.images import Decoding
from epochal.data.files.local_cache import recall, remember
from epochal.data.files.parquet import GROUPS_BYTES, ParquetFiles, RowGroups
from epochal.data.hashing import ContentDigest, canonical_json

# N samples of the part in use, R rows of all files, G blocks, C channels, H height, W width

MAX_HASHED_BYTES = 256_000_000
"""Up to here the fingerprint reads all bytes of all files; else 64 pieces of 64 KiB."""

MIN_REMEMBERED = 50_000  # rows from which on a later start does not read the labels again
_VERSION = 1
NUM_HASHED, HASHED_BYTES = 64, 1 << 16
_NAME = "parquet_images"

logger = logging.getLogger(__name__)


def parquet_images(
    path: str,
    image: str = "image",
    label: str = "label",
    split: Split | Mapping[str, Any] | None = None,
    *,
    mode: str = "RGB",
    resize: Sequence[int] | None = None,
    interpolation: str = "bilinear",
    dtype: str = "float32",
    transform: Callable[[Any], Any] | None = None,
) -> ParquetImages:
    """Encoded images in a column of Parquet files, and their labels in another.

    path: a file, a folder of files, a pattern (`./data/train-*.parquet`) or any address of fsspec.
    image: a column of structs with `bytes`, as the Hugging Face hub has them, or of plain
    bytes. label: a column of whole numbers, whose names come from the hub's metadata, or of
    texts, which are then the classes by name. An item is `(image, label)`: float32 of shape (C,
    H, W) from 0 to 1, turned by its EXIF orientation, and a whole number. The other arguments
    are those of `image_folder`.

    Only footers and labels are read before items; an item costs its whole row group, which is then
    kept for others. Raises DataError, naming file and row.
    """
    return ParquetImages(
        path,
        image=image,
        label=label,
        split=read_split(split, name=_NAME),
        decoding=Decoding.checked(
            name=_NAME, mode=mode, resize=resize, interpolation=interpolation, dtype=dtype
        ),
        transform=transform,
    )


class ParquetImages:
    """What `parquet_images` returns."""

    def __init__(
        self,
        path: str,
        *,
        image: str,
        label: str,
        split: Split | None,
        decoding: Decoding,
        transform: Callable[[Any], Any] | None,
    ) -> None:
        self._files = ParquetFiles(path, name=_NAME)
        self._image = image
        self._label = label
        self._split = split
        self._decoding = decoding
        self._transform = transform
        self._groups = RowGroups(self._files, _leaf(self._files, image))
        names, labels_R = _labels(self._files, label)
        if names is not None:
            self.classes: list[str] = names
        self._rows_N = (
            None
            if split is None
            else split_rows(split, self._files.num_rows, labels_N=labels_R, name=_NAME)
        )
        self.targets: npt.NDArray[np.int64] = (
            labels_R if self._rows_N is None else labels_R[self._rows_N]
        )
        # A transform is the user's: see `image_folder`.
        self.thread_safe = self.unread = transform is None
        if transform is not None:
            # It may draw, and is seeded for each sample where items are read one by one.
            self.__getitems__ = None  # type: ignore[method-assign, assignment]  # as if there were none
        self._tell_of_large_groups(path)

    def _tell_of_large_groups(self, path: str) -> None:
        largest = max(self._groups.num_bytes_G)
        if largest > GROUPS_BYTES // 4:
            logger.warning(
                "%s: %s: a row group has up to %d MB of images, and an item costs the whole of "
                "its group; write the files with 100 rows in a group or so "
                "(`pyarrow.parquet.write_table(table, path, row_group_size=100)`)",
                _NAME,
                path,
                largest // 1_000_000,
            )

    def __len__(self) -> int:
        return self._files.num_rows if self._rows_N is None else len(self._rows_N)

    def __getitem__(self, position: int) -> Any:
        """`(image, label)`. Raises DataError."""
        return self._items([position], self._decoding)[0]

    def __getitems__(self, positions: Sequence[int]) -> list[Any]:
        """The items at these positions, in their order; each row group is read once."""
        return self._items(positions, self._decoding)

    def item_at_size(self, position: int, height: int, width: int) -> Any:
        """The item with its image at that size."""
        return self._items([position], self._decoding.at_size(height, width))[0]

    def path_of(self, position: int) -> str:
        """`train-3.parquet row 17`: the row of the file, from 0."""
        return self._files.row_name(self._row(position))

    @cached_property
    def _blocks(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Where blocks begin, and the row group of each: those without a row of the part go."""
        first_G1 = self._files.first_G1
        if self._rows_N is not None:
            first_G1 = np.searchsorted(self._rows_N, first_G1).astype(np.int64)
        groups = np.flatnonzero(np.diff(first_G1))
        return np.append(first_G1[groups], first_G1[-1]), groups

    @property
    def blocks(self) -> npt.NDArray[np.int64]:
        """Where each row group's samples begin, and their end: int64 of shape (G + 1,)."""
        return self._blocks[0]

    def will_read(self, blocks: Iterable[int]) -> None:
        """These blocks are read next, in this order."""
        self._groups.will_read([int(self._blocks[1][block]) for block in blocks])

    def fingerprint(self) -> str:
        """Names the content: sizes and footers of all files, all labels, what is made of them.

        Beside that all bytes of all files, where they are at most 256 MB, else 64 pieces of them.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        content = ContentDigest("parquet-images")
        made = {
            "image": self._image,
            "label": self._label,
            "mode": self._decoding.mode,
            "resize": self._decoding.resize,
            "interpolation": self._decoding.interpolation,
            "dtype": self._decoding.dtype,
            "split": None if self._split is None else self._split.model_dump(),
            "classes": getattr(self, "classes", None),
        }
        content.add("made", canonical_json(made))
        for file in self._files.files:
            content.add("size", str(file.size).encode())
            content.add("footer", file.footer)
        content.add("labels", self.targets.astype("<i8").tobytes())
        for data in self._files.spread_bytes(
            num_pieces=NUM_HASHED, piece_bytes=HASHED_BYTES, whole_below=MAX_HASHED_BYTES
        ):
            content.add("bytes", data)
        if self._transform is not None:
            add_transformed(content, self, name=_NAME)
        return content.hexdigest()

    def stamp(self) -> str:
        """Changes with the name, size and time of change, or ETag, of any file."""
        content = ContentDigest("parquet-images-stamp")
        for file in self._files.files:
            content.add("file", canonical_json([file.name, file.size, file.stamp]))
        return content.hexdigest()

    def _row(self, position: int) -> int:
        position = range(len(self))[position]
        return position if self._rows_N is None else int(self._rows_N[position])

    def _items(self, positions: Sequence[int], decoding: Decoding) -> list[Any]:
        rows = [self._row(position) for position in positions]
        groups = [self._files.group_of(row) for row in rows]
        images = self._images(rows, groups)
        items = []
        for position, row, data in zip(positions, rows, images, strict=True):
            image = decoding.image(data, self._place(row))
            made = decoding.tensor(image) if self._transform is None else self._transform(image)
            items.append((made, int(self.targets[position])))
        return items

    def _images(self, rows: Sequence[int], groups: Sequence[int]) -> list[bytes]:
        images: list[bytes] = [b""] * len(rows)
        of_group: dict[int, list[int]] = {}
        for place, group in enumerate(groups):
            of_group.setdefault(group, []).append(place)
        for run in self._groups.together(sorted(of_group)):
            for group, values in zip(run, self._groups.get(run), strict=True):
                first = int(self._files.first_G1[group])
                for place in of_group[group]:
                    images[place] = self._bytes(values, rows[place] - first, rows[place])
        return images

    def _bytes(self, values: pa.Array, at: int, row: int) -> bytes:
        data = values[at].as_py()
        if data is None:
            raise DataError(
                f"{_NAME}: {self._place(row)}: found no bytes in the column {self._image!r}; "
                "expected an encoded image in each row: write the files with the images in them "
                "(`dataset.push_to_hub(…, embed_external_files=True)`)"
            )
        return bytes(data)

    def _place(self, row: int) -> str:
        return self._files.reader.address(self._files.row_name(row))


def _leaf(files: ParquetFiles, column: str) -> str:
    """What is to be read of the column: itself, or its `bytes`. Raises DataError."""
    kind = files.field(column).type
    if _is_binary(kind):
        return column
    if pa.types.is_struct(kind) and "bytes" in kind.names and _is_binary(kind.field("bytes").type):
        return f"{column}.bytes"
    raise DataError(
        f"{_NAME}: {files.place(0)}: the column {column!r} has the type {kind}; expected bytes, or "
        "a struct with `bytes`; correct `image`"
    )


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _labels(files: ParquetFiles, column: str) -> tuple[list[str] | None, npt.NDArray[np.int64]]:
    """The classes' names, if any, and each row's label: int64 of shape (R,). Raises DataError.

    Remembered where there are many rows: a second start reads footers alone.
    """
    key = None
    if files.num_rows >= MIN_REMEMBERED and all(file.stamp for file in files.files):
        content = ContentDigest("labels")
        content.add("column", canonical_json([_VERSION, column]))
        for file in files.files:
            content.add("file", canonical_json([file.name, file.size, file.stamp]))
            content.add("footer", file.footer)
        key = content.hexdigest()
        if data := recall("labels", key):
            table = pa.ipc.open_stream(pa.BufferReader(data)).read_all()
            return json.loads(table.schema.metadata[b"classes"]), table.column(0).to_numpy()
    names, labels_R = _read_labels(files, column)
    if key is not None:
        metadata = {"classes": json.dumps(names)}
        batch = pa.record_batch(
            [pa.array(labels_R)], schema=pa.schema([("label", pa.int64())], metadata)
        )
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        remember("labels", key, memoryview(sink.getvalue()))
    return names, labels_R


def _read_labels(
    files: ParquetFiles, column: str
) -> tuple[list[str] | None, npt.NDArray[np.int64]]:
    kind = files.field(column).type
    texts = pa.types.is_dictionary(kind) or pa.types.is_string(kind)
    if not (texts or pa.types.is_large_string(kind) or pa.types.is_integer(kind)):
        raise DataError(
            f"{_NAME}: {files.place(0)}: the column {column!r} has the type {kind}; expected whole "
            "numbers, or texts that name classes; correct `label`; for other targets use "
            "epochal.data.datasets:table"
        )
    values = files.column(column)
    if values.null_count:
        row = int(np.flatnonzero(values.is_null().to_numpy())[0])
        raise DataError(
            f"{_NAME}: {files.reader.address(files.row_name(row))}: found no label, as in "
            f"{values.null_count} rows; expected one in each: write files without these rows"
        )
    if pa.types.is_integer(kind):
        return _names(files, column), values.cast(pa.int64()).to_numpy().astype(np.int64)
    texts_R = values.cast(pa.large_string())
    names = sorted(pc.unique(texts_R).to_pylist())
    return names, pc.index_in(texts_R, pa.array(names, pa.large_string())).to_numpy().astype(
        np.int64
    )


def _names(files: ParquetFiles, column: str) -> list[str] | None:
    """The names of the classes in the metadata that Hugging Face's `datasets` writes."""
    found = [_class_label(file.metadata.metadata, column) for file in files.files]
    for number, names in enumerate(found):
        if names != found[0]:
            raise DataError(
                f"{_NAME}: {files.place(number)} names other classes than {files.place(0)}; "
                "expected files of one data set"
            )
    return found[0]


def _class_label(metadata: dict[bytes, bytes] | None, column: str) -> list[str] | None:
    try:
        told = json.loads((metadata or {}).get(b"huggingface", b"{}"))
        feature = told["info"]["features"][column]
        names = feature["names"] if feature["_type"] == "ClassLabel" else None
    except (ValueError, KeyError, TypeError):
        return None
    is_names = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return list(names) if names and is_names else None
