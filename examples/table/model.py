"""A small network for rows of numbers."""

# B batch, F features

from torch import Tensor, nn


class MLP(nn.Module):
    def __init__(self, features: int, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 1)
        )

    def forward(self, features_BF: Tensor) -> Tensor:
        """One logit for each row, of shape (B,)."""
        logit_B1: Tensor = self.layers(features_BF)
        return logit_B1.squeeze(1)
