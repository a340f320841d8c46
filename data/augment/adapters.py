"""Transforms of other libraries on items with masks and boxes, seeded for each sample.

torchvision and timm draw from the global generators, which the loader seeds for each item.
albumentations has generators of its own: they are seeded from those, item by item.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from epochal.data.augment.pictures import BOXES, CORNERS, IMAGE_NAMES, Path
from epochal.data.errors import DataError

# C channels, H and W of an image, K boxes of one

_IMAGE = 3  # dimensions: (C, H, W)
_GREY = 2  # dimensions: (H, W)
_MASK = 2  # dimensions at least: (…, H, W)
_SEED_32 = 1 << 32
_PLACES = "places"


class _Adapter:
    takes_items = True


class _Albumentations(_Adapter):
    def __init__(self, given: Any, boxes: Mapping[str, Any]) -> None:
        import albumentations as library

        if isinstance(given, library.Compose):
            self._plain = given
        else:
            listed = list(given) if isinstance(given, Sequence) else [given]
            strange = next((one for one in listed if not isinstance(one, _kinds(library))), None)
            if strange is not None:
                raise DataError(
                    f"albumentations: found a {type(strange).__name__} among the transforms, "
                    'expected those of the library, {target: "albumentations:HorizontalFlip"}'
                )
            self._plain = library.Compose(listed)
        # A box that a transform drops takes what stands beside it with it.
        params = library.BboxParams(format="pascal_voc", label_fields=[_PLACES], **boxes)
        self._boxed = library.Compose([self._plain], bbox_params=params)

    def __call__(self, item: Any) -> Any:
        found = _Found(item)
        given: dict[str, Any] = {"image": found.image_HWC}
        if found.masks:
            given["masks"] = [np.ascontiguousarray(mask) for mask in found.masks.values()]
        compose = self._plain
        if found.boxes is not None:
            compose = self._boxed
            given["bboxes"], given[_PLACES] = found.boxes, np.arange(len(found.boxes))
        compose.set_random_seed(int(np.random.randint(_SEED_32)))  # noqa: NPY002 - the seeded one
        made = compose(**given)
        kept = None if found.boxes is None else np.asarray(made[_PLACES], dtype=np.int64)
        return found.put_back(made["image"], made.get("masks", ()), made.get("bboxes"), kept)


def _kinds(library: Any) -> tuple[type, ...]:
    return (library.BasicTransform, library.BaseCompose)


def albumentations(transforms: Any, boxes: Mapping[str, Any] | None = None) -> _Albumentations:
    """A transform of items by albumentations: image, masks and boxes together.

    transforms: a list of the library's transforms, one of them, or a Compose. boxes: further
    arguments of its BboxParams, such as min_visibility. Its generators are seeded for each item.

    Items are `(image, …)` or dicts; images uint8 or float32 of shape (C, H, W), arrays of shape
    (H, W, C) or of PIL. What else ends in the image's height and width is a mask; `boxes` are
    corners in pixels, of shape (K, 4); what stands beside them with K rows is kept or dropped with
    them.
    """
    return _Albumentations(transforms, boxes or {})


class _Torchvision(_Adapter):
    def __init__(self, transform: Callable[..., Any]) -> None:
        from torchvision import tv_tensors

        self._kinds = tv_tensors
        self._transform = transform

    def __call__(self, item: Any) -> Any:
        parts = _item_parts(item)
        image, masks, boxes = _found_paths(item, parts)
        new: dict[Path, Any] = {}
        if isinstance(parts[image], Tensor):
            new[image] = self._kinds.Image(parts[image])
        size = _size_HW(parts[image])
        for path in masks:
            new[path] = self._kinds.Mask(parts[path])
        for path in boxes:
            new[path] = self._kinds.BoundingBoxes(parts[path], format="XYXY", canvas_size=size)
        return _plain_tensors(self._transform(_put(item, (), new)))


def torchvision(transform: Any) -> _Torchvision:
    """A transform of items by torchvision's v2: image, masks and boxes together.

    transform: one of torchvision.transforms.v2, or a list of them. Items as for `albumentations`;
    the library sees images, masks and boxes as its tv_tensors, and gives plain tensors back.
    """
    if isinstance(transform, list | tuple):
        from torchvision.transforms import v2

        transform = v2.Compose(list(transform))
    return _Torchvision(transform)


class _Timm(_Adapter):
    def __init__(self, args: Mapping[str, Any]) -> None:
        from timm.data import create_transform

        self._transform = create_transform(**args)

    def __call__(self, item: Any) -> Any:
        from PIL import Image

        parts = _item_parts(item)
        path = _image_path(item, parts)
        image_HWC = _channels_last(parts[path])
        if image_HWC.dtype != np.uint8:
            raise DataError(
                f"timm: it takes uint8 images, found {image_HWC.dtype}; let the data set give them "
                "as they are in the files, 0 to 255"
            )
        given = Image.fromarray(image_HWC[..., 0] if image_HWC.shape[-1] == 1 else image_HWC)
        return _put(item, (), {path: self._transform(given)})


def timm(**args: Any) -> _Timm:
    """The transform of images that `timm.data.create_transform(**args)` makes.

    Items as for `albumentations`, images uint8; masks and boxes are not changed, so there may be
    none: see timm's `is_training`, `input_size`, `auto_augment`, `re_prob`.
    """
    return _Timm(args)


class _Found:
    """The parts of an item as NumPy arrays, and how they go back."""

    def __init__(self, item: Any) -> None:
        self._item = item
        self._parts = _item_parts(item)
        self._image, masks, boxes = _found_paths(item, self._parts)
        self.image_HWC = np.ascontiguousarray(_channels_last(self._parts[self._image]))
        self.masks = {path: np.asarray(self._parts[path]) for path in masks}
        if len(boxes) > 1:
            raise DataError("albumentations: an item has several `boxes`; give one")
        self._boxes = boxes[0] if boxes else None
        self.boxes = None
        if self._boxes is not None:
            self.boxes = np.asarray(self._parts[self._boxes], dtype=np.float32).reshape(-1, CORNERS)

    def put_back(
        self,
        image: Any,
        masks: Sequence[Any],
        boxes: Any,
        kept_K: npt.NDArray[np.int64] | None,
    ) -> Any:
        """The item with these in place of its own. kept_K: which boxes are left."""
        new: dict[Path, Any] = {self._image: _channels_first(image)}
        for path, mask in zip(self.masks, masks, strict=True):
            new[path] = _as(mask, self._parts[path])
        if self._boxes is not None and kept_K is not None:
            whole = np.asarray(boxes, dtype=np.float32).reshape(-1, CORNERS)
            count = 0 if self.boxes is None else len(self.boxes)
            for path, part in self._parts.items():
                beside = path[:-1] == self._boxes[:-1] and path not in new
                if beside and isinstance(part, Tensor | np.ndarray) and _rows(part) == count:
                    new[path] = part[kept_K]
            new[self._boxes] = _as(whole, self._parts[self._boxes])
        return _put(self._item, (), new)


def _rows(part: Any) -> int | None:
    return len(part) if part.ndim else None


def _as(array: Any, like: Any) -> Any:
    """As a tensor where the item had one."""
    if not isinstance(like, Tensor) or isinstance(array, Tensor):
        return array
    return torch.from_numpy(np.ascontiguousarray(array)).to(like.dtype)


def _found_paths(item: Any, parts: Mapping[Path, Any]) -> tuple[Path, list[Path], list[Path]]:
    """Where the image is, where masks are, where boxes are."""
    image = _image_path(item, parts)
    size = _size_HW(parts[image])
    masks, boxes = [], []
    for path, part in parts.items():
        if path == image or not isinstance(part, Tensor | np.ndarray):
            continue
        if path and path[-1] == BOXES and part.ndim and part.shape[-1] == CORNERS:
            boxes.append(path)
        elif part.ndim >= _MASK and tuple(part.shape[-2:]) == size:
            masks.append(path)
    return image, masks, boxes


def _image_path(item: Any, parts: Mapping[Path, Any]) -> Path:
    path: Path | None = None
    if isinstance(item, Mapping):
        path = next(((name,) for name in IMAGE_NAMES if name in item), None)
    elif isinstance(item, tuple | list):
        path = (0,)
    else:
        path = ()
    if path is None or path not in parts:
        raise DataError(
            "augment: items are to be (image, …) or dicts with `image` or `input`, found a "
            + (f"dict of {', '.join(map(str, item))}" if isinstance(item, Mapping) else
               type(item).__name__)
        )  # fmt: skip
    _check_image(parts[path])
    return path


def _check_image(image: Any) -> None:
    is_array = isinstance(image, np.ndarray) and image.ndim in {_GREY, _IMAGE}
    is_tensor = isinstance(image, Tensor) and image.ndim == _IMAGE
    if not (is_array or is_tensor or hasattr(image, "getbands")):
        shape = getattr(image, "shape", None)
        raise DataError(
            f"augment: an item's image is a {type(image).__name__}"
            f"{'' if shape is None else f' of shape {tuple(shape)}'}, expected a tensor (C, H, W), "
            "an array (H, W, C) or one of PIL"
        )


def _size_HW(image: Any) -> tuple[int, int]:
    if hasattr(image, "getbands"):  # of PIL
        return image.height, image.width
    shape = tuple(image.shape)
    if isinstance(image, np.ndarray):
        return shape[0], shape[1]
    return shape[-2], shape[-1]


def _channels_last(image: Any) -> npt.NDArray[Any]:
    """An image of an item, as `_image_path` lets pass, as (H, W, C)."""
    if isinstance(image, Tensor):
        array: npt.NDArray[Any] = image.permute(1, 2, 0).numpy()
        return array
    array = np.asarray(image)
    return array[..., None] if array.ndim == _GREY else array


def _channels_first(image: Any) -> Tensor:
    if isinstance(image, Tensor):
        return image
    image = image[..., None] if image.ndim == _GREY else image
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _item_parts(item: Any, path: Path = ()) -> dict[Path, Any]:
    if isinstance(item, Mapping):
        named = list(item.items())
    elif isinstance(item, tuple | list):
        named = list(enumerate(item))
    else:
        return {path: item}
    return {at: part for name, one in named for at, part in _item_parts(one, (*path, name)).items()}


def _put(item: Any, path: Path, new: Mapping[Path, Any]) -> Any:
    if path in new:
        return new[path]
    if isinstance(item, Mapping):
        return {name: _put(one, (*path, name), new) for name, one in item.items()}
    if isinstance(item, tuple | list):
        made = [_put(one, (*path, place), new) for place, one in enumerate(item)]
        return type(item)(*made) if hasattr(item, "_fields") else type(item)(made)
    return item


def _plain_tensors(value: Any) -> Any:
    """Without the classes of a library, by which it would go on in the model."""
    if isinstance(value, Tensor) and type(value) is not Tensor:
        return value.as_subclass(Tensor)
    if isinstance(value, Mapping):
        return {name: _plain_tensors(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        made = [_plain_tensors(one) for one in value]
        return type(value)(*made) if hasattr(value, "_fields") else type(value)(made)
    return value
