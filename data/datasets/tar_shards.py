"""Tar shards in WebDataset's layout as a map-style data set: any sample at once, by an index.

Files of an archive that follow one another and share their name up to its first dot are the parts
of one sample: `000017.jpg`, `000017.cls`. Shards are never unpacked: an index knows where in them
each part lies. It is made of their headers at the first opening, or by `epochal data index`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from epochal.data.datasets.image_items import add_transformed
from epochal.data.datasets.split import Split, read_split, split_rows
from epochal.data.errors import DataError
from epochal.data.files.images import Decoding
from epochal.data.hashing import ContentDigest, canonical_json, digest
from epochal.data.indexing.build import Progress, open_index
from epochal.data.indexing.index import Index
from epochal.data.indexing.parts import (
    NUMBERS,
    Undecodable,
    decode,
    is_image,
    is_mask,
    join_item,
)
from epochal.data.indexing.shard_files import EXPECTED, Block, ShardFiles, list_shards

# N samples of the data set, S shards, G blocks

_NAME = "tar_shards"
BLOCK_BYTES = 8 << 20
"""Of a block: what is fetched at once from a remote storage; the rest of a shard is another."""
_ROWS = 1 << 20
_CHECKED_NAME = 100
"""Bytes of a member's name that its own header holds."""


def tar_shards(
    path: str | os.PathLike[str],
    *,
    image: str | None = None,
    label: str | None = "cls",
    parts: Sequence[str] | Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
    ids: str = "position",
    index: str | None = None,
    split: Split | Mapping[str, Any] | None = None,
    mode: str = "RGB",
    resize: Sequence[int] | None = None,
    interpolation: str = "bilinear",
    dtype: str = "float32",
    transform: Callable[[Any], Any] | None = None,
    progress: Progress | None = None,
) -> TarShards:
    """Samples of tar shards; an item is `(image, label)`.

    path: a tar file, a folder of them, a pattern (`shard-{000000..000127}.tar`, `train-*.tar`), or
    any of these as an fsspec address.
    image: the ending of the images, where there are several kinds (`jpg`); they become uint8
    tensors of shape (C, H, W). label: the ending of the labels, None for items that are images
    alone. Whole numbers (`cls`) are known as `targets`.
    parts: instead of both, the endings of an item's parts: a list gives tuples, a mapping from
    names dicts. `seg.png` and `mask.png` become int64 tensors (H, W), `npy` arrays, `json` what it
    holds, `txt` texts, all else bytes. Shards that `epochal data index` wrote need none of these.
    classes: names of the labels. ids: `position`, or `key`, for names that are unique in all
    shards. index: where `epochal data index --out` wrote it, if not beside the shards.
    split, mode, resize, interpolation, dtype: as in `image_folder`. transform: called with the PIL
    image, gives the input instead; with `parts` it is called with the item. progress: told how many
    shards of how many are done while an index is made.

    Raises DataError: for shards that are damaged, hold links, or lack a part in some sample.
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise DataError(f"{_NAME}: path: found {path!r:.80}; expected {EXPECTED}")
    for option, given in (("image", image), ("label", label), ("index", index)):
        if given is not None and not isinstance(given, str):
            raise DataError(f"{_NAME}: {option}: found {given!r:.80}; expected a text")
    chosen = read_split(split, name=_NAME)
    found, numbers, shards = open_index(os.fspath(path), at=index, name=_NAME, progress=progress)
    form = _Form.read(found, numbers, image=image, label=label, parts=parts)
    files = ShardFiles(shards)
    decoding = Decoding.checked(
        name=_NAME, mode=mode, resize=resize, interpolation=interpolation, dtype=dtype
    )
    rows = _Rows(found, numbers, None)
    labels_N = rows.column(found.value[form.label]) if form.label in found.value else None
    if chosen is not None:
        rows = _Rows(found, numbers, split_rows(chosen, len(rows), labels_N=labels_N, name=_NAME))
    return TarShards(
        files,
        rows,
        form,
        path=os.fspath(path),
        decoding=decoding,
        transform=transform,
        classes=classes,
        ids=ids,
        split=chosen,
    )


class _Form:
    """Which parts an item has, and how they are put together."""

    def __init__(self, kind: str, parts: Mapping[str, str], label: str | None) -> None:
        self.kind, self.parts, self.label = kind, parts, label
        self.has_image = False
        """Whether an item is an image, alone or with its label."""

    @classmethod
    def read(
        cls,
        index: Index,
        numbers: Sequence[int],
        *,
        image: str | None,
        label: str | None,
        parts: Sequence[str] | Mapping[str, str] | None,
    ) -> _Form:
        """What the arguments, or the shards themselves, say. Raises DataError."""
        written = {index.shards[number].item for number in numbers}
        if parts is not None:
            if image is not None:
                raise DataError(f"{_NAME}: found `image` and `parts`; name the image among `parts`")
            form = cls._named(parts, label)
        elif image is None and label == "cls" and written != {None}:
            form = cls._written(written)
        else:
            found = image or _only_image(index)
            named = {"0": found} if label is None else {"0": found, "1": label}
            form = cls("one" if label is None else "tuple", named, label)
            form.has_image = True
        for part in form.parts.values():
            _check_part(index, numbers, part)
        return form

    @classmethod
    def _named(cls, parts: Sequence[str] | Mapping[str, str], label: str | None) -> _Form:
        listed = isinstance(parts, list | tuple | Mapping)
        given = list(parts.values() if isinstance(parts, Mapping) else parts) if listed else []
        if not given or not all(isinstance(one, str) for one in given):
            raise DataError(
                f"{_NAME}: parts: found {parts!r:.80}; expected endings, as in [jpg, seg.png] or "
                "{input: jpg, target: seg.png}"
            )
        low = [one.lower().removeprefix(".") for one in given]
        chosen = label if label in low else next((one for one in low if one in NUMBERS), None)
        if isinstance(parts, Mapping):
            return cls("dict", dict(zip(map(str, parts), low, strict=True)), chosen)
        return cls("tuple", {str(place): one for place, one in enumerate(low)}, chosen)

    @classmethod
    def _written(cls, written: set[str | None]) -> _Form:
        forms = sorted(map(str, written))
        try:
            (form,) = forms
            kind, parts = join_item(form)
        except ValueError:
            raise DataError(
                f"{_NAME}: the shards say of their items {' and '.join(forms)!s:.200}; expected "
                "shards that were written together"
            ) from None
        names = {"dict": ("target", "label", "labels")}.get(kind, ("1",))
        label = next((parts[one] for one in names if one in parts), None)
        return cls(kind, parts, label)

    def join(self, values: Sequence[Any]) -> Any:
        """The item that has these parts."""
        if self.kind == "dict":
            return dict(zip(self.parts, values, strict=True))
        if self.kind == "one":
            return values[0]
        return tuple(values) if self.kind == "tuple" else list(values)


def _only_image(index: Index) -> str:
    found = [part for part in index.parts if is_image(part)]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} kinds of images" if found else "no image"
    raise DataError(
        f"{_NAME}: found {what} among the parts {', '.join(index.parts) or '(none)'}; name one by "
        "`image:`, or the parts of an item by `parts:`"
    )


def _check_part(index: Index, numbers: Sequence[int], part: str) -> None:
    """Raises DataError unless every sample has that part."""
    if part not in index.parts:
        raise DataError(
            f"{_NAME}: no sample has a part {part!r}; they have {', '.join(index.parts)}; name "
            "those of an item by `image:` and `label:`, or by `parts:`"
        )
    lacking, example = 0, ""
    for number in numbers:
        shard = index.shards[number]
        count, row = shard.missing.get(part, (0, 0))
        if part not in shard.parts:
            count = shard.rows
        if count and not lacking:
            key = index.key(int(index.starts_S1[number]) + row).decode("utf-8", "backslashreplace")
            example = f"{key!r} of {shard.name}"
        lacking += count
    if lacking:
        raise DataError(
            f"{_NAME}: {lacking:,} samples have no part {part!r}, the first is {example}; expected "
            "it in each: leave those samples out of the shards, or name other parts"
        )


class _Rows:
    """Which rows of an index a data set has: those of some of its shards, or some of these.

    chosen_K: places among the rows of these shards, rising; None: all.
    """

    def __init__(
        self, index: Index, numbers: Sequence[int], chosen_K: npt.NDArray[np.int64] | None
    ) -> None:
        self.index, self.numbers, self._chosen_K = index, list(numbers), chosen_K
        first_S = index.starts_S1[self.numbers]
        rows_S = index.starts_S1[np.asarray(self.numbers, dtype=np.int64) + 1] - first_S
        self._first_S = first_S
        self._starts_S1 = np.concatenate([[0], np.cumsum(rows_S)]).astype(np.int64)
        self._whole = bool((first_S == self._starts_S1[:-1]).all())

    def __len__(self) -> int:
        return int(self._starts_S1[-1]) if self._chosen_K is None else len(self._chosen_K)

    def find(self, position: int) -> tuple[int, int]:
        """The number of the sample's shard among those of the data set, and its row in the index.

        Raises IndexError.
        """
        if not 0 <= position < len(self):
            raise IndexError(f"{_NAME}: found position {position} of {len(self)} samples")
        if self._chosen_K is not None:
            position = int(self._chosen_K[position])
        shard = int(np.searchsorted(self._starts_S1, position, side="right")) - 1
        return shard, int(self._first_S[shard]) + position - int(self._starts_S1[shard])

    def column(self, column: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The data set's part of a column of the index, by position; not copied if it is all."""
        if self._chosen_K is None and self._whole:
            return column[: len(self)]
        return self.of_column(column, 0, len(self))

    def of_column(self, column: npt.NDArray[Any], first: int, end: int) -> npt.NDArray[Any]:
        """A copy of a column's values from position `first` to before `end`."""
        places_K = np.arange(first, min(end, len(self)), dtype=np.int64)
        if self._chosen_K is not None:
            places_K = self._chosen_K[places_K]
        if not self._whole:
            shard_K = np.searchsorted(self._starts_S1, places_K, side="right") - 1
            places_K += (self._first_S - self._starts_S1[:-1])[shard_K]
        return column[places_K]

    def shard_starts(self) -> npt.NDArray[np.int64]:
        """The position of each shard's first sample, and their number: int64 of shape (S + 1,)."""
        if self._chosen_K is None:
            return self._starts_S1
        return np.searchsorted(self._chosen_K, self._starts_S1).astype(np.int64)


class _Place(NamedTuple):
    """Where the bytes of a sample are in its shard: `num_bytes` from `start` on."""

    position: int
    shard: int
    row: int
    start: int
    num_bytes: int


class TarShards:
    """What `tar_shards` gives. Holds no open file; its items may be read in any thread."""

    def __init__(
        self,
        files: ShardFiles,
        rows: _Rows,
        form: _Form,
        *,
        path: str,
        decoding: Decoding,
        transform: Callable[[Any], Any] | None,
        classes: Sequence[str] | None,
        ids: str,
        split: Split | None,
    ) -> None:
        self._files, self._rows, self._form = files, rows, form
        self._path, self._transform, self._split = path, transform, split
        self._decoding = decoding
        # A transform is the user's: it may draw from global generators, which are seeded for each
        # item where items are read one by one, or hold what must not be shared.
        self.thread_safe = self.unread = transform is None
        if transform is not None:
            # It may draw, and is seeded for each sample where items are read one by one.
            self.__getitems__ = None  # type: ignore[method-assign, assignment]  # as if there were none
        self._index = rows.index
        self._columns = [
            (part, self._index.at[part], self._index.size[part]) for part in form.parts.values()
        ]
        if classes is not None:
            self.classes = _checked_classes(classes)
        self._ids = ids
        if ids == "key":
            self.sample_ids = self._unique_keys()
        elif ids != "position":
            raise DataError(f"{_NAME}: ids: found {ids!r:.40}; expected position or key")
        if form.label in self._index.value:
            self.targets: npt.NDArray[np.int64] = rows.column(self._index.value[form.label])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> Any:
        """The item. Raises DataError, naming shard and sample, for one that cannot be read."""
        return self._items([position], self._decoding)[0]

    def __getitems__(self, positions: Sequence[int]) -> list[Any]:
        """The items at these positions, in their order; of an address read at the same time."""
        return self._items(positions, self._decoding)

    def item_at_size(self, position: int, height: int, width: int) -> Any:
        """The item with its images and masks at that size."""
        return self._items([position], self._decoding.at_size(height, width))[0]

    def _items(self, positions: Sequence[int], decoding: Decoding) -> list[Any]:
        places = [self._place(position) for position in positions]
        if self._files.is_local:
            return [
                self._item(
                    place, self._files.read(place.shard, place.start, place.num_bytes), decoding
                )
                for place in places
            ]
        blocks = np.searchsorted(self.blocks, [place.position for place in places], side="right")
        read = self._files.read_of(
            [
                (self._block(block - 1), place.start, place.num_bytes)
                for block, place in zip(blocks.tolist(), places, strict=True)
            ]
        )
        return [self._item(place, data, decoding) for place, data in zip(places, read, strict=True)]

    def _place(self, position: int) -> _Place:
        position = range(len(self))[position]
        shard, row = self._rows.find(position)
        start = int(self._index.offset_N[row])
        count = max(int(at[row]) + int(size[row]) for _, at, size in self._columns)
        if not 0 <= start <= self._files.shards[shard].size - count:
            raise self._changed(shard, row)
        return _Place(position, shard, row, start, count)

    def _item(self, place: _Place, data: bytes, decoding: Decoding) -> Any:
        shard, row = place.shard, place.row
        values = []
        for part, at_N, size_N in self._columns:
            at, size = int(at_N[row]), int(size_N[row])
            found = data[at : at + size]
            if len(found) < size or not self._is_header(data[at - 512 : at], row, part, size):
                raise self._changed(shard, row)
            values.append(self._decoded(shard, row, part, found, decoding))
        item = self._form.join(values)
        return item if self._transform is None or self._form.has_image else self._transform(item)

    def _decoded(self, shard: int, row: int, part: str, data: bytes, decoding: Decoding) -> Any:
        place = f"{_NAME}: {self._files.shards[shard].address}: {self._shown(row)}.{part}"
        if is_mask(part):
            return decoding.mask(data, place)
        if is_image(part):
            image = decoding.image(data, place)
            if self._transform is not None and self._form.has_image:
                return self._transform(image)
            return decoding.tensor(image)
        try:
            return decode(part, data)
        except Undecodable as error:
            raise DataError(
                f"{place} cannot be read: {error}; mend it, or leave the sample out of the shard"
            ) from error

    def will_read(self, blocks: Sequence[int]) -> None:
        """Samples of these blocks are read next, in this order: they are fetched ahead."""
        self._files.will_read([self._block(one) for one in blocks])

    def _block(self, number: int) -> Block:
        """From the first byte of its first sample to the last of its last."""
        first, end = int(self.blocks[number]), int(self.blocks[number + 1])
        shard, row = self._rows.find(first)
        last = self._rows.find(end - 1)[1]
        tail = max(int(at[last]) + int(size[last]) for _, at, size in self._columns)
        offset_N = self._index.offset_N
        return Block(shard, int(offset_N[row]), int(offset_N[last]) + tail)

    def _changed(self, shard: int, row: int) -> DataError:
        return DataError(
            f"{_NAME}: {self._files.shards[shard].address} has changed since its index was made: "
            f"sample {self._shown(row)!r} is not where it was; run the same command again, or "
            "write the index anew by `epochal data index`"
        )

    def _is_header(self, block: bytes, row: int, part: str, size: int) -> bool:
        """Whether the member is still there: its header has that size and name."""
        ending = f".{part}".encode()
        name = block[:_CHECKED_NAME].split(b"\0", 1)[0]
        expected = self._index.key(row) + ending
        short = len(expected) < _CHECKED_NAME and not block[345:346].strip(b"\0")
        if short and name.isascii() and expected.isascii() and name.lower() != expected.lower():
            return False
        digits = block[124:136].strip(b" \0")
        return block[124:125] == b"\x80" or not digits.isdigit() or int(digits, 8) == size

    def _shown(self, row: int) -> str:
        return self._index.key(row).decode("utf-8", "backslashreplace")

    def path_of(self, position: int) -> str:
        """The shard and the key of a sample."""
        shard, row = self._rows.find(position)
        return f"{self._files.shards[shard].name} {self._shown(row)}"

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """The bytes of each sample's first part: int64 of shape (N,)."""
        part = next(iter(self._form.parts.values()))
        return self._rows.column(self._index.size[part]).astype(np.int64)

    @cached_property
    def blocks(self) -> npt.NDArray[np.int64]:
        """Positions where blocks begin, and N: shards, large ones in pieces of some 8 MB."""
        found = [self._rows.shard_starts()]
        for first in range(0, len(self), _ROWS):  # a chunk at a time: there may be a billion
            piece = self._rows.of_column(self._index.offset_N, first, first + _ROWS + 1)
            piece //= BLOCK_BYTES
            found.append(first + 1 + np.flatnonzero(piece[1:] != piece[:-1]))
        return np.unique(np.concatenate(found)).astype(np.int64)

    def fingerprint(self) -> str:
        """Names the content: what the index has of the shards, and what an item is made of.

        Beside that the bytes of all shards, where they have at most 256 MB together, else those of
        64 pieces of 64 KiB that lie evenly among them.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        content = ContentDigest("tar-shards")
        shards = [self._index.shards[number] for number in self._rows.numbers]
        made = {
            "shards": [[one.name, one.size, one.digest] for one in shards],
            "item": [self._form.kind, [list(one) for one in self._form.parts.items()]],
            "label": self._form.label,
            "split": None if self._split is None else self._split.model_dump(),
            "ids": self._ids,
            "mode": self._decoding.mode,
            "resize": self._decoding.resize,
            "interpolation": self._decoding.interpolation,
            "dtype": self._decoding.dtype,
        }
        content.add("made", canonical_json(made))
        self._files.add_to(content)
        if self._transform is not None:
            add_transformed(content, self, name=_NAME)
        return content.hexdigest()

    def stamp(self) -> str:
        """Of the shards as they are now: names, sizes, and when each was last changed."""
        shards = list_shards(self._path, name=_NAME)
        return digest("tar-stamp", [[one.name, one.size, one.stamp] for one in shards])

    def _unique_keys(self) -> list[str]:
        keys = list(self._texts())
        if len(set(keys)) < len(keys):
            twice = next(key for key, count in Counter(keys).items() if count > 1)
            raise DataError(
                f"{_NAME}: ids: the key {twice!r:.80} names more than one sample; expected each "
                "once, or ids: position"
            )
        return keys

    def _texts(self) -> Iterator[str]:
        for position in range(len(self)):
            key = self._index.key(self._rows.find(position)[1])
            try:
                yield key.decode()
            except UnicodeDecodeError:
                raise DataError(
                    f"{_NAME}: ids: the key {key!r:.80} is no text in UTF-8; take ids: position"
                ) from None


def _checked_classes(classes: Sequence[str]) -> list[str]:
    if not isinstance(classes, list | tuple) or not all(isinstance(one, str) for one in classes):
        raise DataError(f"{_NAME}: classes: found {classes!r:.80}; expected a list of names")
    return list(classes)
