"""A convolutional encoder with a projection head."""

# B batch, D features, H height, W width

from torch import Tensor, nn


class Encoder(nn.Module):
    def __init__(self, width: int, features: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(2 * width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        self.projection = nn.Sequential(
            nn.Linear(2 * width, 2 * width), nn.ReLU(), nn.Linear(2 * width, features)
        )

    def forward(self, image_B1HW: Tensor) -> Tensor:
        """Images to features of shape (B, D)."""
        features_BD: Tensor = self.projection(self.body(image_B1HW))
        return features_BD
