"""The step for a model of transformers: it takes names, and gives an object that holds logits."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from epochal.engine import StepOutput

# B batch, C classes


class TransformersStep:
    """The model's own loss is a mean over the batch; one for each sample is made here instead."""

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> StepOutput:
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        logits_BC = model(**inputs).logits
        loss_B = functional.cross_entropy(logits_BC, batch["labels"], reduction="none")
        return StepOutput(loss_B, logits_BC, target=batch["labels"])
