"""Two random views of each digit."""

# H height, W width

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from epochal.data.datasets import digits


class TwoViews(Dataset[dict[str, Tensor]]):
    """Dicts of `first` and `second`, float32 of shape (1, H, W)."""

    def __init__(self, split: str) -> None:
        self._images = digits(split).tensors[0]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        image_1HW = self._images[position]
        return {"first": view(image_1HW), "second": view(image_1HW)}


def view(image_1HW: Tensor) -> Tensor:
    """Shifted, made brighter or darker, and noisy; from the generator that Epochal seeds."""
    top, left = torch.randint(0, 3, (2,)).tolist()
    height, width = image_1HW.shape[1:]
    padded = functional.pad(image_1HW, (1, 1, 1, 1))
    shifted = padded[:, top : top + height, left : left + width]
    return shifted * (0.6 + 0.8 * torch.rand(())) + 0.1 * torch.randn(shifted.shape)
