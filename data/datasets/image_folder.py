"""Images in folders: a folder for each class, or a second folder of masks; on any storage."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from epochal.data.datasets.image_items import add_transformed, check_extensions
from epochal.data.datasets.split import Split, read_split, split_rows
from epochal.data.errors import DataError
from epochal.data.files.images import EXTENSIONS, Decoding
from epochal.data.files.listing import Listing, Names
from epochal.data.files.reading import Piece, Reader
from epochal.data.files.remembered import changed_since, forget, open_listing
from epochal.data.hashing import ContentDigest, canonical_json

# N samples of the part in use, F files below the folder, C channels, H height, W width

MAX_HASHED_FILES = 20_000
MAX_HASHED_BYTES = 256_000_000
"""Up to here the fingerprint reads the bytes of all files; else those of 64 of them."""

NUM_HASHED = 64
_AT_ONCE = 64  # files that are read together for the fingerprint
_PARTS = {"train", "training", "val", "valid", "validation", "test", "dev"}
_NAME = "image_folder"


def image_folder(
    path: str,
    split: Split | Mapping[str, Any] | None = None,
    *,
    extensions: Sequence[str] = EXTENSIONS,
    mode: str = "RGB",
    resize: Sequence[int] | None = None,
    interpolation: str = "bilinear",
    dtype: str = "float32",
    transform: Callable[[Any], Any] | None = None,
    masks: str | None = None,
    allow_empty: bool = False,
) -> ImageFolder:
    """Images below `path`, a folder or any address of fsspec: `path/class/…/name.jpg`.

    The first level is the class, by name; order, classes and what is an image are those of
    torchvision's ImageFolder, but names that begin with a dot are left out. An item is `(image,
    label)`: float32 of shape (C, H, W) from 0 to 1, turned by its EXIF orientation, and a whole
    number.

    split: `{part, fraction, seed}`, with each class's share; none: all images. extensions: of
    images, in any case. mode: RGB, L, RGBA, or I (grey of 16 bits, as int32). resize: [height,
    width] that each image is made, nothing cut off. interpolation: of that. dtype: `uint8`
    leaves values as they are stored, a quarter of the memory, for `augment` to make floats of.
    transform: called with the PIL image, gives the input instead. masks: a folder with an image
    of the same name below it, its extension aside, for each image; an item is then `{input,
    target}`, the target int64 of shape (H, W), and no class folders are needed. allow_empty:
    classes without images.

    Raises DataError, naming the file or folder, for what cannot be listed or matched; reading an
    item does for a file that is missing, has changed since it was listed, or is no whole image.
    """
    return ImageFolder(
        path,
        read_split(split, name=_NAME),
        extensions=check_extensions(extensions, _NAME),
        decoding=Decoding.checked(
            name=_NAME, mode=mode, resize=resize, interpolation=interpolation, dtype=dtype
        ),
        transform=transform,
        masks=masks,
        allow_empty=allow_empty,
    )


class ImageFolder:
    """What `image_folder` returns."""

    classes: list[str]
    targets: npt.NDArray[np.int64]

    def __init__(
        self,
        path: str,
        split: Split | None,
        *,
        extensions: tuple[str, ...],
        decoding: Decoding,
        transform: Callable[[Any], Any] | None,
        masks: str | None,
        allow_empty: bool,
    ) -> None:
        self._split = split
        self._decoding = decoding
        self._transform = transform
        self._listing = open_listing(path, extensions=extensions, in_root=masks is not None)
        if not len(self._listing):
            raise DataError(
                f"{_NAME}: {path}: found no file that ends in {', '.join(extensions)}"
                f"{'' if masks else ' in a folder below it'}; expected "
                f"{'images' if masks else 'a folder of images for each class'}; correct `path` or "
                "`extensions`"
            )
        self._reader = Reader(path)
        self._masks = None if masks is None else _Masks(masks, self._listing.names, transform)
        count, labels_F = len(self._listing), None
        if masks is None:
            self.classes, labels_F = _classes(self._listing, path, allow_empty=allow_empty)
        self._rows_N = (
            None if split is None else split_rows(split, count, labels_N=labels_F, name=_NAME)
        )
        if labels_F is not None:
            self.targets = labels_F if self._rows_N is None else labels_F[self._rows_N]
        # A transform is the user's: it may draw from global generators, which are seeded for each
        # item where items are read one by one, or hold what must not be shared.
        self.thread_safe = self.unread = transform is None
        if transform is not None:
            # It may draw, and is seeded for each sample where items are read one by one.
            self.__getitems__ = None  # type: ignore[method-assign, assignment]  # as if there were none

    def __len__(self) -> int:
        return len(self._listing) if self._rows_N is None else len(self._rows_N)

    def __getitem__(self, position: int) -> Any:
        """`(image, label)`, or `{input, target}` with masks. Raises DataError."""
        return self._items([position], self._decoding)[0]

    def __getitems__(self, positions: Sequence[int]) -> list[Any]:
        """The items at these positions, in their order; of an address read at the same time."""
        return self._items(positions, self._decoding)

    def item_at_size(self, position: int, height: int, width: int) -> Any:
        """The item with its image, and mask, at that size."""
        return self._items([position], self._decoding.at_size(height, width))[0]

    def path_of(self, position: int) -> str:
        """The relative name of the sample's file."""
        return self._listing.names[self._row(position)].decode(errors="backslashreplace")

    def fingerprint(self) -> str:
        """Names the content: relative names and sizes of all files, and what is made of them.

        Beside that the bytes of all files, where there are at most 20,000 of at most 256 MB
        together, else those of 64 that lie evenly among them.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        content = ContentDigest("image-folder")
        made = {
            "mode": self._decoding.mode,
            "resize": self._decoding.resize,
            "interpolation": self._decoding.interpolation,
            "dtype": self._decoding.dtype,
            "split": None if self._split is None else self._split.model_dump(),
        }
        content.add("made", canonical_json(made))
        _add_files(content, self._listing, self._reader)
        if self._masks is not None:
            _add_files(content, self._masks.listing, self._masks.reader)
        if self._transform is not None:
            add_transformed(content, self, name=_NAME)
        return content.hexdigest()

    def stamp(self) -> str:
        """Changes with the name, size and time of change, or ETag, of any file."""
        content = ContentDigest("image-folder-stamp")
        for listing in [self._listing, *([] if self._masks is None else [self._masks.listing])]:
            listing.add_to(content)
            content.add("stamps", listing.stamps_N.astype("<i8").tobytes())
        return content.hexdigest()

    def _row(self, position: int) -> int:
        position = range(len(self))[position]
        return position if self._rows_N is None else int(self._rows_N[position])

    def _items(self, positions: Sequence[int], decoding: Decoding) -> list[Any]:
        rows = [self._row(position) for position in positions]
        files = self._read(self._listing, self._reader, rows)
        if self._masks is not None:
            return self._with_masks(rows, files, self._masks, decoding)
        targets = self.targets
        items = []
        for position, row, data in zip(positions, rows, files, strict=True):
            image = decoding.image(data, self._place(row))
            made = decoding.tensor(image) if self._transform is None else self._transform(image)
            items.append((made, int(targets[position])))
        return items

    def _with_masks(
        self, rows: Sequence[int], files: Sequence[bytes], masks: _Masks, decoding: Decoding
    ) -> list[Any]:
        mask_rows = [int(masks.row_F[row]) for row in rows]
        drawn = self._read(masks.listing, masks.reader, mask_rows)
        items = []
        for row, mask_row, data, mask in zip(rows, mask_rows, files, drawn, strict=True):
            input_CHW = decoding.tensor(decoding.image(data, self._place(row)))
            mask_place = masks.reader.address(masks.listing.text(mask_row))
            target_HW = decoding.mask(mask, mask_place)
            if input_CHW.shape[1:] != target_HW.shape:
                raise DataError(
                    f"{mask_place}: found a mask of {list(target_HW.shape)} pixels for an image of "
                    f"{list(input_CHW.shape[1:])}, {self._place(row)}; expected equal height and "
                    "width"
                )
            items.append({"input": input_CHW, "target": target_HW})
        return items

    def _place(self, row: int) -> str:
        return self._reader.address(self._listing.text(row))

    def _read(self, listing: Listing, reader: Reader, rows: Sequence[int]) -> list[bytes]:
        sizes_F = listing.known_sizes_N
        stamps_F = None if reader.is_local else listing.stamps_N
        files = reader.read(
            [
                Piece(listing.text(row), stamp=0 if stamps_F is None else int(stamps_F[row]))
                for row in rows
            ]
        )
        if sizes_F is not None:
            for row, data in zip(rows, files, strict=True):
                if len(data) != sizes_F[row]:
                    forget(listing)
                    raise changed_since(listing, row, len(data))
        return files


class _Masks:
    """The second folder. row_F: which of its files belongs to each image: int64 of shape (F,)."""

    def __init__(self, path: str, names: Names, transform: Any) -> None:
        if transform is not None:
            raise DataError(
                f"{_NAME}: transform: it would change the images and not their masks; leave it "
                "out, and name what changes both in `augment`"
            )
        self.listing = open_listing(path, extensions=EXTENSIONS)
        self.reader = Reader(path)
        row_of: dict[bytes, int] = {}
        for row in range(len(self.listing)):
            stem = _stem(self.listing.names[row])
            if stem in row_of:
                raise DataError(
                    f"{_NAME}: masks: {path} has {self.listing.text(row_of[stem])!r} and "
                    f"{self.listing.text(row)!r}; expected one mask for an image: remove one"
                )
            row_of[stem] = row
        rows = [row_of.get(_stem(names[row]), -1) for row in range(len(names))]
        self.row_F = np.array(rows, dtype=np.int64)
        missing = np.flatnonzero(self.row_F < 0)
        if len(missing):
            first = os.fsdecode(names[int(missing[0])])
            raise DataError(
                f"{_NAME}: masks: {path} has none for {first!r}, nor for {len(missing) - 1} other "
                "images; expected a file of the same relative name for each, its extension aside"
            )


def _stem(name: bytes) -> bytes:
    return os.path.splitext(name)[0]  # noqa: PTH122 - bytes, as names are


def _classes(
    listing: Listing, path: str, *, allow_empty: bool
) -> tuple[list[str], npt.NDArray[np.int64]]:
    """The classes by name, and each file's: int64 of shape (F,). Raises DataError."""
    names = listing.names
    first = [folder.partition(b"/")[0] for folder in names.folders]
    found = sorted({name for name in first if name})
    class_of = {name: label for label, name in enumerate(found)}
    files_G = np.diff(names.first_G1)
    # The root has no files by now, so that any number stands for it.
    label_G = np.array([class_of.get(name, 0) for name in first], dtype=np.int64)
    labels_F = np.repeat(label_G, files_G)
    classes = []
    for name in found:
        try:
            classes.append(name.decode())
        except UnicodeDecodeError:
            raise DataError(
                f"{_NAME}: {path}: the folder {name!r} is a class, and its name is no UTF-8; "
                "rename it"
            ) from None
    files_K = np.bincount(labels_F, minlength=len(found))
    empty = [classes[label] for label in np.flatnonzero(files_K == 0).tolist()]
    if empty and not allow_empty:
        raise DataError(
            f"{_NAME}: {path}: found no image in the folder of the class {empty[0]!r}"
            f"{f', nor in {len(empty) - 1} others' if len(empty) > 1 else ''}; expected one at "
            "least in each; remove the folder, or set allow_empty: true"
        )
    if {name.lower() for name in classes} <= _PARTS:
        raise DataError(
            f"{_NAME}: {path}: found the folders {', '.join(classes)}, which would be the classes; "
            f"expected the folder of one part: path: {path.rstrip('/')}/{classes[0]}"
        )
    return classes, labels_F


def _add_files(content: ContentDigest, listing: Listing, reader: Reader) -> None:
    listing.add_to(content)
    count = len(listing)
    rows = np.arange(count)
    if count > MAX_HASHED_FILES or int(listing.sizes_N.sum()) > MAX_HASHED_BYTES:
        rows = np.unique(np.linspace(0, count - 1, NUM_HASHED).astype(np.int64))
    for start in range(0, len(rows), _AT_ONCE):
        pieces = [Piece(listing.text(row)) for row in rows[start : start + _AT_ONCE].tolist()]
        for data in reader.read(pieces):
            content.add("bytes", data)
