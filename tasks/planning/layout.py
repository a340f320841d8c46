"""Blocks and lengths of the training data, where the run's order goes by them.

They are part of the content then, so which order a run has follows from what its keys hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from epochal.data.errors import DataError
from epochal.data.hashing import digest
from epochal.data.inspection.dataset import DatasetInfo
from epochal.data.inspection.layout import blocks_of_rows, layout_digest, lengths_of_items
from epochal.tasks.config.run import RunConfig

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_FIELD = "train_data"  # the only data set whose order follows from anything


def order_blocks(config: RunConfig, dataset: Any, *, count: int) -> npt.NDArray[np.int64] | None:
    """The blocks by which the order goes: int64 of shape (G + 1,); None: it is global.

    Of the training data, of `count` samples. Raises DataError where the config asks for an order
    that the data set cannot give.
    """
    from epochal.data.loading.batch_sampler import mixture_of  # torch: not for `plan`

    shuffle = config.batches.shuffle
    if mixture_of(dataset) is not None:
        if shuffle == "blocks":
            raise DataError(
                f"batches.shuffle: blocks: {_FIELD} is a mixture, which has an order of its own by "
                "its weights; leave shuffle out"
            )
        return None
    if not config.batches.goes_by_blocks(has_blocks=True):
        return None
    blocks_G1 = blocks_of_rows(dataset, count=count, name=_FIELD)
    if blocks_G1 is None and shuffle == "blocks":
        raise DataError(
            f"batches.shuffle: blocks goes by the attribute `blocks` of the data set, and {_FIELD} "
            "has none: any of its rows is as near as any other; give shuffle: global"
        )
    return blocks_G1


def order_lengths(config: RunConfig, dataset: Any, *, count: int) -> npt.NDArray[np.int64] | None:
    """The lengths by which the order goes: int64 of shape (N,); None: by none.

    Of the training data, of `count` samples. Raises DataError where there are none, or one is
    longer than a micro-batch.
    """
    tokens = config.loader.batch_tokens
    if not config.needs_lengths:
        return None
    lengths_N = lengths_of_items(dataset, count=count, name=_FIELD)
    if lengths_N is None:
        field = "batches.by_length" if tokens is None else "loader.batch_tokens"
        raise DataError(
            f"{field}: it goes by the attribute `lengths` of the data set, a whole number for each "
            f"item, and {_FIELD} has none; give it one, or leave the field out"
        )
    if tokens is not None:
        from epochal.data.loading.lazy_order import check_room  # NumPy: not for `plan`

        check_room(lengths_N, tokens=tokens)
    return lengths_N


def layout_of(config: RunConfig, field: str, dataset: Any, *, count: int) -> dict[str, str | None]:
    """Digests of what the order of that data set goes by, as `DatasetInfo` has them.

    field: of the config. Raises DataError where the order cannot go by what the data set tells.
    """
    if field != _FIELD:
        return {"blocks": None, "lengths": None}
    found = {
        "blocks": order_blocks(config, dataset, count=count),
        "lengths": order_lengths(config, dataset, count=count),
    }
    return {
        kind: None if values is None else layout_digest(kind, values)
        for kind, values in found.items()
    }


def with_layout(
    config: RunConfig, field: str, fingerprint: str, known: DatasetInfo | None
) -> str | None:
    """The fingerprint of content and layout; None while lengths that it needs are not known.

    known: what is known of the data set.
    """
    if field != _FIELD:
        return fingerprint
    layout = {}
    blocks = None if known is None else known.blocks
    if blocks is not None and config.batches.goes_by_blocks(has_blocks=True):
        layout["blocks"] = blocks
    if config.needs_lengths:
        if known is None or known.lengths is None:
            return None
        layout["lengths"] = known.lengths
    return digest("data-layout", [fingerprint, layout]) if layout else fingerprint
