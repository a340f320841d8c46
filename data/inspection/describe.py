"""What must be known of a data set before epoch 0: its fingerprint, ids and labels.

The fingerprint is the content's alone: no path, no time, no machine. Torch and NumPy are imported
only where a data set is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from epochal.data.errors import DataError, passes_through
from epochal.data.hashing import ContentDigest, digest
from epochal.data.inspection.file_stamps import files_stamp
from epochal.data.inspection.item_form import has_id, is_whole
from epochal.data.inspection.item_reader import (
    NOT_FINITE,
    BadSample,
    Description,
    ItemReader,
    Progress,
    checked_ids,
)
from epochal.data.inspection.labels import LabelsOutside, check_batch_size, check_labels
from epochal.data.inspection.seen import fixed_positions, seen_item
from epochal.data.inspection.told import targets_of, told_ids
from epochal.data.inspection.unsteady import check_steady
from epochal.data.traces import in_one_line

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch.utils.data import TensorDataset

__all__ = [
    "Description",
    "LabelsOutside",
    "check_batch_size",
    "check_labels",
    "describe",
    "files_stamp",
]

# N samples


@dataclass(frozen=True)
class HowToRead:
    """What is wanted of the reading of a data set.

    version: a text that names the content, so that nothing is read for it. keep_bad: items that
    cannot be trained on are listed and not raised. any_form: items may differ in form. make: gives
    an object of the data set that nobody has read from, to other processes where reading takes
    long; None: this one reads alone. progress: told now and then how far it is.
    """

    version: str | None = None
    keep_bad: bool = False
    any_form: bool = False
    make: Callable[[], Any] | None = None
    progress: Progress | None = None
    steady: bool = True
    inputs: bool = False


def describe(dataset: Any, *, name: str, how: HowToRead = HowToRead()) -> Description:
    """What is known of a map-style data set; `name` is the config's field, for errors.

    Where its content is named, by `how.version` or a method `fingerprint()` that returns a text,
    no item is read for it: ids are those of its attribute `sample_ids`, labels those of `targets`.
    Items are read then only where they have a `sample_id` that no attribute tells, or where bad
    ones are to be found. Any other data set is identified by the content of all items. They are
    read with the global generators seeded by position, so that augmentation does not change the
    fingerprint; afterwards these are as before.

    Raises DataError for a data set that cannot be trained on: without length or `__getitem__`,
    empty, with an item that raises or that no batch can be made of, or with sample ids that are
    neither whole numbers from 0 on nor texts, each once.
    """
    from epochal.data.loading.items import kept_generators

    count = _length(dataset, name)
    stated = told_fingerprint(dataset, name)
    if how.version is not None:
        stated = digest("data-fingerprint", how.version)
    with kept_generators():
        return _describe(dataset, count, stated, name=name, how=how)


def _describe(
    dataset: Any, count: int, stated: str | None, *, name: str, how: HowToRead
) -> Description:
    import numpy as np

    from epochal.data.loading.items import in_tensors

    tensors_and_rows = in_tensors(dataset, np.arange(count, dtype=np.int64))
    if tensors_and_rows is not None and (stated is None or how.keep_bad):
        tensors, rows = tensors_and_rows
        return _describe_tensors(tensors, rows[:], count=count, name=name, stated=stated, how=how)
    reader = ItemReader(dataset, count, name, inputs=how.inputs)
    ids = told_ids(dataset, count=count, name=name)
    if stated is None or how.keep_bad or (ids is None and has_id(reader.item(0))):
        found = reader.read(
            stated,
            keep_bad=how.keep_bad,
            any_form=how.any_form,
            make=how.make,
            progress=how.progress,
        )
    else:
        found = _told(dataset, reader, stated, how=how)
        if ids is not None:
            found = replace(found, **checked_ids(ids, name))
    if how.version is not None:
        return replace(found, seen=())
    if how.steady:
        check_steady(dataset, found.seen, count, name)
    return found


def _told(dataset: Any, reader: ItemReader, fingerprint: str, *, how: HowToRead) -> Description:
    """What is known without reading all items; a few are looked at."""
    labels_N = targets_of(dataset, reader.count)
    seen = reader.look() if how.version is None or labels_N is not None else []
    if labels_N is not None and any(one.label != labels_N[one.position] for one in seen):
        labels_N = None  # items are mapped to other classes
    return Description(
        fingerprint=fingerprint,
        num_samples=reader.count,
        labels=labels_N,
        label_min=None if labels_N is None else int(labels_N.min()),
        label_max=None if labels_N is None else int(labels_N.max()),
        seen=tuple(seen),
        unequal_at=reader.unequal_at,
    )


def _describe_tensors(
    dataset: TensorDataset,
    rows_N: npt.NDArray[np.int64],
    *,
    count: int,
    name: str,
    stated: str | None,
    how: HowToRead,
) -> Description:
    import numpy as np
    import torch

    from epochal.data.inspection.content_digest import (
        UnsupportedItem,
        add_tensor,
        not_finite_rows,
        row_digests,
    )

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
    strange = sorted({row for tensor in tensors for row in not_finite_rows(tensor)})
    return Description(
        fingerprint=stated or content.hexdigest(),
        num_samples=count,
        not_finite=strange,
        bad=[BadSample(row, NOT_FINITE) for row in strange] if how.keep_bad else (),
        labels=labels_N,
        label_min=None if labels_N is None else int(labels_N.min()),
        label_max=None if labels_N is None else int(labels_N.max()),
        inputs=row_digests(tensors[0]),
        seen=[
            seen_item(tuple(tensor[row] for tensor in tensors), row)
            for row in fixed_positions(count)
        ],
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
        hint = (
            "one that only iterates cannot be shuffled by id or resumed; write its items once as "
            f"shards: `epochal data index CONFIG.yaml --field {name} --out ./{name}`, and set "
            f'{name}: {{target: "epochal.data.datasets:tar_shards", args: {{path: ./{name}}}}}'
        )
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


def told_fingerprint(dataset: Any, name: str) -> str | None:
    """A digest of what the data set's own `fingerprint()` says; None without. Raises DataError."""
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
