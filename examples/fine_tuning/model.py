"""A backbone and a head."""

# B batch, C classes, H height, W width

from torch import Tensor, nn


def stage(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )


class Classifier(nn.Module):
    def __init__(self, num_classes: int, width: int = 16) -> None:
        super().__init__()
        self.backbone = nn.Sequential(stage(1, width), stage(width, 2 * width), nn.Flatten())
        self.head = nn.Linear(8 * width, num_classes)

    def layer_groups(self) -> list[nn.Module]:
        """From the first to the last, for `optimizer.layer_decay`."""
        return [self.backbone[0], self.backbone[1], self.head]

    def forward(self, image_B1HW: Tensor) -> Tensor:
        logits_BC: Tensor = self.head(self.backbone(image_B1HW))
        return logits_BC
