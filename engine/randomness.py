"""Random numbers of a stage: the global generators are borrowed, reseeded per step, given back.

Reseeding at each micro-step makes a resume exact without storing any generator's state. The
generators of the devices in use are seeded directly: 1 µs, where `torch.manual_seed` visits every
device type and takes 114 µs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

_SEED_32 = (1 << 32) - 1  # NumPy's global generator takes 32 bits


def _device_generator(device: torch.device) -> torch.Generator | None:
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        return torch.cuda.default_generators[index]
    if device.type == "mps":
        return torch.mps._get_default_mps_generator()  # noqa: SLF001 - torch has no public way
    return None


def make_reseed(device: torch.device) -> Callable[[int], None]:
    """A function that seeds the global generators of torch, NumPy and `random` with an integer.

    The integer lies in [0, 2**63). `device`: whose generator is seeded beside the CPU's.
    """
    on_device = _device_generator(device)
    seed_torch = torch.default_generator.manual_seed
    seed_numpy, seed_python = np.random.seed, random.seed

    def reseed(seed: int) -> None:
        seed_torch(seed)
        seed_numpy(seed & _SEED_32)
        seed_python(seed)
        if on_device is not None:
            on_device.manual_seed(seed)

    return reseed


@contextmanager
def borrowed_generators(device: torch.device) -> Iterator[Callable[[int], None]]:
    """Gives `make_reseed(device)`; at exit the generators are as they were at entry."""
    on_device = _device_generator(device)
    device_state = None if on_device is None else on_device.get_state()
    torch_state = torch.default_generator.get_state()
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield make_reseed(device)
    finally:
        torch.default_generator.set_state(torch_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)
        if on_device is not None and device_state is not None:
            on_device.set_state(device_state)


@contextmanager
def seeded(seed: int, *, device: torch.device | None = None) -> Iterator[None]:
    """The block draws from generators seeded with `seed`; afterwards they are as before."""
    with borrowed_generators(device or torch.device("cpu")) as reseed:
        reseed(seed)
        yield
