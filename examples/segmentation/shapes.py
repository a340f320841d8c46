"""Noisy images with a disc and a square, and the class of each pixel."""

# H height, W width

import torch
from torch import Tensor
from torch.utils.data import Dataset

SIDE = 24  # H and W
RADIUS = 4  # of discs; half the side of squares
FIRST_SEED = {"train": 0, "validation": 1_000_000}


class Shapes(Dataset[tuple[Tensor, Tensor]]):
    """(image, classes): float32 of shape (1, H, W), int64 of shape (H, W)."""

    def __init__(self, split: str, size: int) -> None:
        self._split = split
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        own = torch.Generator().manual_seed(FIRST_SEED[self._split] + position)
        y_HW, x_HW = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
        (disc_y, disc_x), (square_y, square_x) = torch.randint(
            RADIUS, SIDE - RADIUS, (2, 2), generator=own
        )
        classes_HW = torch.zeros(SIDE, SIDE, dtype=torch.long)
        in_disc_HW = (y_HW - disc_y) ** 2 + (x_HW - disc_x) ** 2 < RADIUS**2
        classes_HW[in_disc_HW] = 1
        in_square_HW = torch.maximum((y_HW - square_y).abs(), (x_HW - square_x).abs()) < RADIUS
        classes_HW[in_square_HW] = 2
        noise_HW = 0.2 * torch.randn(SIDE, SIDE, generator=own)
        image_HW = (classes_HW > 0).float() + noise_HW
        if self._split == "train" and torch.randint(2, ()):  # seeded by Epochal
            image_HW, classes_HW = image_HW.flip(1), classes_HW.flip(1)
        return image_HW.unsqueeze(0), classes_HW
