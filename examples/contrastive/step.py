"""A loss over pairs within a batch: NT-Xent, Chen et al. 2020 (arXiv:2002.05709), eq. 1."""

# B samples, D features

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from epochal.engine import StepOutput


class NTXent:
    def __init__(self, temperature: float) -> None:
        self._temperature = temperature

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> StepOutput:
        size = len(batch["first"])
        # Both views at once: BatchNorm sees them together, and there is one forward pass.
        features = functional.normalize(model(torch.cat([batch["first"], batch["second"]])), dim=1)
        likeness = features @ features.T / self._temperature
        likeness.fill_diagonal_(-torch.inf)
        partner = torch.arange(2 * size, device=features.device).roll(size)
        loss_2B = functional.cross_entropy(likeness, partner, reduction="none")
        # One loss for each sample, the mean of its two views.
        return StepOutput(loss_B=loss_2B.view(2, size).mean(0), outputs=features[:size])
