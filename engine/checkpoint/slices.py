"""The slices of a stored state that a process holds: which they are; read without the others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from epochal.data.errors import CorruptObject, StateMismatch
from epochal.engine.checkpoint.serialize import load_tensors
from epochal.engine.model.state import Slice

_SLOT = "state/"


def slice_of(slices: Mapping[str, Slice], name: str) -> Slice | None:
    """The slice of a parameter, or of a slot of an optimizer (`state/<parameter>/<key>`)."""
    if name in slices:
        return slices[name]
    if name.startswith(_SLOT):
        return slices.get(name.removeprefix(_SLOT).rpartition("/")[0])
    return None


def slices_among(
    tensors: Mapping[str, Tensor], slices: Mapping[str, Slice], *, prefixes: tuple[str, ...] = ("",)
) -> dict[str, Slice]:
    """Which tensors of a state are slices. prefixes: that may stand before the names."""
    found = {}
    for name, tensor in tensors.items():
        prefix = next((one for one in prefixes if name.startswith(one)), None)
        slice_ = None if prefix is None else slice_of(slices, name.removeprefix(prefix))
        if slice_ is not None and tuple(tensor.shape) == slice_.own_shape:
            found[name] = slice_
    return found


def as_wholes(tensors: Mapping[str, Tensor], slices: Mapping[str, Slice]) -> dict[str, Tensor]:
    """The tensors; in place of slices what they are slices of, without memory."""
    return {
        name: torch.empty(slices[name].shape, dtype=tensor.dtype, device="meta")
        if name in slices
        else tensor
        for name, tensor in tensors.items()
    }


def load_slices(
    path: Path, slices: Mapping[str, Slice], *, prefixes: tuple[str, ...] = ("",)
) -> dict[str, Tensor]:
    """All tensors of a safetensors file in the host's memory; of some only the process's rows.

    slices: of a model's parameters; empty: all are whole. prefixes: as for `slices_among`. Raises
    CorruptObject if it is no such file, StateMismatch for another shape than a slice is of.
    """
    if not slices:
        return load_tensors(path, device="cpu")
    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                prefix = next((one for one in prefixes if name.startswith(one)), None)
                wanted = None if prefix is None else slice_of(slices, name.removeprefix(prefix))
                stored = file.get_slice(name)
                shape = tuple(stored.get_shape())
                if wanted is None or not shape:
                    tensors[name] = file.get_tensor(name)
                elif shape != wanted.shape:
                    raise StateMismatch(
                        f"{name}: stored {shape}, the model wants {wanted.shape}; was the model or "
                        "model.args changed?"
                    )
                elif wanted.rows:
                    tensors[name] = stored[wanted.first : wanted.first + wanted.rows]
                else:
                    tensors[name] = stored[:1][:0]
    except (SafetensorError, ValueError, TypeError, RuntimeError, OSError) as error:
        raise CorruptObject(f"{path} is no safetensors file: {error}") from error
    return tensors
