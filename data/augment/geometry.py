"""Operations that move pixels: images, masks and boxes together.

What is interpolated is interpolated sample by sample: a kernel that sees one sample cannot round
by its neighbours, and a sample stays in the cache. Images are bilinear (with antialiasing where
they shrink), masks take the nearest pixel, boxes move by the same map and are cut at the edges.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from epochal.data.augment.pictures import UINT8, Draws, Pictures
from epochal.data.config.augment import Affine, CenterCrop, Crop, Flip, Resize, ResizedCrop
from epochal.data.errors import DataError

# B samples, K boxes, H and W of an image, h and w of what comes out

TRIES = 10
"""How often a piece is drawn before the middle is taken, as torchvision does."""


class Window(NamedTuple):
    """A piece of an image, pixels."""

    top: int
    left: int
    height: int
    width: int


def flip(pictures: Pictures, operation: Flip, draws: Draws) -> None:
    """Mirrors the samples that are drawn for it."""
    chosen_B = draws.uniform("whether") < operation.probability
    rows = torch.from_numpy(np.flatnonzero(chosen_B)).to(pictures.image.device)
    if not len(rows):
        return
    dimension = -2 if operation.vertical else -1

    def mirrored(tensor: Tensor) -> Tensor:
        made = tensor.clone()
        made[rows] = tensor[rows].flip(dimension)
        return made

    pictures.put(mirrored(pictures.image))
    pictures.masks = [mirrored(mask) for mask in pictures.masks]
    low, high = (1, 3) if operation.vertical else (0, 2)
    side = pictures.size_HW[0 if operation.vertical else 1]
    for place, box in enumerate(pictures.boxes):
        made = box.clone()
        made[rows, ..., low] = side - box[rows, ..., high]
        made[rows, ..., high] = side - box[rows, ..., low]
        pictures.boxes[place] = made


def crop(pictures: Pictures, operation: Crop, draws: Draws) -> None:
    """Pads, then cuts out a piece that is as likely to lie anywhere. Raises DataError."""
    if operation.padding:
        _pad(pictures, operation)
        height, width = operation.size or (
            side - 2 * operation.padding for side in pictures.size_HW
        )
    else:
        height, width = operation.size or pictures.size_HW
    _fits(pictures, height, width, kind="crop")
    down, right = (
        side - wanted for side, wanted in zip(pictures.size_HW, (height, width), strict=True)
    )
    tops = (draws.uniform("row") * (down + 1)).astype(np.int64).tolist()
    lefts = (draws.uniform("column") * (right + 1)).astype(np.int64).tolist()
    _cut(pictures, [Window(*corner, height, width) for corner in zip(tops, lefts, strict=True)])


def center_crop(pictures: Pictures, operation: CenterCrop, _: Draws) -> None:
    """Cuts out the middle. Raises DataError for an image that is smaller."""
    height, width = operation.size
    _fits(pictures, height, width, kind="center_crop")
    top, left = (
        round((side - wanted) / 2.0)
        for side, wanted in zip(pictures.size_HW, operation.size, strict=True)
    )
    _cut(pictures, [Window(top, left, height, width)] * len(pictures.image))


def resized_crop(pictures: Pictures, operation: ResizedCrop, draws: Draws) -> None:
    """Cuts out a piece by area and proportions, and resizes it."""
    windows = draw_windows(
        pictures.size_HW, area=operation.area, ratio=operation.ratio, draws=draws
    )
    _resample(
        pictures, [one or _middle(pictures.size_HW, operation) for one in windows], operation.size
    )


def resize(pictures: Pictures, operation: Resize, _: Draws) -> None:
    """Resizes the whole image."""
    height, width = pictures.size_HW
    if operation.size is not None:
        size = operation.size
    else:
        assert operation.shorter is not None
        shorter = min(height, width)
        # Whole numbers, rounded down as torchvision does.
        size = (operation.shorter * height // shorter, operation.shorter * width // shorter)
    if size != (height, width):
        _resample(pictures, [Window(0, 0, height, width)] * len(pictures.image), size)


def draw_windows(
    size_HW: tuple[int, int],
    *,
    area: tuple[float, float],
    ratio: tuple[float, float],
    draws: Draws,
) -> list[Window | None]:
    """A piece for each sample: its area uniform, its proportions log-uniform, its place uniform.

    None where none of ten fits into the image. As torchvision's RandomResizedCrop and
    RandomErasing draw them.
    """
    height, width = size_HW
    low, high = math.log(ratio[0]), math.log(ratio[1])
    tries = [
        (draws.uniform(f"area {turn}").tolist(), draws.uniform(f"ratio {turn}").tolist())
        for turn in range(TRIES)
    ]
    rows, columns = draws.uniform("row").tolist(), draws.uniform("column").tolist()
    windows: list[Window | None] = []
    for place, (row, column) in enumerate(zip(rows, columns, strict=True)):
        found = None
        for areas, ratios in tries:
            pixels = height * width * (area[0] + (area[1] - area[0]) * areas[place])
            proportion = math.exp(low + (high - low) * ratios[place])
            wide, tall = (
                round(math.sqrt(pixels * proportion)),
                round(math.sqrt(pixels / proportion)),
            )
            if 0 < wide <= width and 0 < tall <= height:
                top, left = int(row * (height - tall + 1)), int(column * (width - wide + 1))
                found = Window(top, left, tall, wide)
                break
        windows.append(found)
    return windows


def _middle(size_HW: tuple[int, int], operation: ResizedCrop) -> Window:
    height, width = size_HW
    smallest, largest = operation.ratio
    if width / height < smallest:
        height = round(width / smallest)
    elif width / height > largest:
        width = round(height * largest)
    return Window((size_HW[0] - height) // 2, (size_HW[1] - width) // 2, height, width)


def affine(pictures: Pictures, operation: Affine, draws: Draws) -> None:
    """Turns, scales and moves around the middle the samples that are drawn for it."""
    height, width = pictures.size_HW
    chosen_B = draws.uniform("whether") < operation.probability
    angles = draws.between("angle", -operation.degrees, operation.degrees).tolist()
    scales = draws.between("scale", *operation.scale).tolist()
    downs = draws.between("row", -operation.translate, operation.translate).tolist()
    rights = draws.between("column", -operation.translate, operation.translate).tolist()
    _ = pictures.writable()
    pictures.masks = [mask.clone() for mask in pictures.masks]
    pictures.boxes = [box.clone() for box in pictures.boxes]
    for row in np.flatnonzero(chosen_B).tolist():
        angle = math.radians(angles[row])
        move = (rights[row] * width, downs[row] * height)
        _turn(pictures, row, angle, scales[row], move, fill=pictures.fill_of(operation.fill))


def _turn(
    pictures: Pictures,
    row: int,
    angle: float,
    scale: float,
    move_XY: tuple[float, float],
    *,
    fill: float,
) -> None:
    """One sample: where a pixel of the result comes from is turned back by the angle."""
    height, width = pictures.size_HW
    device = pictures.image.device
    cosine, sine = math.cos(angle), math.sin(angle)
    # Pixels from the middle, before the move.
    x_W = torch.arange(width, device=device, dtype=torch.float64) + (0.5 - width / 2 - move_XY[0])
    y_H = torch.arange(height, device=device, dtype=torch.float64) + (0.5 - height / 2 - move_XY[1])
    from_x_HW = (x_W * (cosine / scale))[None, :] + (y_H * (sine / scale))[:, None] + width / 2
    from_y_HW = (x_W * (-sine / scale))[None, :] + (y_H * (cosine / scale))[:, None] + height / 2
    grid_1HW2 = torch.stack([from_x_HW * (2 / width) - 1, from_y_HW * (2 / height) - 1], dim=-1)
    image = pictures.image[row : row + 1]
    sampled = functional.grid_sample(
        image.float() - fill,
        grid_1HW2[None].float(),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    pictures.image[row : row + 1] = _like(sampled + fill, image)
    rows_HW, columns_HW = from_y_HW.floor().long(), from_x_HW.floor().long()
    outside_HW = (rows_HW < 0) | (rows_HW >= height) | (columns_HW < 0) | (columns_HW >= width)
    rows_HW, columns_HW = rows_HW.clamp(0, height - 1), columns_HW.clamp(0, width - 1)
    for mask in pictures.masks:
        mask[row] = mask[row][..., rows_HW, columns_HW].masked_fill(outside_HW, pictures.mask_fill)
    for box in pictures.boxes:
        box[row] = _turned(box[row], (cosine * scale, sine * scale), move_XY, (height, width))


def _turned(
    box_K4: Tensor,
    turn: tuple[float, float],
    move_XY: tuple[float, float],
    size_HW: tuple[int, int],
) -> Tensor:
    """The boxes around the turned corners."""
    height, width = size_HW
    x_K4 = box_K4[..., [0, 2, 2, 0]] - width / 2
    y_K4 = box_K4[..., [1, 1, 3, 3]] - height / 2
    new_x = x_K4 * turn[0] - y_K4 * turn[1] + (width / 2 + move_XY[0])
    new_y = x_K4 * turn[1] + y_K4 * turn[0] + (height / 2 + move_XY[1])
    corners = [new_x.amin(-1), new_y.amin(-1), new_x.amax(-1), new_y.amax(-1)]
    return _clipped(torch.stack(corners, dim=-1), size_HW)


def _clipped(box: Tensor, size_HW: tuple[int, int]) -> Tensor:
    height, width = size_HW
    return torch.stack(
        [
            box[..., 0].clamp(0, width),
            box[..., 1].clamp(0, height),
            box[..., 2].clamp(0, width),
            box[..., 3].clamp(0, height),
        ],
        dim=-1,
    )


def _fits(pictures: Pictures, height: int, width: int, *, kind: str) -> None:
    if height > pictures.size_HW[0] or width > pictures.size_HW[1]:
        raise DataError(
            f"augment: {kind}.size is {height} x {width} pixels, and the images are "
            f"{pictures.size_HW[0]} x {pictures.size_HW[1]}; give a smaller size, "
            + ("more padding, or a resize before it" if kind == "crop" else "or a resize before it")
        )


def _pad(pictures: Pictures, operation: Crop) -> None:
    padding = operation.padding
    if operation.border == "fill":
        four = (padding,) * 4
        fill = pictures.fill_of(operation.fill)
        pictures.put(functional.pad(pictures.image, four, value=fill))
        pictures.masks = [
            functional.pad(mask, four, value=pictures.mask_fill) for mask in pictures.masks
        ]
    else:
        height, width = pictures.size_HW
        if operation.border == "reflect" and padding >= min(height, width):
            raise DataError(
                f"augment: crop.padding is {padding}, and images of {height} x {width} pixels have "
                "no so many to reflect; give less, or border: edge"
            )
        rows_H, columns_W = (
            _beyond(side, padding, operation.border).to(pictures.image.device)
            for side in (height, width)
        )

        def padded(tensor: Tensor) -> Tensor:
            return tensor.index_select(-2, rows_H).index_select(-1, columns_W)

        pictures.put(padded(pictures.image))
        pictures.masks = [padded(mask) for mask in pictures.masks]
    pictures.boxes = [box + padding for box in pictures.boxes]


def _beyond(side: int, padding: int, border: str) -> Tensor:
    """Which pixel stands at each place of the padded side, int64."""
    places = torch.arange(-padding, side + padding)
    if border == "edge":
        return places.clamp(0, side - 1)
    places = places.abs()
    return torch.where(places < side, places, 2 * (side - 1) - places)


def _cut(pictures: Pictures, windows: Sequence[Window]) -> None:
    """Pieces that are all of one size."""
    size = (windows[0].height, windows[0].width) if windows else pictures.size_HW

    def pieces(tensor: Tensor) -> Tensor:
        made = tensor.new_empty((*tensor.shape[:-2], *size))
        for row, (top, left, height, width) in enumerate(windows):
            made[row] = tensor[row, ..., top : top + height, left : left + width]
        return made

    pictures.put(pieces(pictures.image))
    pictures.masks = [pieces(mask) for mask in pictures.masks]
    _move_boxes(pictures, windows, size)


def _move_boxes(pictures: Pictures, windows: Sequence[Window], size: tuple[int, int]) -> None:
    if not pictures.boxes:
        return
    origin_B4 = torch.tensor([[left, top, left, top] for top, left, _, _ in windows])
    factor_B4 = torch.tensor(
        [[size[1] / width, size[0] / height] * 2 for _, _, height, width in windows],
        dtype=torch.float64,
    )
    for place, box in enumerate(pictures.boxes):
        ones = (1,) * (box.ndim - 2)
        origin, factor = (
            part.reshape(len(box), *ones, 4).to(box.device, box.dtype)
            for part in (origin_B4, factor_B4)
        )
        pictures.boxes[place] = _clipped((box - origin) * factor, size)


def _resample(pictures: Pictures, windows: Sequence[Window], size: tuple[int, int]) -> None:
    """The pieces, each resized to `size`."""
    image = pictures.image
    made = image.new_empty((*image.shape[:-2], *size))
    for row, window in enumerate(windows):
        piece = _piece(image[row : row + 1], window)
        made[row : row + 1] = _interpolated(piece, size)
    pictures.put(made)
    for place, mask in enumerate(pictures.masks):
        new = mask.new_empty((*mask.shape[:-2], *size))
        for row, window in enumerate(windows):
            rows_h = _nearest(window.height, size[0], mask.device)
            columns_w = _nearest(window.width, size[1], mask.device)
            piece = _piece(mask[row], window)
            new[row] = piece.index_select(-2, rows_h).index_select(-1, columns_w)
        pictures.masks[place] = new
    _move_boxes(pictures, windows, size)


def _piece(tensor: Tensor, window: Window) -> Tensor:
    top, left, height, width = window
    return tensor[..., top : top + height, left : left + width]


def _interpolated(image_1CHW: Tensor, size: tuple[int, int]) -> Tensor:
    whole = not image_1CHW.is_floating_point()
    given = image_1CHW.float() if whole and not image_1CHW.is_cpu else image_1CHW
    made = functional.interpolate(
        given, size=size, mode="bilinear", antialias=True, align_corners=False
    )
    return _like(made, image_1CHW)


def _like(made: Tensor, image: Tensor) -> Tensor:
    """Numbers as the image has them: whole ones rounded, from 0 to 255."""
    if image.is_floating_point() or made.dtype == image.dtype:
        return made.to(image.dtype)
    return made.round().clamp(0, UINT8).to(image.dtype)


def _nearest(side: int, wanted: int, device: torch.device) -> Tensor:
    """Which of `side` pixels lies at the middle of each of `wanted`, in whole numbers: int64."""
    places = torch.arange(wanted, device=device)
    return ((2 * places + 1) * side) // (2 * wanted)
