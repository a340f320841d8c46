"""Precision: autocast, the memory order of images, the scale of float16 losses, compilation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from epochal.engine.config.numerics import PrecisionConfig
from epochal.engine.model.batches import to_device

_TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_IMAGES = 4  # dimensions


class Precision:
    """How one device computes under a config."""

    def __init__(self, config: PrecisionConfig, device: torch.device) -> None:
        self._device = device
        self._format = torch.channels_last if config.channels_last else None
        self._dtype = _TYPES.get(config.dtype)
        self._as_it_is = nullcontext()

    def autocast(self) -> AbstractContextManager[Any]:
        """Around each forward pass and its loss."""
        if self._dtype is None:
            return self._as_it_is
        return torch.autocast(self._device.type, dtype=self._dtype)

    def place(self, data: Any) -> Any:
        """`data` on the device, images in the memory order of the config."""
        moved = to_device(data, self._device)
        return moved if self._format is None else self._ordered(moved)

    def _ordered(self, data: Any) -> Any:
        if isinstance(data, Tensor):
            is_images = data.ndim == _IMAGES and data.is_floating_point()
            return data.to(memory_format=self._format) if is_images else data
        if isinstance(data, tuple) and hasattr(data, "_fields"):
            return type(data)(*(self._ordered(item) for item in data))
        if isinstance(data, tuple | list):
            return type(data)(self._ordered(item) for item in data)
        if isinstance(data, dict):
            return {name: self._ordered(item) for name, item in data.items()}
        return data


def prepared(model: nn.Module, config: PrecisionConfig) -> nn.Module:
    """The model in the memory order of the config, in place."""
    if not config.channels_last:
        return model
    # Documented; the stubs of a module's `to` lack a memory format without a dtype.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # stubs lack it
    return model


def compiled(model: nn.Module, config: PrecisionConfig) -> Callable[..., Any] | None:
    """What to call instead of the model, or None. It shares the model's weights."""
    return torch.compile(model) if config.compile else None


def new_scaler(config: PrecisionConfig, device: torch.device) -> torch.amp.GradScaler | None:
    """The scale of the loss that float16 needs; None for other numbers."""
    return torch.amp.GradScaler(device.type) if config.dtype == "float16" else None
