"""A small convolutional network for 8x8 images."""

# B batch, C classes, H height, W width

from torch import Tensor, nn


class SmallConvNet(nn.Module):
    """Two convolutions and a linear classifier: about 30,000 weights at width 32."""

    def __init__(self, width: int = 32, num_classes: int = 10, dropout: float = 0.1) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Dropout(dropout), nn.Linear(8 * width, num_classes)
        )

    def forward(self, image_B1HW: Tensor) -> Tensor:
        """Images of shape (B, 1, 8, 8) to logits of shape (B, C)."""
        logits_BC: Tensor = self.classifier(self.features(image_B1HW))
        return logits_BC
