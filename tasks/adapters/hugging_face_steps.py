"""The step of a model of transformers: a loss for each sample where its head is known."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from epochal.data.errors import TargetError
from epochal.engine.model.step import StepOutput

# B samples, T tokens, V vocabulary, C classes

IGNORED = -100
_PROBE = 2  # samples of the check before the start
_OWN = ("sample_id", "sample_ids")


class _Losses(NamedTuple):
    """loss_B, what its mean divides by, and outputs and target as metrics take them."""

    loss_B: Tensor
    denominator_B: Tensor | None
    outputs: Tensor
    target: Tensor


def hugging_face_step(per_sample: bool = True) -> HuggingFaceStep:  # noqa: FBT001, FBT002 - an arg of a config
    """For `step:`, with a model of transformers.

    per_sample: false: the model's own loss, one number for the batch.
    """
    return HuggingFaceStep(per_sample=per_sample)


class HuggingFaceStep:
    """Calls the model with the parts of the batch that it takes.

    Of a classification of sequences, tokens or images, of a causal, masked or sequence-to-sequence
    language model and of question answering there is a loss for each sample, whose mean over the
    update is the model's own, over tokens where that is: looked at before the start. Of any other
    head it is the model's own loss, with which `sampling.policy` must be `none`.
    """

    def __init__(self, *, per_sample: bool = True) -> None:
        self._per_sample = per_sample

    def __call__(self, model: Any, batch: Any) -> StepOutput:
        """batch: a dict with `labels`, or `(input, labels)`. Raises TargetError."""
        module = getattr(model, "_orig_mod", model)  # of a compiled one
        inputs = _inputs(module, batch)
        losses_of = _HEADS.get(_head(module)) if self._per_sample else None
        asks_itself = losses_of is None or _is_probe(inputs)
        given = dict(inputs)
        if not asks_itself and not module.config.is_encoder_decoder:
            for name in _LABELS:
                given.pop(name, None)  # its own loss would be computed for nobody
        outputs = model(**given)
        if losses_of is None:
            if getattr(outputs, "loss", None) is None:
                raise TargetError(
                    f"step: {type(module).__name__} gives no loss; expected `labels` in the batch, "
                    f"which has {', '.join(inputs)}"
                )
            return StepOutput(
                outputs.loss, getattr(outputs, "logits", None), target=_target(inputs)
            )
        found = losses_of(outputs, inputs, module.config)
        if asks_itself and getattr(outputs, "loss", None) is not None:
            _check(found, outputs.loss, type(module).__name__)
        return StepOutput(
            found.loss_B, found.outputs, target=found.target, denominator_B=found.denominator_B
        )


_LABELS = ("labels", "start_positions", "end_positions")


def _inputs(model: Any, batch: Any) -> dict[str, Any]:
    if isinstance(batch, Mapping):
        taken = _taken(type(model).forward)
        named = {name: part for name, part in batch.items() if name not in _OWN}
        if "label" in named and "labels" not in named:
            named["labels"] = named.pop("label")
        kept = {name: part for name, part in named.items() if taken is None or name in taken}
    else:
        kept = {model.main_input_name: batch[0], "labels": batch[1]}
    if not kept:
        raise TargetError(
            f"step: {type(model).__name__} takes none of {', '.join(batch)}; expected input_ids, "
            "labels, … of a tokenizer, or set loader.collate"
        )
    return kept


@cache
def _taken(forward: Callable[..., Any]) -> frozenset[str] | None:
    """What the model's forward takes; None: anything."""
    parameters = inspect.signature(forward).parameters
    open_ended = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    names = frozenset(parameters) - {"self", "args", "kwargs"}
    # Those of transformers take **kwargs for their attention alone.
    return (
        None if open_ended and "input_ids" not in names and "pixel_values" not in names else names
    )


def _head(model: Any) -> str:
    """What the class's name says of its head: `ForSequenceClassification`."""
    name = type(model).__name__
    return next((head for head in _HEADS if name.endswith(head)), "")


def _is_probe(inputs: Mapping[str, Any]) -> bool:
    return any(isinstance(part, Tensor) and len(part) <= _PROBE for part in inputs.values())


def _target(inputs: Mapping[str, Any]) -> Any:
    return inputs.get("labels")


def _labels(inputs: Mapping[str, Any]) -> Tensor:
    labels = inputs.get("labels")
    if not isinstance(labels, Tensor):
        raise TargetError(
            f"step: the batch has no `labels`, but {', '.join(inputs)}; expected them beside what "
            "the model reads"
        )
    return labels


def _check(found: _Losses, own: Tensor, name: str) -> None:
    """Raises TargetError where the model's own loss is another than the mean of the samples'."""
    total = found.loss_B.detach().double().sum()
    count = len(found.loss_B) if found.denominator_B is None else found.denominator_B.double().sum()
    mean = total / count if count else torch.zeros_like(total)
    own = own.detach().double()
    if own.isnan() and not count:
        return  # of nothing that counts the model gives 0 / 0, and an update here 0
    if not torch.allclose(mean, own, rtol=2e-3, atol=1e-4):
        raise TargetError(
            f"step: the loss of {name} is {float(own):.6g}, the mean of its samples' "
            f"{float(mean):.6g}: it has more terms than its labels', such as a balance of experts; "
            "set step.args.per_sample: false, for its own loss alone"
        )


def _of_sequences(outputs: Any, inputs: Mapping[str, Any], config: Any) -> _Losses:
    logits_BC, labels = outputs.logits.float(), _labels(inputs)
    kind = getattr(config, "problem_type", None)
    if kind is None:  # as the models of transformers find it out
        whole = not labels.is_floating_point()
        kind = (
            "regression" if logits_BC.shape[-1] == 1
            else "single_label_classification" if whole
            else "multi_label_classification"
        )  # fmt: skip
    if kind == "regression":
        found = logits_BC.squeeze(-1) if labels.ndim == 1 else logits_BC
        loss = functional.mse_loss(found, labels.to(found.dtype), reduction="none")
        return _Losses(loss if loss.ndim == 1 else loss.flatten(1).mean(1), None, found, labels)
    if kind == "multi_label_classification":
        loss_BC = functional.binary_cross_entropy_with_logits(
            logits_BC, labels.to(logits_BC.dtype), reduction="none"
        )
        return _Losses(loss_BC.flatten(1).mean(1), None, logits_BC, labels)
    loss_B = functional.cross_entropy(logits_BC, labels.view(-1), reduction="none")
    return _Losses(loss_B, None, logits_BC, labels.view(-1))


def _of_tokens(outputs: Any, inputs: Mapping[str, Any], config: Any) -> _Losses:  # noqa: ARG001 - as the others
    return _over_tokens(outputs.logits, _labels(inputs))


def _of_next_tokens(outputs: Any, inputs: Mapping[str, Any], config: Any) -> _Losses:  # noqa: ARG001 - as the others
    labels_BT = functional.pad(_labels(inputs), (0, 1), value=IGNORED)[:, 1:]
    return _over_tokens(outputs.logits, labels_BT)


def _over_tokens(logits_BTV: Tensor, labels_BT: Tensor) -> _Losses:
    logits_BVT = logits_BTV.float().transpose(1, 2)
    loss_BT = functional.cross_entropy(
        logits_BVT, labels_BT, reduction="none", ignore_index=IGNORED
    )
    return _Losses(loss_BT.sum(1), (labels_BT != IGNORED).sum(1).float(), logits_BVT, labels_BT)


def _of_answers(outputs: Any, inputs: Mapping[str, Any], config: Any) -> _Losses:  # noqa: ARG001 - as the others
    places, losses = [], []
    for name, logits_BT in (
        ("start_positions", outputs.start_logits),
        ("end_positions", outputs.end_logits),
    ):
        place_B = inputs[name].view(-1).clamp(0, logits_BT.shape[1])
        losses.append(
            functional.cross_entropy(
                logits_BT.float(), place_B, ignore_index=logits_BT.shape[1], reduction="none"
            )
        )
        places.append(place_B)
    logits = torch.stack([outputs.start_logits, outputs.end_logits], dim=2)  # (B, T, 2)
    return _Losses((losses[0] + losses[1]) / 2, None, logits, torch.stack(places, dim=1))


_HEADS: dict[str, Callable[[Any, Mapping[str, Any], Any], _Losses]] = {
    "ForSequenceClassification": _of_sequences,
    "ForImageClassification": _of_sequences,
    "ForTokenClassification": _of_tokens,
    "ForMaskedLM": _of_tokens,
    "ForConditionalGeneration": _of_tokens,
    "ForCausalLM": _of_next_tokens,
    "LMHeadModel": _of_next_tokens,
    "ForQuestionAnswering": _of_answers,
}
"""End of a class's name → losses of its samples."""
