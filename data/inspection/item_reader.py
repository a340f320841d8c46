"""Reads the items of a data set once, for the digest of their content, their ids and labels.

Torch and NumPy are imported only when something is read.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from epochal.data.errors import DataError, passes_through
from epochal.data.hashing import ContentDigest, QuickDigest, hash_u64, text_id
from epochal.data.inspection.item_form import form
from epochal.data.traces import in_one_line

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# N samples

_TARGETS = ("target", "label", "labels")
_SAMPLE_ID = "sample_id"
_MAX_INTEGER = (1 << 63) - 1
MAX_ID_BYTES = 500
"""Of a text that is a sample's id, in UTF-8."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Description:
    """A data set as it was read.

    fingerprint: 64 hexadecimal digits. num_samples: N.
    sample_ids: int64 of shape (N,) by position; None: they are the positions.
    texts: the ids by position where items have texts, which `sample_ids` are hashes of; else None.
    labels: int64 of shape (N,), where every target is one whole number; else None.
    label_min, label_max: of the labels.
    inputs: a checksum of each sample's input, uint64 of shape (N,); None if content was not read.
    unequal_at: position of the first item that has not the form of the one before all, so that they
    cannot be put into one batch; None: there is none, or they were not read.
    """

    fingerprint: str
    num_samples: int
    sample_ids: npt.NDArray[np.int64] | None = None
    labels: npt.NDArray[np.int64] | None = None
    label_min: int | None = None
    label_max: int | None = None
    inputs: npt.NDArray[np.uint64] | None = None
    unequal_at: int | None = None
    texts: Sequence[str] | None = None


class ItemReader:
    """Reads all items of one data set, once."""

    def __init__(self, dataset: Any, count: int, name: str) -> None:
        import numpy as np

        self._dataset = dataset
        self._count = count
        self._name = name
        self._seeds = hash_u64(np.arange(count, dtype=np.int64), "describe").tolist()

    def item(self, position: int) -> Any:
        """The item. Raises DataError."""
        from epochal.data.loading.items import seed_generators

        seed_generators(self._seeds[position])
        try:
            return self._dataset[position]
        except BaseException as error:  # a user's data set may raise anything
            if passes_through(error):
                raise
            raise DataError(
                f"{self._name}: reading item {position} of {self._count} raised "
                f"{in_one_line(error)}; every item is to be readable: mend the data, "
                "or leave the item out of the data set"
            ) from error

    def label(self, position: int) -> int | None:
        """The item's label, if it is one whole number. Raises DataError."""
        return _whole_number(_target(self.item(position)))

    def read(self, stated: str | None) -> Description:
        """Reads all items. stated: the fingerprint, if the data set has one. Raises DataError."""
        import numpy as np

        content = ContentDigest("data")
        content.add("items", str(self._count).encode())
        labels: list[int] = []
        ids: list[int | str] = []
        inputs: list[int] = []
        first, unequal_at = None, None
        for position in range(self._count):
            item = self.item(position)
            if position == 0:
                first = form(item)
            elif unequal_at is None and form(item) != first:
                unequal_at = position
            if stated is None:
                self._add(content, item, position)
                inputs.append(_input_digest(item))
            if (label := _whole_number(_target(item))) is not None:
                labels.append(label)
            if has_id(item):
                ids.append(self._id(item, position))
        if stated is None:
            self._tell_if_unsteady()
        if ids and len(ids) != self._count:
            raise DataError(
                f"{self._name}: only {len(ids)} of {self._count} items have a {_SAMPLE_ID!r}; "
                "give all items one, or none"
            )
        description = self._description(stated or content.hexdigest(), ids, labels)
        inputs_N = np.array(inputs, dtype=np.uint64) if stated is None else None
        return replace(description, inputs=inputs_N, unequal_at=unequal_at)

    def _description(
        self, fingerprint: str, ids: list[int | str], labels: list[int]
    ) -> Description:
        import numpy as np

        ids_N, texts = None, self._texts(ids)
        if ids:
            numbers = ids if texts is None else map(text_id, texts)
            ids_N = np.array(list(numbers), dtype=np.int64)
            _check_unique(ids_N, texts, self._name)
            if texts is None and np.array_equal(ids_N, np.arange(self._count)):
                ids_N = None
        whole = len(labels) == self._count
        return Description(
            fingerprint=fingerprint,
            num_samples=self._count,
            sample_ids=ids_N,
            texts=texts,
            labels=np.array(labels, dtype=np.int64) if whole else None,
            label_min=min(labels) if whole else None,
            label_max=max(labels) if whole else None,
        )

    def _add(self, content: ContentDigest, item: Any, position: int) -> None:
        from epochal.data.inspection.content_digest import UnsupportedItem, add_item

        try:
            add_item(content, item)
        except UnsupportedItem as error:
            raise DataError(
                f"{self._name}: item {position}: {error}; convert it in the data set"
            ) from error

    def _id(self, item: Any, position: int) -> int | str:
        given = item[_SAMPLE_ID]
        if isinstance(given, str) and _is_id(given):
            return str(given)
        value = _whole_number(given)
        if value is None or value < 0:
            raise DataError(
                f"{self._name}: item {position} has the {_SAMPLE_ID} {given!r:.80}; "
                "expected a whole number from 0 to 2^63 - 1, or a text of 1 to "
                f"{MAX_ID_BYTES} bytes in UTF-8, each once, that stays the sample's own"
            )
        return value

    def _texts(self, ids: list[int | str]) -> list[str] | None:
        """The ids, where they are texts; None where they are numbers. Raises DataError for both."""
        texts = [one for one in ids if isinstance(one, str)]
        if 0 < len(texts) < len(ids):
            text = next(place for place, one in enumerate(ids) if isinstance(one, str))
            number = next(place for place, one in enumerate(ids) if isinstance(one, int))
            raise DataError(
                f"{self._name}: item {text} has the {_SAMPLE_ID} {ids[text]!r:.80}, a text, and "
                f"item {number} has {ids[number]}, a number; expected texts in all items, or "
                "numbers in all"
            )
        return texts or None

    def _tell_if_unsteady(self) -> None:
        readings = []
        for _ in range(2):
            content = ContentDigest("item")
            self._add(content, self.item(0), 0)
            readings.append(content.hexdigest())
        if readings[0] != readings[1]:
            logger.warning(
                "%s: item 0 is another at each reading (it draws from a generator of its own?), so "
                "the next start will take the data for changed and compute everything again; give "
                "the data set a method `fingerprint()`, or state `version:`",
                self._name,
            )


def has_id(item: Any) -> bool:
    """Whether an item brings its own `sample_id`."""
    return isinstance(item, Mapping) and _SAMPLE_ID in item


def is_whole(values: Any) -> bool:
    """Whether a tensor or array is of integers."""
    return "int" in str(values.dtype)  # torch.int64, int32, uint8 …; not bool, float, complex


def _is_id(text: str) -> bool:
    try:
        return 0 < len(text.encode()) <= MAX_ID_BYTES
    except UnicodeEncodeError:  # of half a character, as in file names that are not UTF-8
        return False


def _check_unique(ids_N: npt.NDArray[np.int64], texts: Sequence[str] | None, name: str) -> None:
    import numpy as np

    order_N = np.argsort(ids_N, kind="stable")
    sorted_N = ids_N[order_N]
    twice = np.flatnonzero(sorted_N[1:] == sorted_N[:-1])
    if len(twice):
        first, second = int(order_N[twice[0]]), int(order_N[twice[0] + 1])
        if texts is not None and texts[first] != texts[second]:
            raise DataError(
                f"{name}: the {_SAMPLE_ID} {texts[first]!r} of item {first} and {texts[second]!r} "
                f"of item {second} have the same hash, {int(ids_N[first])}, which order, "
                "augmentation and tables go by; change one of the two texts"
            )
        shown = int(ids_N[first]) if texts is None else repr(texts[first])
        raise DataError(
            f"{name}: items {first} and {second} have the same {_SAMPLE_ID} {shown}; "
            "expected each once: order, augmentation and tables go by it"
        )


def _input_digest(item: Any) -> int:
    """A checksum of what an item is, but for its target and its id."""
    from epochal.data.inspection.content_digest import add_item

    if isinstance(item, Mapping):
        item = {name: one for name, one in item.items() if name not in {*_TARGETS, _SAMPLE_ID}}
    elif isinstance(item, tuple | list) and len(item) > 1:
        item = item[0]
    content = QuickDigest()
    add_item(content, item)
    return content.value()


def _target(item: Any) -> Any:
    if isinstance(item, Mapping):
        return next((item[name] for name in _TARGETS if name in item), None)
    if isinstance(item, tuple | list) and len(item) > 1:
        return item[1]
    return None


def _whole_number(value: Any) -> int | None:
    """`value` as an int that int64 holds, if it is one whole number: Python's, NumPy's, torch's."""
    if hasattr(value, "dtype"):
        if getattr(value, "ndim", 0) != 0 or not is_whole(value):
            return None
        value = value.item()
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or not -_MAX_INTEGER <= value <= _MAX_INTEGER
    ):
        return None
    return value
