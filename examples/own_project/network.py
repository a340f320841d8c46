"""The model: one body, and two heads for the two things that are asked of a wave."""

from torch import Tensor, nn

# B batch, T points of a wave, C shapes


class WaveNet(nn.Module):
    """Three convolutions; from their mean over time a shape and a frequency."""

    def __init__(self, width: int = 32, num_shapes: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for stride in (1, 2, 2):
            layers += [
                nn.Conv1d(channels, width, kernel_size=7, stride=stride, padding=3, bias=False),
                nn.BatchNorm1d(width),
                nn.ReLU(),
            ]
            channels = width
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten())
        self.shape_head = nn.Linear(width, num_shapes)
        self.frequency_head = nn.Linear(width, 1)

    def forward(self, signal_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Waves to logits of shape (B, C) and frequencies of shape (B,)."""
        features = self.body(signal_BT.unsqueeze(1))
        return self.shape_head(features), self.frequency_head(features).squeeze(1)
