"""A small residual network for images of any size."""

# B batch, C classes, H height, W width, D channels

from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inner, outer, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(outer, outer, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(outer), nn.BatchNorm2d(outer)])
        self.shortcut = nn.Conv2d(inner, outer, 1, stride, bias=False)

    def forward(self, x_BDHW: Tensor) -> Tensor:
        inside_BDHW = functional.relu(self.norms[0](self.first(x_BDHW)))
        return functional.relu(self.norms[1](self.second(inside_BDHW)) + self.shortcut(x_BDHW))


class SmallResNet(nn.Sequential):
    """Images of shape (B, 3, H, W) to logits of shape (B, C)."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__(
            Block(3, width, 2), Block(width, 2 * width, 2), Block(2 * width, 4 * width, 2),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, num_classes),
        )  # fmt: skip
