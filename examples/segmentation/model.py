"""A small U-Net, after Ronneberger et al. 2015 (arXiv:1505.04597)."""

# B batch, C classes, H height, W width

import torch
from torch import Tensor, nn


def block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
    )  # fmt: skip


class UNet(nn.Module):
    """Down twice and up again; each level also sees what it was on the way down."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.down = nn.ModuleList([block(1, width), block(width, 2 * width)])
        self.bottom = block(2 * width, 4 * width)
        self.up = nn.ModuleList([
            nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2),
            nn.ConvTranspose2d(2 * width, width, 2, stride=2),
        ])  # fmt: skip
        self.joined = nn.ModuleList([block(4 * width, 2 * width), block(2 * width, width)])
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, image_B1HW: Tensor) -> Tensor:
        """Images, H and W multiples of 4, to logits of shape (B, C, H, W)."""
        x, kept = image_B1HW, []
        for down in self.down:
            x = down(x)
            kept.append(x)
            x = nn.functional.max_pool2d(x, 2)
        x = self.bottom(x)
        for up, joined in zip(self.up, self.joined, strict=True):
            x = joined(torch.cat([kept.pop(), up(x)], dim=1))
        logits_BCHW: Tensor = self.head(x)
        return logits_BCHW
