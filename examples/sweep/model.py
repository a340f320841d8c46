"""A small perceptron for 8x8 images."""

# B batch, C classes, H height, W width

from torch import Tensor, nn


class Perceptron(nn.Module):
    def __init__(self, width: int = 64, num_classes: int = 10) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, num_classes)
        )

    def forward(self, image_B1HW: Tensor) -> Tensor:
        logits_BC: Tensor = self.layers(image_B1HW)
        return logits_BC
