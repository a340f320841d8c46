"""Data sets whose items are rows of whole tensors: a batch of them is one gather."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import TensorDataset

from epochal.data.hashing import ContentDigest

# N samples


class InMemory(TensorDataset):
    """Item i is row i of each tensor: a tuple of them, or a dict under their names.

    It tells of itself what is known without reading items: `targets` (int64, (N,)), `classes`,
    `sample_ids`, `fingerprint()`, `path_of(i)` and `stamp()`; what is not known it has not. It is
    read as fast as a `TensorDataset`; a subclass may give other items and is read item by item.
    """

    thread_safe = True
    unread = True

    def __init__(
        self,
        *tensors: torch.Tensor,
        names: Sequence[str] = (),
        fingerprint: Callable[[], str] | None = None,
        targets: npt.NDArray[np.int64] | None = None,
        classes: Sequence[str] | None = None,
        sample_ids: Any = None,
        path_of: Callable[[int], str] | None = None,
        stamp: Callable[[], str] | None = None,
    ) -> None:
        """names: of the tensors, where items are dicts. fingerprint: none: of the tensors' bytes.

        sample_ids: int64 of shape (N,), or N texts. targets: none: the second tensor, where it is
        one whole number for each sample.
        """
        super().__init__(*tensors)
        assert not names or len(names) == len(tensors)
        self.names = tuple(names)
        self._fingerprint = fingerprint or self._of_content
        if targets is None and len(tensors) > 1:
            targets = _whole_numbers(tensors[1])
        known = {"targets": targets, "sample_ids": sample_ids, "path_of": path_of, "stamp": stamp}
        known["classes"] = None if classes is None else list(classes)
        vars(self).update({name: value for name, value in known.items() if value is not None})

    def __getitem__(self, position: Any) -> Any:
        return self.as_item([tensor[position] for tensor in self.tensors])

    def as_item(self, parts: Sequence[torch.Tensor]) -> Any:
        """The parts of an item, or of a batch, as this set gives them."""
        return dict(zip(self.names, parts, strict=True)) if self.names else tuple(parts)

    def with_parts(self, places: Sequence[int], names: Sequence[str], *, target: int) -> InMemory:
        """A set of the parts at `places`, under those names, or as tuples without.

        target: place of the one that is the target now.
        """
        own = vars(self)
        kept = ("sample_ids", "path_of", "stamp")
        known: dict[str, Any] = {name: own[name] for name in kept if name in own}
        targets_N = _whole_numbers(self.tensors[target])
        if targets_N is not None and np.array_equal(targets_N, own.get("targets", ())):
            known["classes"] = own.get("classes")
        return InMemory(
            *(self.tensors[place] for place in places),
            names=names,
            fingerprint=lambda: f"{self.fingerprint()} as {places} {[*names]}, target {target}",
            targets=targets_N,
            **known,
        )

    def fingerprint(self) -> str:
        """Names the content."""
        return self._fingerprint()

    def _of_content(self) -> str:
        content = ContentDigest("in-memory")
        for place, tensor in enumerate(self.tensors):
            name = self.names[place] if self.names else str(place)
            plain = tensor.detach().cpu().contiguous()
            shape = f"{name} {str(plain.dtype).removeprefix('torch.')} {list(plain.shape)}"
            content.add(shape, plain.reshape(-1).view(torch.uint8).numpy().data)
        return content.hexdigest()


def _whole_numbers(tensor: torch.Tensor) -> npt.NDArray[np.int64] | None:
    if tensor.ndim != 1 or tensor.dtype == torch.bool or tensor.dtype.is_floating_point:
        return None
    targets_N: npt.NDArray[np.int64] = tensor.detach().cpu().to(torch.int64).numpy()
    return targets_N
