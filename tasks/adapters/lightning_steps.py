"""The step of a LightningModule: its training_step and validation_step, and what they log."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Number
from typing import Any

import torch
from torch import Tensor, nn

from epochal.data.errors import TargetError
from epochal.engine.model.step import StepOutput

# B samples of a micro-batch

_OUTPUTS = ("outputs", "logits", "preds", "predictions", "y_hat")
_TARGETS = ("target", "targets", "labels", "label", "y")
_LOSSES = "losses"


def lightning_step() -> LightningStep:
    """For `step:`, with `model: {target: "epochal.tasks.adapters:lightning", …}`."""
    return LightningStep()


class LightningStep:
    """Calls training_step in training, validation_step (else training_step) elsewhere.

    What it returns is the loss of the batch, of shape (), or one for each sample, of shape (B,); or
    a dict with `loss`, and `losses` of shape (B,) where there is one for each sample, whose mean
    `loss` is: tables and policies go by these. Of such a dict `outputs`, `logits` or `preds` and
    `target` or `labels` are what metrics are updated with. Numbers that are logged become parts of
    the loss, as `train/loss/<name>` and `validation/loss/<name>`.
    """

    def __call__(self, model: Any, batch: Any) -> StepOutput:
        """batch: as the loader gives it, on the model's device. Raises TargetError."""
        for name in ("on_before_batch_transfer", "on_after_batch_transfer"):
            batch = getattr(model, name)(batch, 0)
        trains = model.training or not hasattr(type(model), "validation_step")
        called = model.training_step if trains or _is_missing(model) else model.validation_step
        with _logged(model) as logged:
            made = called(*_arguments(called, batch))
        found = made if isinstance(made, Mapping) else {"loss": made}
        loss = found.get("loss")
        if not isinstance(loss, Tensor):
            raise TargetError(
                f"step: {called.__name__} of {type(model).__name__} returned {_what(made)}; "
                "expected its loss, or a dict with `loss`: every batch is trained on and measured"
            )
        losses_B = found.get(_LOSSES)
        if losses_B is not None:
            _check_mean(losses_B, loss, called.__name__)
        return StepOutput(
            loss_B=loss if losses_B is None else losses_B,
            outputs=_first(found, _OUTPUTS),
            target=_first(found, _TARGETS),
            parts=_parts(logged, like=loss),
        )


def _is_missing(model: Any) -> bool:
    """Whether validation_step is Lightning's own, which does nothing."""
    return type(model).validation_step.__module__.partition(".")[0] in {
        "lightning", "pytorch_lightning",
    }  # fmt: skip


def _arguments(called: Any, batch: Any) -> tuple[Any, ...]:
    """batch, and 0 for the batch's and the loader's numbers as far as the method takes them."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    taken = [one for one in inspect.signature(called).parameters.values() if one.kind in kinds]
    return (batch, 0, 0)[: max(1, len(taken))]


def _first(found: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((found[name] for name in names if name in found), None)


def _what(made: Any) -> str:
    if isinstance(made, Mapping):
        return f"a dict of {', '.join(map(str, made))}"
    return "nothing" if made is None else f"a {type(made).__name__}"


def _check_mean(losses_B: Any, loss: Tensor, name: str) -> None:
    """Raises TargetError where the losses are not those of the loss: looked at in small batches.

    The batches of the check before the start are small; in larger ones a look would wait for the
    device each time.
    """
    if not isinstance(losses_B, Tensor) or losses_B.ndim != 1:
        raise TargetError(f"step: `losses` of {name} is no tensor of shape (B,)")
    if len(losses_B) > 2:  # noqa: PLR2004 - samples of the check before the start
        return
    mean, loss = losses_B.detach().float().mean(), loss.detach().float()
    if not torch.allclose(mean, loss, rtol=1e-3, atol=1e-5):
        raise TargetError(
            f"step: the mean of `losses` of {name} is {float(mean):.6g}, its `loss` "
            f"{float(loss):.6g}; expected the same"
        )


def _parts(logged: Mapping[str, Any], *, like: Tensor) -> dict[str, Tensor] | None:
    """Logged numbers, on the loss's device; what gathers over batches is left to `metrics`."""
    parts = {}
    for name, value in logged.items():
        if isinstance(value, nn.Module | bool):
            continue  # a metric that gathers over batches: `metrics.validation` does that
        if isinstance(value, Tensor) and value.numel() == 1:
            parts[name] = value.detach().reshape(()).to(like.device, torch.float32)
        elif isinstance(value, Number):
            parts[name] = torch.tensor(float(value), device=like.device)  # type: ignore[arg-type]
    return parts or None


@contextmanager
def _logged(model: Any) -> Iterator[dict[str, Any]]:
    """What is logged in the block, by name; `self.log` would need a Trainer."""
    found: dict[str, Any] = {}

    def log(name: str, value: Any, *_: Any, **__: Any) -> None:
        found[name] = value

    def log_dict(dictionary: Mapping[str, Any], *_: Any, **__: Any) -> None:
        found.update(dictionary)

    own = vars(getattr(model, "_orig_mod", model))  # of a compiled module
    own["log"], own["log_dict"] = log, log_dict
    try:
        yield found
    finally:
        del own["log"], own["log_dict"]
