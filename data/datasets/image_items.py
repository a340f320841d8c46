"""What the data sets of images share: arguments, and what a transform does to their items."""

from __future__ import annotations

from typing import Any

import numpy as np

from epochal.data.errors import DataError, passes_through
from epochal.data.hashing import ContentDigest, hash_u64
from epochal.data.inspection.content_digest import UnsupportedItem, add_item
from epochal.data.loading.items import kept_generators, seed_generators
from epochal.data.traces import in_one_line

NUM_TRANSFORMED = 16


def check_extensions(extensions: Any, name: str) -> tuple[str, ...]:
    """The extensions of images. name: of the data set. Raises DataError."""
    listed = list(extensions) if isinstance(extensions, list | tuple) else []
    if not listed or not all(isinstance(one, str) and one.startswith(".") for one in listed):
        raise DataError(
            f"{name}: extensions: found {extensions!r:.80}; expected a list of texts that begin "
            "with a dot: [.jpg, .png]"
        )
    return tuple(one.lower() for one in listed)


def add_transformed(content: ContentDigest, dataset: Any, *, name: str) -> None:
    """Adds 16 items that lie evenly in the data set, as a transform of the user's makes them.

    So another transform is another content, although the files are the same. It draws from global
    generators that are seeded by position. Raises DataError where it raises.
    """
    count = len(dataset)
    positions_K = np.unique(np.linspace(0, count - 1, min(count, NUM_TRANSFORMED)).astype(np.int64))
    seeds = hash_u64(positions_K, "transformed").tolist()
    with kept_generators():
        for position, seed in zip(positions_K.tolist(), seeds, strict=True):
            seed_generators(seed)
            try:
                add_item(content, dataset[position])
            except UnsupportedItem as error:
                raise DataError(f"{name}: transform: {error}") from error
            except BaseException as error:  # a user's transform may raise anything
                if passes_through(error):
                    raise
                raise DataError(
                    f"{name}: transform: it raised {in_one_line(error)} for item {position}; it "
                    "is called with a PIL image, and gives what the model is given"
                ) from error
