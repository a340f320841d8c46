"""Encoded images to tensors, by Pillow: the same pixels on every machine with the same Pillow.

Pillow and OpenCV give equal pixels of a JPEG here, at two thirds of OpenCV's speed; another
decoder's pixels are nobody's promise, so there is one.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from epochal.data.errors import DataError

# C channels, H height, W width

Mode = Literal["RGB", "L", "RGBA", "I"]
Dtype = Literal["uint8", "float32"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF", "GIF")
"""Pillow's names of what is read: others of its formats start programs (EPS)."""

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Of image files: those of torchvision's ImageFolder."""

MAX_SIDE = 1 << 14
_ORIENTATION = 0x0112  # the EXIF tag
_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
_INDEX_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L", "I;16N")
_WHITE = {"RGB": 255, "L": 255, "RGBA": 255, "I": 65535}


@dataclass(frozen=True)
class Decoding:
    """What becomes of the bytes of an image.

    mode: its channels: RGB, L (grey), RGBA, or I (grey of 16 bits, as int32). resize: height and
    width that each image is made, whatever its own: nothing is cut off. dtype: uint8 as stored
    (int32 for I), or float32 from 0 to 1.
    """

    mode: Mode = "RGB"
    resize: tuple[int, int] | None = None
    interpolation: Interpolation = "bilinear"
    dtype: Dtype = "uint8"

    @classmethod
    def checked(
        cls,
        *,
        name: str,
        mode: str,
        resize: Sequence[int] | None,
        interpolation: str,
        dtype: str,
    ) -> Decoding:
        """From a data set's arguments. name: of the data set. Raises DataError."""
        for field, found, kind in (
            ("mode", mode, Mode),
            ("interpolation", interpolation, Interpolation),
            ("dtype", dtype, Dtype),
        ):
            if found not in get_args(kind):
                raise DataError(
                    f"{name}: {field}: found {found!r:.80}; expected one of "
                    f"{', '.join(get_args(kind))}"
                )
        return cls(mode, _checked_size(resize, name), interpolation, dtype)  # type: ignore[arg-type]  # checked above

    def image(self, data: bytes, place: str) -> Image.Image:
        """The image as it is seen: turned by its EXIF orientation, in `mode`, in its size.

        place: where the bytes are from, for errors. Raises DataError for bytes that are no whole
        image.
        """
        return self._shaped(_opened(data, place), place)

    def tensor(self, image: Image.Image) -> torch.Tensor:
        """Of shape (C, H, W)."""
        pixels_CHW = torch.from_numpy(_planes(image))
        if self.dtype == "float32":
            return pixels_CHW.to(torch.float32).div_(_WHITE[self.mode])
        return pixels_CHW

    def at_size(self, height: int, width: int) -> Decoding:
        """The same at another size."""
        return Decoding(self.mode, (height, width), self.interpolation, self.dtype)

    def mask(self, data: bytes, place: str) -> torch.Tensor:
        """The class of each pixel: int64 of shape (H, W); resized to the nearest pixel's.

        Raises DataError for an image that has more than one channel.
        """
        image = _opened(data, place)
        if image.mode not in _INDEX_MODES:
            raise DataError(
                f"{place}: found a mask of the mode {image.mode}; expected one channel that holds "
                "the number of each pixel's class (L, P or 16 bits): convert its colours to numbers"
            )
        if self.resize is not None:
            height, width = self.resize
            image = image.resize((width, height), Image.Resampling.NEAREST)
        return torch.from_numpy(np.array(image).astype(np.int64))

    def _shaped(self, image: Image.Image, place: str) -> Image.Image:
        if image.mode != self.mode:
            if image.mode in _DEEP and self.mode != "I":
                raise DataError(
                    f"{place}: found more than 8 bits in a channel (mode {image.mode}), which "
                    f"mode {self.mode} would cut off; expected mode: I, or images of 8 bits"
                )
            image = image.convert(self.mode)
        if self.resize is not None:
            height, width = self.resize
            if image.size != (width, height):
                kind = Image.Resampling[self.interpolation.upper()]
                image = image.resize((width, height), kind)
        return image


def _opened(data: bytes, place: str) -> Image.Image:
    """The whole image, turned. Raises DataError."""
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        orientation = image.getexif().get(_ORIENTATION, 1)
        image.load()
        if orientation != 1:
            ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception as error:  # what damaged bytes make of Pillow's readers has no common class
        begins = data[:8].hex(" ") or "nothing"
        unknown = isinstance(error, UnidentifiedImageError)  # its text has an address in memory
        cause = "no known format" if unknown else f"{type(error).__name__}: {error}"
        raise DataError(
            f"{place} cannot be decoded: {cause}; it has {len(data)} bytes "
            f"that begin with {begins}; expected a whole image ({', '.join(FORMATS)}): mend or "
            "remove the file"
        ) from error
    return image


def _planes(image: Image.Image) -> np.ndarray[Any, Any]:
    """The pixels of each channel, (C, H, W).

    Pillow keeps the channels of a pixel together. It takes them apart in half the time of a
    transposed copy, which torch would moreover share out to all of its threads.
    """
    bands = image.getbands()
    if len(bands) == 1:
        return np.array(image)[np.newaxis]
    width, height = image.size
    planes_CHW = np.empty((len(bands), height, width), dtype=np.uint8)
    for plane_HW, band in zip(planes_CHW, bands, strict=True):
        plane_HW[:] = np.frombuffer(image.tobytes("raw", band), np.uint8).reshape(height, width)
    return planes_CHW


def _checked_size(resize: Any, name: str) -> tuple[int, int] | None:
    if resize is None:
        return None
    sides = list(resize) if isinstance(resize, list | tuple) else []
    whole = all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
    if len(sides) != 2 or not whole or not all(1 <= side <= MAX_SIDE for side in sides):  # noqa: PLR2004 - height and width
        raise DataError(
            f"{name}: resize: found {resize!r:.80}; expected [height, width], each from 1 to "
            f"{MAX_SIDE}: one number would leave open what is cut off"
        )
    return sides[0], sides[1]
