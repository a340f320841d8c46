"""What a stage asks of a CUDA device: its peak of memory, and the share of what it could do.

The phases of an epoch are those of the host, which hands work to the device and goes on; the
seconds of a whole loop are right, since its end waits for the device. Of other devices nothing is
known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from epochal.tasks.goodput.stage import StageGoodput

if TYPE_CHECKING:
    from epochal.data.types import Batch
    from epochal.engine.config.numerics import PrecisionConfig
    from epochal.engine.model.state import TrainingState
    from epochal.engine.model.step import Step

_TERA = 1e12
# Dense matrix products (data sheets print the double, "with sparsity", of the newer ones), in
# 10**12 operations a second, by the beginning of the name that the driver gives; the first fits.
# NVIDIA's data sheets: HGX B200, H200, H100 (SXM, PCIe, NVL), A100, L40S, L4, A10, V100, T4.
_PEAKS: tuple[tuple[str, dict[str, float]], ...] = (
    ("NVIDIA B200", {"bfloat16": 2250, "float16": 2250, "tf32": 1125, "float32": 75}),
    ("NVIDIA H200 NVL", {"bfloat16": 835.5, "float16": 835.5, "tf32": 417.5, "float32": 60}),
    ("NVIDIA H200", {"bfloat16": 989.5, "float16": 989.5, "tf32": 494.5, "float32": 67}),
    ("NVIDIA H100 PCIe", {"bfloat16": 756.5, "float16": 756.5, "tf32": 378, "float32": 51}),
    ("NVIDIA H100 NVL", {"bfloat16": 835.5, "float16": 835.5, "tf32": 417.5, "float32": 60}),
    ("NVIDIA H100 80GB HBM3", {"bfloat16": 989.5, "float16": 989.5, "tf32": 494.5, "float32": 67}),
    ("NVIDIA A100", {"bfloat16": 312, "float16": 312, "tf32": 156, "float32": 19.5}),
    ("NVIDIA L40S", {"bfloat16": 362, "float16": 362, "tf32": 183, "float32": 91.6}),
    ("NVIDIA L4", {"bfloat16": 121, "float16": 121, "tf32": 60, "float32": 30.3}),
    ("NVIDIA A10", {"bfloat16": 125, "float16": 125, "tf32": 62.5, "float32": 31.2}),
    ("Tesla V100-SXM2", {"float16": 125, "float32": 15.7}),
    ("Tesla T4", {"float16": 65, "float32": 8.1}),
)


def device_flops(name: str, numbers: str) -> float | None:
    """Operations a second of the device that its driver calls `name`; None where it is not listed.

    numbers: `float32`, `tf32`, `bfloat16` or `float16`, in which matrices are multiplied. A part of
    a device (MIG) is not listed: what it can do is no figure of a data sheet.
    """
    if "MIG" in name:
        return None
    for beginning, peaks in _PEAKS:
        if name.startswith(beginning) and name[len(beginning) :][:1] in {"", " ", "-"}:
            peak = peaks.get(numbers)
            return None if peak is None else peak * _TERA
    return None


def watch_device(
    goodput: StageGoodput,
    batches: Iterable[Batch],
    *,
    state: TrainingState,
    step: Step,
    precision: PrecisionConfig,
) -> Iterable[Batch]:
    """Has `goodput` know of the device that an epoch trains on; gives the batches to train on.

    Once in a process the operations of a forward and backward pass are counted, on the first of
    them. Changes nothing where the state is not on a CUDA device.
    """
    from epochal.engine.measure.cost import (
        device_name,
        multiplies_in,
        peak_device_bytes,
        restart_peak,
    )

    name = device_name(state.device)
    if name is None:
        return batches
    restart_peak(state.device)
    goodput.restart_device_bytes = partial(restart_peak, state.device)
    goodput.device_bytes = partial(peak_device_bytes, state.device)
    goodput.device_flops = device_flops(name, multiplies_in(precision))
    if goodput.device_flops is None or goodput.flops_per_sample is not None or state.slices:
        return batches  # a model in slices cannot be tried by one process
    return counted(goodput, batches, state=state, step=step, precision=precision)


def counted(
    goodput: StageGoodput,
    batches: Iterable[Batch],
    *,
    state: TrainingState,
    step: Step,
    precision: PrecisionConfig,
) -> Iterator[Batch]:
    """The batches; on the first with samples `flops_per_sample` is counted before it is given."""
    from epochal.engine.loop.resize import resized
    from epochal.engine.measure.cost import count_flops
    from epochal.engine.model.batches import to_device

    waiting = True
    for batch in batches:
        if waiting and batch.num_samples:
            waiting = False
            with goodput.watch.phase("orchestration"):
                data = batch.data
                if batch.size_HW is not None:
                    data = resized(to_device(data, state.device), batch.size_HW)
                flops = count_flops(state.model, step, data, precision=precision)
                goodput.flops_per_sample = flops and round(flops / batch.num_samples)
        yield batch
