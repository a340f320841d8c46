"""Host memory that a state is copied into, kept from one commit to the next.

New memory costs more than the copy itself: each page is cleared and mapped at its first touch. So
buffers are kept, and the first ones are touched ahead, beside the training.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    _Pair = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]

PAGE_BYTES = 4096
SHARE_BYTES = 4 << 20  # what one thread copies at a time: part of one tensor, or many small ones
MAX_THREADS = 4  # more than two were not measured; what two brought: docs/performance.md


@dataclass
class HostBuffers:
    """Holds at most one copy of a state. Not to be used by two threads at once."""

    _kept: dict[str, Tensor] = field(default_factory=dict)

    def prepare(self, tensors: Mapping[str, Tensor]) -> None:
        """Allocates the memory that `copy` of such tensors will need, and touches its pages."""
        for name, tensor in tensors.items():
            if self._fitting(name, tensor) is None:
                made = _empty_like(tensor)
                if made.numel():
                    _bytes(made)[::PAGE_BYTES] = 0
                self._kept[name] = made

    def copy(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies of the tensors as they are now, on the host; valid until the next call."""
        import torch

        copies: dict[str, Tensor] = {}
        devices = set()
        on_host: list[_Pair] = []
        with torch.no_grad():
            for name, tensor in tensors.items():
                kept = self._fitting(name, tensor)
                if kept is None:
                    kept = self._kept[name] = _empty_like(tensor)
                copies[name] = kept
                if tensor.device.type == "cuda":
                    # A copy into pinned memory goes on while the next one is started.
                    kept.copy_(tensor, non_blocking=True)
                    devices.add(tensor.device)
                elif tensor.device.type == "cpu" and tensor.is_contiguous() and tensor.numel():
                    on_host.append((_bytes(kept), _bytes(tensor)))
                else:
                    kept.copy_(tensor)
        _copy_on_host(on_host, threads=min(torch.get_num_threads(), MAX_THREADS))
        for device in devices:
            torch.cuda.synchronize(device)
        return copies

    def _fitting(self, name: str, tensor: Tensor) -> Tensor | None:
        kept = self._kept.get(name)
        if kept is None or kept.shape != tensor.shape or kept.dtype != tensor.dtype:
            return None
        return kept


def _copy_on_host(pairs: list[_Pair], *, threads: int) -> None:
    """Copies the second of each pair into the first; free threads take the next share of bytes.

    torch's own copy waits for all of its threads after each tensor, which took 2 to 10 times as
    long where another process had one of the cores.
    """
    import numpy as np

    def copy(share: list[_Pair]) -> None:
        for to, of in share:
            np.copyto(to, of)

    shares: list[list[_Pair]] = [[]]
    left = SHARE_BYTES
    for to, of in pairs:
        start = 0
        while start < len(to):
            count = min(left, len(to) - start)
            shares[-1].append((to[start : start + count], of[start : start + count]))
            start, left = start + count, left - count
            if not left:
                shares.append([])
                left = SHARE_BYTES
    if len(shares) == 1:
        copy(shares[0])
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="epochal-copy") as pool:
        for _ in pool.map(copy, shares):  # raises what a copy raises
            pass


def _empty_like(tensor: Tensor) -> Tensor:
    import torch

    pinned = tensor.device.type == "cuda"
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned)


def _bytes(tensor: Tensor) -> npt.NDArray[np.uint8]:
    """The memory of a contiguous host tensor that is not empty."""
    import torch

    bytes_N: npt.NDArray[np.uint8] = tensor.detach().view(-1).view(torch.uint8).numpy()
    return bytes_N
