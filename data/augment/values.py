"""Operations on the values of images.

Each number of the result is made of numbers of the same sample by single multiplications and
additions, or by sums of whole numbers: both are exact to the last bit in any batch. What fuses two
of them (`lerp`, `addcmul`, `alpha=`) may round otherwise at the end of a row, and is not used.
"""

from __future__ import annotations

from functools import lru_cache
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from epochal.data.augment.geometry import draw_windows
from epochal.data.augment.pictures import UINT8, Draws, Floats, Pictures
from epochal.data.config.augment import Color, Erase, Grayscale, Noise, Normalize, ToFloat
from epochal.data.errors import DataError

# B samples, C channels, H and W of an image

_GREY = (0.2989, 0.587, 0.114)  # of red, green, blue: ITU-R BT.601, as torchvision has them
_COLOURS = len(_GREY)
_FIXED_POINT = 1 << 20
"""Grey values are summed as whole numbers of so many in one: any order gives one sum."""
_LEVELS = 1 << 16  # normal numbers that noise is drawn from
_PER_HASH = 4  # of them in 64 bits


def to_float(pictures: Pictures, _: ToFloat, __: Draws) -> None:
    """uint8 becomes float32 from 0 to 1; floats stay."""
    _in_floats(pictures)


def _in_floats(pictures: Pictures) -> Tensor:
    """The image in floats, to be written to."""
    if not pictures.image.is_floating_point():
        pictures.put(pictures.image.float().div_(UINT8))
    return pictures.writable()


def normalize(pictures: Pictures, operation: Normalize, _: Draws) -> None:
    """(value - mean) / std by channel. Raises DataError for another number of channels."""
    image, given = _in_floats(pictures), len(operation.mean)
    if given not in {1, image.shape[1]}:
        raise DataError(
            f"augment: normalize has {given} means, and the images {image.shape[1]} channels; give "
            "one number for each, or one for all"
        )
    mean, std = (
        torch.tensor(numbers, dtype=image.dtype, device=image.device).reshape(1, -1, 1, 1)
        for numbers in (operation.mean, operation.std)
    )
    image.sub_(mean).div_(std)


def color(pictures: Pictures, operation: Color, draws: Draws) -> None:
    """Brightness, then contrast, then saturation; cut to values from 0 to 1 after each."""
    image = _in_floats(pictures)
    chosen_B = draws.uniform("whether") < operation.probability

    def factors(name: str, strength: float) -> tuple[Tensor, Tensor]:
        own_B = np.where(chosen_B, draws.between(name, 1 - strength, 1 + strength), 1.0)
        return _by_sample(own_B, image), _by_sample(1.0 - own_B, image)

    if operation.brightness:
        own, _ = factors("brightness", operation.brightness)
        image.mul_(own).clamp_(0, 1)
    if operation.contrast:
        own, rest = factors("contrast", operation.contrast)
        towards = _mean_grey(image) * rest
        image.mul_(own).add_(towards).clamp_(0, 1)
    if operation.saturation and image.shape[1] == _COLOURS:
        own, rest = factors("saturation", operation.saturation)
        towards = _grey(image) * rest
        image.mul_(own).add_(towards).clamp_(0, 1)


def grayscale(pictures: Pictures, operation: Grayscale, draws: Draws) -> None:
    """The samples that are drawn for it become grey."""
    image = _in_floats(pictures)
    rows = np.flatnonzero(draws.uniform("whether") < operation.probability)
    if len(rows) and image.shape[1] == _COLOURS:
        rows_K = torch.from_numpy(rows).to(image.device)
        image[rows_K] = _grey(image[rows_K]).expand(-1, _COLOURS, -1, -1)


def erase(pictures: Pictures, operation: Erase, draws: Draws) -> None:
    """Overwrites a rectangle in the samples that are drawn for it."""
    chosen_B = draws.uniform("whether") < operation.probability
    windows = draw_windows(
        pictures.size_HW, area=operation.area, ratio=operation.ratio, draws=draws
    )
    image = pictures.writable()
    for row in np.flatnonzero(chosen_B).tolist():
        window = windows[row]
        if window is not None:
            top, left, height, width = window
            image[row, :, top : top + height, left : left + width] = pictures.fill_of(
                operation.fill
            )


def noise(pictures: Pictures, operation: Noise, draws: Draws) -> None:
    """Adds normal numbers, each the quantile of 16 bits of a hash of (sample, place)."""
    image = _in_floats(pictures)
    chosen_B = draws.uniform("whether") < operation.probability
    scale = _by_sample(np.where(chosen_B, operation.std, 0.0), image)
    levels_BX = _noise_levels(draws, image[0].numel(), image.device)
    normal = _quantiles().to(image.device, image.dtype)[levels_BX].reshape(image.shape)
    image.add_(normal.mul_(scale))


def _by_sample(numbers_B: Floats, image: Tensor) -> Tensor:
    return torch.from_numpy(numbers_B).to(image.device, image.dtype).reshape(-1, 1, 1, 1)


def _grey(image: Tensor) -> Tensor:
    """(B, 1, H, W)."""
    if image.shape[1] != _COLOURS:
        return image[:, :1]
    red, green, blue = (image[:, place : place + 1] * part for place, part in enumerate(_GREY))
    return red.add_(green).add_(blue)


def _mean_grey(image: Tensor) -> Tensor:
    """The mean grey of each sample: (B, 1, 1, 1)."""
    whole = (_grey(image) * _FIXED_POINT).round_()
    total = whole.sum(dim=(1, 2, 3), keepdim=True, dtype=torch.float64)
    return total.div_(_FIXED_POINT * whole[0].numel()).to(image.dtype)


@lru_cache(maxsize=1)
def _quantiles() -> Tensor:
    """Normal numbers of equal probability: float32 of shape (65536,), from -4.3 to 4.3."""
    normal = NormalDist()
    half = [normal.inv_cdf((level + 0.5) / _LEVELS) for level in range(_LEVELS // 2, _LEVELS)]
    return torch.tensor([-one for one in reversed(half)] + half, dtype=torch.float32)


def _noise_levels(draws: Draws, count: int, device: torch.device) -> Tensor:
    """`count` numbers of 16 random bits for each sample: int64 of shape (B, count).

    The finaliser of splitmix64 of the sample's own hash and the place, in int64, whose products
    wrap around like those of unsigned numbers.
    """
    hashes = -(-count // _PER_HASH)
    own_B1 = torch.from_numpy(draws.bits("noise").view(np.int64)).to(device)[:, None]
    steps = torch.arange(1, hashes + 1, device=device) * _signed(0x9E3779B97F4A7C15)
    state = own_B1 + steps
    state = (state ^ _shifted(state, 30)) * _signed(0xBF58476D1CE4E5B9)
    state = (state ^ _shifted(state, 27)) * _signed(0x94D049BB133111EB)
    state = state ^ _shifted(state, 31)
    parts = [_shifted(state, 16 * place) & (_LEVELS - 1) for place in range(_PER_HASH)]
    return torch.stack(parts, dim=-1).reshape(len(state), -1)[:, :count]


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def _shifted(state: Tensor, bits: int) -> Tensor:
    """To the right, with zeros from the left."""
    return (state >> bits) & ((1 << (64 - bits)) - 1) if bits else state
