"""How the step calls the model: seen once, on the first samples that are validated on."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from epochal.data.errors import TrainingFailed
from epochal.data.types import seed_64
from epochal.engine.randomness import seeded
from epochal.tasks.computing.work import Work
from epochal.tasks.preflight.carried_state import untouched
from epochal.tasks.run_data.probe_batches import first_batch

SAMPLES = 2  # more than one, so that the batch's dimension is seen
_PLAIN = (bool, int, float, str, type(None))


class CannotTellError(Exception):
    """Why a call cannot be told as plain data."""


def model_call(work: Work) -> tuple[dict[str, Any], bytes]:
    """A `ModelExample` as a document, and the numbers of its tensors; or `{"problem": why}`.

    The model is left as it was: nothing is trained, no generator goes on.
    """
    components = work.ready_components()
    if components.state.slices:
        return {"problem": "its weights lie on several devices"}, b""
    model, data = components.state.model, work.data["validation_data"]
    seen: list[tuple[tuple[Any, ...], dict[str, Any], Any]] = []

    def look(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if not seen:
            seen.append((args, kwargs, output))

    was_training = model.training
    hook = model.register_forward_hook(look, with_kwargs=True)
    try:
        with untouched(components), seeded(seed_64(work.config.seed, "example")), torch.no_grad():
            count = min(SAMPLES, data.info.num_samples)
            _, moved = first_batch(work.config, data, components, count=count, part="validation")
            model.eval()
            components.step(model, moved)
        if not seen:
            return {"problem": "the step does not call it as a whole"}, b""
        return _told(model, *seen[0])
    except CannotTellError as error:
        return {"problem": str(error)}, b""
    except TrainingFailed as error:
        return {"problem": f"its first samples cannot be read: {error}"}, b""
    finally:
        hook.remove()
        model.train(was_training)


def _told(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> tuple[dict[str, Any], bytes]:
    tensors: list[Tensor] = []
    told_args = [_plain(value, tensors) for value in args]
    told_kwargs = {name: _plain(value, tensors) for name, value in kwargs.items()}
    document = {
        "args": told_args,
        "kwargs": told_kwargs,
        "tensors": [_form(tensor) for tensor in tensors],
        "names": _names(model, told_args, told_kwargs),
        "outputs": _outputs(output),
    }
    data = b"".join(
        one.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        for one in tensors
    )
    return document, data


def _plain(value: Any, tensors: list[Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors.append(value)
        return {"tensor": len(tensors) - 1}
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {name: _plain(item, tensors) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, tensors) for item in value]
    message = f"it is called with a {type(value).__name__}"
    raise CannotTellError(message)


def _form(tensor: Tensor) -> dict[str, Any]:
    return {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}


def _names(model: nn.Module, args: list[Any], kwargs: dict[str, Any]) -> dict[str, int]:
    """Parameter of `forward` → number of its tensor; empty if something else is among them."""
    given = inspect.signature(model.forward).bind(*args, **kwargs).arguments
    flat: dict[str, Any] = {}
    for name, value in given.items():
        flat |= value if name == "kwargs" and isinstance(value, dict) else {name: value}
    flat = {name: value for name, value in flat.items() if value is not None}
    if len(flat) == 1 and not _is_tensor(only := next(iter(flat.values()))):
        flat = only if isinstance(only, dict) else {}
    return {n: v["tensor"] for n, v in flat.items()} if all(map(_is_tensor, flat.values())) else {}


def _is_tensor(value: Any) -> bool:
    return isinstance(value, dict) and [*value] == ["tensor"] and isinstance(value["tensor"], int)


def _outputs(output: Any) -> dict[str, dict[str, Any]]:
    """Name → form of each tensor that comes out; none where anything else does."""
    if isinstance(output, Tensor):
        return {"": _form(output)}
    parts: Mapping[Any, Any] = {}
    if isinstance(output, Mapping):
        parts = output
    elif isinstance(output, list | tuple):
        parts = {f"output_{place}": one for place, one in enumerate(output)}
    if not parts or not all(isinstance(one, Tensor) for one in parts.values()):
        return {}
    return {str(name): _form(one) for name, one in parts.items()}
