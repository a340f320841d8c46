"""The mean of several checkpoints' weights. No files: tensors in, tensors out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from epochal.engine.checkpoint.serialize import check_tensors


def averaged(checkpoints: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each tensor over the checkpoints, which come oldest first.

    Summed in float64 (complex128) in that order and cast back once, so that the result is within
    half a unit in the last place of the exact mean. Whole numbers and flags, such as BatchNorm's
    count of batches, are the newest checkpoint's. BatchNorm's running statistics are averaged as
    the weights are: no data is read. One checkpoint is held in memory at a time, beside the sum.

    Raises StateMismatch if names, shapes or types differ, ValueError without any checkpoint.
    """
    sums: dict[str, Tensor] = {}
    newest: Mapping[str, Tensor] = {}
    count = 0
    for checkpoint in checkpoints:
        if count:
            check_tensors(newest, checkpoint)
        for name, tensor in checkpoint.items():
            if not (tensor.is_floating_point() or tensor.is_complex()):
                continue
            wide = tensor.to(torch.complex128 if tensor.is_complex() else torch.float64, copy=True)
            sums[name] = wide if name not in sums else sums[name].add_(wide)
        newest, count = checkpoint, count + 1
    if not count:
        message = "there is no checkpoint to average"
        raise ValueError(message)
    return {
        name: sums[name].div_(count).to(tensor.dtype) if name in sums else tensor.clone()
        for name, tensor in newest.items()
    }
