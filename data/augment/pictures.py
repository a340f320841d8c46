"""A batch's images, and the masks and boxes that move with them; random numbers by sample.

Images, masks and boxes are found in a batch by what they are: the input is the image; whatever else
has its height and width as last dimensions is a mask; what is called `boxes` holds corners.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from epochal.data.errors import DataError
from epochal.data.hashing import as_uniform, hash_repeated

# B samples, C channels, H and W of an image, K boxes of one; … further dimensions

Floats = npt.NDArray[np.float64]
Path = tuple[str | int, ...]

_IMAGES = 4  # dimensions: (B, C, H, W)
_MASK = 3  # dimensions at least: (B, …, H, W)
CORNERS = 4  # x0, y0, x1, y1 in pixels
IMAGE_NAMES = ("input", "inputs", "image", "images")
BOXES = "boxes"
UINT8 = 255


@dataclass
class Pictures:
    """The parts of a batch that an operation may change; it replaces them.

    image: (B, C, H, W), uint8 or floats, contiguous. masks: (B, …, H, W), of any type. boxes:
    floats of shape (B, K, 4), corners x0, y0, x1, y1 in pixels from the top left. own: whether
    the image's memory is nobody else's, so that it may be written to.
    """

    image: Tensor
    masks: list[Tensor] = field(default_factory=list)
    boxes: list[Tensor] = field(default_factory=list)
    mask_fill: int = 0
    own: bool = False

    def put(self, image: Tensor) -> None:
        """Replaces the image by one that was made for it."""
        self.image, self.own = image, True

    def writable(self) -> Tensor:
        """The image, to be written to: new memory costs more time than a simple operation."""
        if not self.own:
            self.put(self.image.clone())
        return self.image

    def rows(self, rows: slice) -> Pictures:
        """Those samples alone, in the same memory."""
        return Pictures(
            self.image[rows],
            [mask[rows] for mask in self.masks],
            [box[rows] for box in self.boxes],
            self.mask_fill,
        )

    def empty_for(self, count: int) -> Pictures:
        """Room for that many samples such as these."""
        image, *others = (
            tensor.new_empty((count, *tensor.shape[1:]))
            for tensor in (self.image, *self.masks, *self.boxes)
        )
        masks = len(self.masks)
        return Pictures(image, others[:masks], others[masks:], self.mask_fill, own=True)

    def fill(self, rows: slice, part: Pictures) -> None:
        """Writes the samples of `part` to these rows."""
        self.image[rows] = part.image
        for place, mask in enumerate(part.masks):
            self.masks[place][rows] = mask
        for place, box in enumerate(part.boxes):
            self.boxes[place][rows] = box

    @property
    def size_HW(self) -> tuple[int, int]:
        """Height and width of the images now."""
        return self.image.shape[-2], self.image.shape[-1]

    def fill_of(self, value: float) -> float:
        """A value from 0 to 1 in the unit of the image."""
        return value if self.image.is_floating_point() else round(value * UINT8)


@dataclass(frozen=True)
class Draws:
    """Random numbers of the samples of a batch: hashes, with no state and no neighbours.

    stream: names the use, as in (seed, epoch, kind of the operation, how many came before it).
    chosen: which samples are asked about, None for all; hashes are made of all at once, which costs
    what those of one do.
    """

    sample_ids_B: npt.NDArray[np.int64]
    repeats_B: npt.NDArray[np.int64] | None
    stream: tuple[int | str, ...]
    chosen: slice | None = None
    _made: dict[str, npt.NDArray[np.uint64]] = field(default_factory=dict)

    def rows(self, rows: slice) -> Draws:
        """Those of some samples of the batch."""
        return replace(self, chosen=rows)

    def uniform(self, use: str) -> Floats:
        """One number in [0, 1) for each sample, of shape (B,)."""
        return as_uniform(self.bits(use))

    def bits(self, use: str) -> npt.NDArray[np.uint64]:
        """64 random bits for each sample, of shape (B,)."""
        if use not in self._made:
            self._made[use] = hash_repeated(
                self.sample_ids_B, self.repeats_B, "augment", *self.stream, use
            )
        made_B = self._made[use]
        return made_B if self.chosen is None else made_B[self.chosen]

    def between(self, use: str, low: float, high: float) -> Floats:
        """One number in [low, high) for each sample, of shape (B,)."""
        return low + (high - low) * self.uniform(use)


def find_pictures(
    data: Any, *, count: int, keep: Collection[str | int], mask_fill: int
) -> tuple[Pictures, Callable[[Pictures], Any]]:
    """What of a batch is augmented, and a function that puts it back into a copy of the batch.

    data: an image, `(image, …)` or a dict with `input` or `image`, nested or not. count: samples in
    it. keep: names and places that are left alone. Raises DataError where there are no images.
    """
    parts = dict(_parts(data, ()))
    at = _image_at(data)
    image = None if at is None else parts.get(at)
    if (
        at is None
        or image is None
        or image.ndim != _IMAGES
        or len(image) != count
        or not _is_picture(image)
    ):
        raise DataError(
            "augment: it takes batches (image, …) or {image: …, …}, whose images are uint8 or "
            f"floats of shape (batch, channels, height, width), found {_described(data, image)}; "
            "give such images in the data set, or leave `augment` out"
        )
    masks, boxes = [], []
    for path, tensor in parts.items():
        if path == at or not {*path}.isdisjoint(keep) or not tensor.ndim or len(tensor) != count:
            continue
        if path and path[-1] == BOXES and tensor.shape[-1] == CORNERS:
            boxes.append(path)
        elif tensor.ndim >= _MASK and tensor.shape[-2:] == image.shape[-2:]:
            masks.append(path)
    pictures = Pictures(
        image.contiguous(),
        [parts[path].contiguous() for path in masks],
        [_in_floats(parts[path]) for path in boxes],
        mask_fill,
    )

    def put_back(found: Pictures) -> Any:
        new = dict(zip([*masks, *boxes], [*found.masks, *found.boxes], strict=True))
        return _replaced(data, (), {**new, at: found.image})

    return pictures, put_back


def _in_floats(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_floating_point() else tensor.float()


def _is_picture(tensor: Tensor) -> bool:
    return tensor.dtype == torch.uint8 or tensor.is_floating_point()


def _image_at(data: Any) -> Path | None:
    if isinstance(data, Tensor):
        return ()
    if isinstance(data, Mapping):
        name = next((name for name in IMAGE_NAMES if name in data), None)
        return None if name is None else (name,)
    return (0,) if isinstance(data, tuple | list) and data else None


def _parts(data: Any, path: Path) -> list[tuple[Path, Tensor]]:
    if isinstance(data, Tensor):
        return [(path, data)]
    named: Iterable[tuple[str | int, Any]] = ()
    if isinstance(data, Mapping):
        named = data.items()
    elif isinstance(data, tuple | list):
        named = enumerate(data)
    return [part for name, item in named for part in _parts(item, (*path, name))]


def _replaced(data: Any, path: Path, new: Mapping[Path, Tensor]) -> Any:
    if path in new:
        return new[path]
    if isinstance(data, Mapping):
        return {name: _replaced(item, (*path, name), new) for name, item in data.items()}
    if isinstance(data, tuple | list):
        items = [_replaced(item, (*path, place), new) for place, item in enumerate(data)]
        return type(data)(*items) if hasattr(data, "_fields") else type(data)(items)
    return data


def _described(data: Any, image: Tensor | None) -> str:
    if image is not None:
        return f"{image.dtype} of shape {tuple(image.shape)}"
    if isinstance(data, Mapping):
        return f"a dict of {', '.join(map(str, data))}"
    return f"a {type(data).__name__}"
