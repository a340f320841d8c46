"""A model of transformers by its name, its folder or its config alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import nn

from epochal.data.errors import TargetError, passes_through
from epochal.data.traces import in_one_line

logger = logging.getLogger(__name__)

TASKS = {
    "sequence_classification": "AutoModelForSequenceClassification",
    "token_classification": "AutoModelForTokenClassification",
    "causal_lm": "AutoModelForCausalLM",
    "masked_lm": "AutoModelForMaskedLM",
    "seq2seq_lm": "AutoModelForSeq2SeqLM",
    "question_answering": "AutoModelForQuestionAnswering",
    "multiple_choice": "AutoModelForMultipleChoice",
    "image_classification": "AutoModelForImageClassification",
}


def hugging_face(
    task: str,
    model: str | None = None,
    config: Mapping[str, Any] | None = None,
    gradient_checkpointing: bool = False,  # noqa: FBT001, FBT002 - an arg of a config
    **more: Any,
) -> nn.Module:
    """`AutoModelFor…` of the task, for `model:`, in float32 whatever its weights are stored in.

    task: one of `TASKS`, or the name of a class of transformers. model: a name of the hub, or a
    folder (`./bert`); its pretrained weights are where training begins, and what they lack is
    drawn by the run's seed. config: in place of that, what `AutoConfig.for_model` takes,
    `{model_type: bert, hidden_size: 64}`: initial weights by the run's seed, nothing is read. more:
    entries of the model's config, as `num_labels: 3`.

    Raises TargetError for an unknown task, or what cannot be read.
    """
    import transformers

    if (model is None) == (config is None):
        raise TargetError(
            "model.args: expected one of `model`, a name or a folder with pretrained weights, and "
            "`config`, by which weights are made anew"
        )
    name = TASKS.get(task, task)
    kind = getattr(transformers, name, None)
    if kind is None or not hasattr(kind, "from_pretrained"):
        raise TargetError(
            f"model.args.task: found {task!r}; expected one of {', '.join(TASKS)}, or a class of "
            "transformers"
        )
    try:
        if config is None:
            made = kind.from_pretrained(model, dtype="float32", **more)
        else:
            kept = transformers.AutoConfig.for_model(**{**config, **more})
            made = kind.from_config(kept) if name.startswith("Auto") else kind(kept)
    except BaseException as error:  # names, files and configs may be wrong in many ways
        if passes_through(error):
            raise
        raise TargetError(
            f"model.args: {model or dict(config or {})}: {in_one_line(error)}"
        ) from error
    if gradient_checkpointing:
        made.gradient_checkpointing_enable()
    if getattr(made, "hf_quantizer", None) is not None:
        raise TargetError(
            f"model.args.model: {model} has quantised weights, which take no gradients; choose the "
            "unquantised ones"
        )
    done: nn.Module = made.float()
    return done
