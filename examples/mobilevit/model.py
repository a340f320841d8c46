"""A small MobileViT, after Mehta & Rastegari 2022 (arXiv:2110.02178), sections 3.1 and 4.

The block sees near pixels by a convolution, and far ones by a transformer over the pixels that
stand at the same place of their patches; both are put together by a second convolution.
"""

# B batch, C channels, H height, W width, P pixels of a patch, N patches, D features

from torch import Tensor, cat, nn


def convolution(inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.SiLU(),
    )


class InvertedResidual(nn.Module):
    """Wide in the middle, with one filter for each channel there (arXiv:1801.04381)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, expansion: int = 2) -> None:
        super().__init__()
        wide = inputs * expansion
        self.layers = nn.Sequential(
            convolution(inputs, wide, 1),
            nn.Conv2d(wide, wide, 3, stride=stride, padding=1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.SiLU(),
            nn.Conv2d(wide, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW: Tensor = self.layers(x_BCHW)
        return x_BCHW + y_BCHW if self.is_residual else y_BCHW


class MobileViTBlock(nn.Module):
    """Images of shape (B, C, H, W) to the same shape; H and W are multiples of `patch`."""

    def __init__(self, channels: int, *, features: int, depth: int, patch: int = 2) -> None:
        super().__init__()
        self.patch = patch
        self.near = nn.Sequential(
            convolution(channels, channels, 3), nn.Conv2d(channels, features, 1, bias=False)
        )
        self.far = nn.ModuleList(
            nn.TransformerEncoderLayer(
                features, nhead=4, dim_feedforward=2 * features, dropout=0.1,
                activation=nn.functional.silu, batch_first=True, norm_first=True,
            )
            for _ in range(depth)
        )  # fmt: skip
        self.norm = nn.LayerNorm(features)
        self.back = convolution(features, channels, 1)
        self.fusion = convolution(2 * channels, channels, 3)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BDHW = self.near(x_BCHW)
        batch, features, height, width = y_BDHW.shape
        side = self.patch
        rows, columns = height // side, width // side
        # (B, D, rows, side, columns, side) to (B · P, N, D): a sequence for each place in a patch
        sequence = (
            y_BDHW.reshape(batch, features, rows, side, columns, side)
            .permute(0, 3, 5, 2, 4, 1)
            .reshape(batch * side * side, rows * columns, features)
        )
        for layer in self.far:
            sequence = layer(sequence)
        y_BDHW = (
            self.norm(sequence)
            .reshape(batch, side, side, rows, columns, features)
            .permute(0, 5, 3, 1, 4, 2)
            .reshape(batch, features, height, width)
        )
        fused: Tensor = self.fusion(cat([x_BCHW, self.back(y_BDHW)], dim=1))
        return fused


class MobileViT(nn.Module):
    """Grey images of shape (B, 1, H, W), multiples of 4 pixels, to logits (B, C)."""

    def __init__(self, width: int = 16, num_classes: int = 10) -> None:
        super().__init__()
        self.stem = convolution(1, width, 3)
        self.stages = nn.Sequential(
            InvertedResidual(width, 2 * width, stride=2),
            MobileViTBlock(2 * width, features=2 * width, depth=2),
            InvertedResidual(2 * width, 3 * width, stride=1),
        )
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.1),
            nn.Linear(3 * width, num_classes),
        )

    def forward(self, image_B1HW: Tensor) -> Tensor:
        logits_BC: Tensor = self.head(self.stages(self.stem(image_B1HW)))
        return logits_BC
