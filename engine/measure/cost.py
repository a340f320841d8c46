"""What training costs a device: floating-point operations of a step, the peak of its memory.

Nothing here touches what is trained: operations are counted on tensors without numbers.
"""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from epochal.engine.config.numerics import PrecisionConfig
from epochal.engine.model.precision import Precision
from epochal.engine.model.step import Step
from epochal.engine.randomness import borrowed_generators


def count_flops(
    model: nn.Module, step: Step, data: Any, *, precision: PrecisionConfig | None = None
) -> int | None:
    """Floating-point operations of one forward and backward pass over the batch `data`.

    As torch counts them: matrix products, convolutions and attention, a multiplication and an
    addition as two; what a model computes a second time in its backward pass counts twice. None
    where they cannot be counted: a step that looks at numbers (`.item()`), or what has no copy.

    Model and step are copied with tensors that have shapes and no numbers, so it takes no memory of
    the device and no time of it; weights, buffers, attributes, gradients and the state of the
    generators stay as they are.
    """
    # It brings SymPy with it, which takes longer to import than all of the engine.
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    device = next(model.parameters()).device
    placement = Precision(precision or PrecisionConfig(), device)
    shapes = FakeTensorMode(allow_non_fake_inputs=True)

    def shape_of(tensor: Tensor) -> Tensor:
        return shapes.from_tensor(tensor, static_shapes=True)

    modules = [model, *([step] if isinstance(step, nn.Module) else [])]
    held = chain.from_iterable(chain(one.parameters(), one.buffers()) for one in modules)
    try:
        with borrowed_generators(device):
            copies: dict[int, Any] = {id(tensor): shape_of(tensor) for tensor in held}
            copied_model, copied_step = copy.deepcopy((model, step), copies)
            copied_data = tree_map_only(Tensor, shape_of, placement.place(data))
            counter = FlopCounterMode(display=False)
            with shapes, counter, torch.enable_grad(), placement.autocast():
                output = copied_step(copied_model.train(), copied_data)
                torch.autograd.backward(output.loss_B.sum())
    except Exception:  # noqa: BLE001 - the user's model and step may raise anything on such tensors
        return None
    return int(counter.get_total_flops()) or None


def restart_peak(device: torch.device) -> None:
    """From here on `peak_device_bytes` tells the peak; does nothing for a CPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_device_bytes(device: torch.device) -> int | None:
    """The most bytes that tensors took on a CUDA device since `restart_peak`; None elsewhere."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else None


def device_name(device: torch.device) -> str | None:
    """What the maker calls a CUDA device; None for others."""
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def multiplies_in(precision: PrecisionConfig) -> str:
    """In which numbers a CUDA device multiplies matrices: the config's, or `tf32`."""
    if precision.dtype == "float32" and torch.get_float32_matmul_precision() != "highest":
        return "tf32"
    return precision.dtype
