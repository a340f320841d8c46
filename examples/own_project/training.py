"""The step and the metrics: what the default `loss(model(input), target)` cannot say."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from epochal.engine import StepOutput

# B batch, C shapes


class TwoTasks:
    """The cross-entropy of the shape plus `frequency_weight` times the frequency's error."""

    def __init__(self, frequency_weight: float = 0.2) -> None:
        self._frequency_weight = frequency_weight

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> StepOutput:
        """batch: the items' dicts, collated and on the model's device. Called in validation too."""
        label_B, frequency_B = batch["label"], batch["frequency"].float()
        logits_BC, found_B = model(batch["signal"])
        # One loss per sample, not their mean: tables and policies go by samples.
        shape_loss_B = functional.cross_entropy(logits_BC, label_B, reduction="none")
        frequency_loss_B = functional.smooth_l1_loss(found_B, frequency_B, reduction="none")
        return StepOutput(
            loss_B=shape_loss_B + self._frequency_weight * frequency_loss_B,
            outputs={"logits": logits_BC, "frequency": found_B},
            observations=observations(logits_BC, label_B),
            target={"label": label_B, "frequency": frequency_B},
        )


@torch.no_grad()
def observations(logits_BC: Tensor, label_B: Tensor) -> dict[str, Tensor]:
    """Columns for the tables. They are made by themselves where `outputs` are plain logits."""
    probability_BC = logits_BC.softmax(dim=1)
    confidence_B, predicted_B = probability_BC.max(dim=1)
    index_B1 = label_B.unsqueeze(1)
    others_BC = logits_BC.scatter(1, index_B1, -torch.inf)
    return {
        "label": label_B,
        "confidence": confidence_B,
        "p_true": probability_BC.gather(1, index_B1).squeeze(1),
        "margin": logits_BC.gather(1, index_B1).squeeze(1) - others_BC.max(dim=1).values,
        "correct": predicted_B == label_B,
    }


class ShapeAccuracy:
    """Share of waves whose shape is right. A new one is made for each validation."""

    def __init__(self) -> None:
        self._right = 0
        self._total = 0

    def update(self, outputs: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
        """Takes one batch: what the step gave as `outputs` and `target`."""
        right_B = outputs["logits"].argmax(dim=1) == target["label"]
        self._right += int(right_B.sum())
        self._total += len(right_B)

    def compute(self) -> float:
        """A number, or a dict of numbers."""
        return self._right / self._total


class FrequencyError:
    """Mean absolute error of the frequency, in periods."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._total = 0

    def update(self, outputs: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
        error_B = (outputs["frequency"] - target["frequency"]).abs()
        self._sum += float(error_B.double().sum())
        self._total += len(error_B)

    def compute(self) -> float:
        return self._sum / self._total
