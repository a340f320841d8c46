"""What a data set tells of how it is stored: the blocks of its rows, and the lengths of its items.

Where the order of an epoch goes by them, they count as content.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from epochal.data.errors import DataError, passes_through
from epochal.data.hashing import ContentDigest
from epochal.data.traces import in_one_line

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# N samples, G blocks


def blocks_of_rows(dataset: Any, *, count: int, name: str) -> npt.NDArray[np.int64] | None:
    """The attribute `blocks`: where each block begins, and the end: int64 of shape (G + 1,).

    None where the data set has none: any row is as near as any other. Also through the subsets of
    torch.utils.data whose indices rise. name: the config's field.
    Raises DataError where they do not rise from 0 to `count`.
    """
    import numpy as np
    from torch.utils.data import Subset

    if type(dataset) is Subset:
        indices_n = np.asarray(dataset.indices, dtype=np.int64)
        inner: Any = dataset.dataset
        if not (indices_n[1:] > indices_n[:-1]).all():
            return None  # in another order than the storage's
        within_G1 = blocks_of_rows(inner, count=len(inner), name=name)
        return None if within_G1 is None else np.searchsorted(indices_n, within_G1)
    blocks_G1 = _whole_numbers(dataset, "blocks", name)
    if blocks_G1 is None:
        return None
    ends = blocks_G1[[0, -1]].tolist() if len(blocks_G1) > 1 else []
    if ends != [0, count] or (blocks_G1[1:] < blocks_G1[:-1]).any():
        raise DataError(
            f"{name}: its attribute `blocks` is {_shown(blocks_G1)}; expected where each block of "
            f"rows begins, and the end: whole numbers rising from 0 to {count}; or give "
            "batches.shuffle: global, which does not go by it"
        )
    return blocks_G1


def lengths_of_items(dataset: Any, *, count: int, name: str) -> npt.NDArray[np.int64] | None:
    """The attribute `lengths`: of each item, int64 of shape (N,); None where there is none.

    Raises DataError where it is something else than `count` whole numbers from 0 on.
    """
    import numpy as np
    from torch.utils.data import Subset

    if type(dataset) is Subset:
        inner: Any = dataset.dataset
        within_N = lengths_of_items(inner, count=len(inner), name=name)
        return None if within_N is None else within_N[np.asarray(dataset.indices, dtype=np.int64)]
    lengths_N = _whole_numbers(dataset, "lengths", name)
    if lengths_N is None:
        return None
    if len(lengths_N) != count or (lengths_N < 0).any():
        raise DataError(
            f"{name}: its attribute `lengths` is {_shown(lengths_N)}; expected the length of each "
            f"item, {count} whole numbers from 0 on"
        )
    return lengths_N


def layout_digest(kind: str, values: npt.NDArray[np.int64]) -> str:
    """Of blocks or lengths: 64 hexadecimal digits. kind: which of them."""
    content = ContentDigest(f"data-{kind}")
    content.add(kind, values.astype("<i8", copy=False).data)
    return content.hexdigest()


def _whole_numbers(dataset: Any, attribute: str, name: str) -> npt.NDArray[np.int64] | None:
    import numpy as np

    try:
        given = getattr(dataset, attribute, None)
        if given is None or callable(given):
            return None
        values = np.asarray(given)
    except BaseException as error:  # a user's property may raise anything
        if passes_through(error):
            raise
        raise DataError(f"{name}: its `{attribute}` raised {in_one_line(error)}") from error
    if values.ndim != 1 or values.dtype.kind not in "iu":
        return None  # a word of the data set's own, for something else
    return np.ascontiguousarray(values, dtype=np.int64)


def _shown(values: npt.NDArray[Any]) -> str:
    return f"{values.dtype} of shape {values.shape}: {values[:4].tolist()} …"
