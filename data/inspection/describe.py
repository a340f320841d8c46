"""What must be known of a data set before epoch 0: its fingerprint, ids and labels.

The fingerprint is the content's alone: no path, no time, no machine. Torch and NumPy are imported
only where a data set is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from epochal.data.errors import DataError, passes_through
from epochal.data.hashing import ContentDigest, digest
from epochal.data.inspection.file_stamps import files_stamp
from epochal.data.inspection.item_reader import Description, ItemReader, has_id, is_whole
from epochal.data.inspection.labels import check_batch_size, check_labels
from epochal.data.traces import in_one_line

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch.utils.data import TensorDataset

__all__ = ["Description", "check_batch_size", "check_labels", "describe", "files_stamp"]

# N samples


def describe(dataset: Any, *, name: str) -> Description:
    """Reads a map-style data set; `name` is the config's field, for errors.

    A data set with a method `fingerprint()` that returns a text is identified by that; its items
    are then read only if the first one has a `sample_id`, and labels stay unknown otherwise. Any
    other is identified by the content of all items. They are read with the global generators
    seeded by position, so that augmentation does not change the fingerprint; afterwards these are
    as before.

    Raises DataError for a data set that cannot be trained on: without length or `__getitem__`,
    empty, with an item that raises or that no batch can be made of, or with sample ids that are
    neither whole numbers from 0 on nor texts, each once.
    """
    import numpy as np

    from epochal.data.loading.items import in_tensors, kept_generators

    count = _length(dataset, name)
    stated = _stated_fingerprint(dataset, name)
    with kept_generators():
        if stated is None:
            tensors_and_rows = in_tensors(dataset, np.arange(count, dtype=np.int64))
            if tensors_and_rows is not None:
                return _describe_tensors(*tensors_and_rows, count=count, name=name)
        elif not has_id(ItemReader(dataset, count, name).item(0)):
            return Description(fingerprint=stated, num_samples=count)
        reader = ItemReader(dataset, count, name)
        return reader.read(stated)


def _describe_tensors(
    dataset: TensorDataset, rows_N: npt.NDArray[np.int64], *, count: int, name: str
) -> Description:
    import numpy as np
    import torch

    from epochal.data.inspection.content_digest import UnsupportedItem, add_tensor, row_digests

    tensors = dataset.tensors
    if len(rows_N) != len(dataset) or not np.array_equal(rows_N, np.arange(count)):
        tensors = tuple(tensor[torch.from_numpy(rows_N)] for tensor in tensors)  # a Subset of it
    content = ContentDigest("data-tensors")
    for number, tensor in enumerate(tensors):
        try:
            add_tensor(content, tensor, place=f"tensor {number}")
        except UnsupportedItem as error:
            raise DataError(f"{name}: {error}; convert it in the data set") from error
    labels_N = None
    if len(tensors) > 1 and tensors[1].ndim == 1 and is_whole(tensors[1]):
        labels_N = tensors[1].detach().cpu().to(torch.int64).numpy().copy()
    return Description(
        fingerprint=content.hexdigest(),
        num_samples=count,
        labels=labels_N,
        label_min=None if labels_N is None else int(labels_N.min()),
        label_max=None if labels_N is None else int(labels_N.max()),
        inputs=row_digests(tensors[0]),
    )


def _length(dataset: Any, name: str) -> int:
    from torch.utils.data import DataLoader, IterableDataset

    kind = f"{type(dataset).__module__}.{type(dataset).__qualname__}"
    expected = "expected a map-style data set: len(data) and data[i] for i from 0 on"
    if isinstance(dataset, DataLoader):
        raise DataError(f"{name}: found a DataLoader; {expected}; return its `dataset`")
    if isinstance(dataset, str | bytes):
        raise DataError(f"{name}: found a {kind}; {expected}")
    if isinstance(dataset, tuple | Mapping):
        hint = "for arrays of inputs and targets: torch.utils.data.TensorDataset(inputs, targets)"
        raise DataError(f"{name}: found a {kind}; {expected}; {hint}")
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        hint = "one that only iterates cannot be shuffled by id or resumed: list(data) makes one"
        raise DataError(f"{name}: found a {kind} without items by index; {expected}; {hint}")
    try:
        count = len(dataset)
    except BaseException as error:  # a user's __len__ may raise anything
        if passes_through(error):
            raise
        cause = f"len(data) raised {in_one_line(error)}"
        raise DataError(f"{name}: found a {kind} of which {cause}; {expected}") from error
    if count == 0:
        raise DataError(f"{name}: is empty: found a {kind} with no samples; expected one at least")
    return count


def _stated_fingerprint(dataset: Any, name: str) -> str | None:
    method = getattr(dataset, "fingerprint", None)
    if not callable(method):
        return None
    try:
        text = method()
    except BaseException as error:  # a user's method may raise anything
        if passes_through(error):
            raise
        raise DataError(f"{name}: its fingerprint() raised {in_one_line(error)}") from error
    if not isinstance(text, str) or not text:
        raise DataError(
            f"{name}: its fingerprint() gave {text!r:.80}; expected a text that names the content "
            "and changes with it"
        )
    return digest("data-fingerprint", text)
