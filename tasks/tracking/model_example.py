"""What a model was called with, as plain data: its inputs and outputs, for signature and export.

Made by the trainer, which has model and data (`tasks.preflight.model_call`). No torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from epochal.data.types import Frozen

TENSOR = "tensor"
NUMPY_TYPES = frozenset({
    "bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16",
    "uint32", "uint64",
})  # fmt: skip
"""What NumPy has a name for, and so MLflow."""
MAX_EXAMPLE_NUMBERS = 100_000
"""More are a megabyte of JSON: then the model goes along without the numbers."""


class TensorForm(Frozen):
    """Shape and type of a tensor, as torch names it; the first length is the batch's."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def spec(self) -> dict[str, Any]:
        """MLflow's form of it, for batches of any size."""
        return {"type": "tensor", "tensor-spec": {"dtype": self.dtype, "shape": self._any_batch}}

    @property
    def _any_batch(self) -> list[int]:
        return [-1, *self.shape[1:]]


class ModelExample(Frozen):
    """A call of a model on the first samples that it was validated on.

    args, kwargs: as given, each tensor a mapping `{"tensor": its number}`. tensors: of the inputs,
    by number. names: of `forward`'s parameter, or of the key in the one mapping that it takes →
    number of the tensor; empty where there is anything but tensors. outputs: name → form; one
    without a name is `""`.
    """

    args: list[JsonValue]
    kwargs: dict[str, JsonValue]
    tensors: tuple[TensorForm, ...]
    names: dict[str, int]
    outputs: dict[str, TensorForm]

    @property
    def signature(self) -> dict[str, Any] | None:
        """MLflow's signature, or None where it has no form for what the model takes."""
        inputs = {name: self.tensors[number] for name, number in self.names.items()}
        known = [*inputs.values(), *self.outputs.values()]
        if not inputs or any(one.dtype not in NUMPY_TYPES or not one.shape for one in known):
            return None
        plain = {"": next(iter(inputs.values()))} if self.is_single else inputs
        return {
            "inputs": json.dumps(_specs(plain)),
            "outputs": json.dumps(_specs(self.outputs)) if self.outputs else None,
            "params": None,
        }

    @property
    def is_single(self) -> bool:
        """Whether the model takes one tensor as it is."""
        return len(self.names) == 1 and self.args == [{TENSOR: 0}]

    def numbers(self, data: bytes) -> Any:
        """The inputs of the first sample, as MLflow's serving takes them; None if there are many.

        data: all tensors' numbers, one after the other.
        """
        import numpy as np

        if self.signature is None or len(data) > MAX_EXAMPLE_NUMBERS * 8:
            return None
        arrays, start = [], 0
        for form in self.tensors:
            kind = np.dtype(form.dtype)
            count = int(np.prod(form.shape))
            arrays.append(np.frombuffer(data, kind, count, start).reshape(form.shape)[:1])
            start += count * kind.itemsize
        if sum(array.size for array in arrays) > MAX_EXAMPLE_NUMBERS:
            return None
        if self.is_single:
            return arrays[0].tolist()
        return {name: arrays[number].tolist() for name, number in self.names.items()}


def _specs(forms: Mapping[str, TensorForm]) -> list[dict[str, Any]]:
    return [{**form.spec, **({"name": name} if name else {})} for name, form in forms.items()]
