"""What happens to an image between its file and the model: torchvision's transforms."""

import torch
from torchvision.transforms import v2

_TO_TENSOR = [
    v2.ToImage(),
    v2.ToDtype(torch.float32, scale=True),
    v2.Normalize(mean=[0.3, 0.3, 0.3], std=[0.35, 0.35, 0.35]),
]


def train() -> v2.Compose:
    """Random crops. torchvision draws from torch's global generator, which Epochal seeds by the
    run's seed, the epoch and the sample's id: other crops in each epoch, the same after a resume.
    """
    return v2.Compose([v2.RandomResizedCrop(32, scale=(0.6, 1.0), antialias=True), *_TO_TENSOR])


def validation() -> v2.Compose:
    return v2.Compose(_TO_TENSOR)
