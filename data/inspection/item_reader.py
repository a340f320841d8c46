"""Reads the items of a data set once, for the digest of their content, their ids and labels.

Where that takes long, several processes read, each on an object that nobody has read from, and this
one puts together what they found: the digest is the same. Torch and NumPy are imported only when
something is read.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from epochal.data.errors import DataError, passes_through
from epochal.data.hashing import ContentDigest, FramedParts, QuickDigest, hash_u64, text_id
from epochal.data.inspection.item_form import (
    SAMPLE_ID,
    difference,
    form,
    has_id,
    input_digest,
    label_of,
    whole_number,
)
from epochal.data.inspection.seen import SeenItem, fixed_positions, may_go_on, seen_item
from epochal.data.traces import in_one_line

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# N samples

MAX_ID_BYTES = 500
"""Of a text that is a sample's id, in UTF-8."""

TRIED_S = 0.5
"""So long items are read in this process, to know how long all will take."""
ALONE_S = 4.0
"""What takes less is read by this process alone: others would take about a second to begin."""
MAX_READERS = 8
CHUNK_ITEMS, CHUNK_BYTES = 64, 1 << 24
TELL_EVERY_S = 0.2
SEED_BLOCK = 256
NOT_FINITE = "holds numbers that are not finite (NaN, infinite)"

Progress = Callable[[int, int], None]
"""Told how many items were read, of how many."""


@dataclass(frozen=True)
class BadSample:
    """An item that cannot be trained on, and why. path: where it lies, if that is known."""

    position: int
    error: str
    path: str | None = None


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
    seen: what some items were, to notice later that they have changed; none of tensors.
    not_finite: positions of items with numbers that are none, or infinite, as far as they were
    read. bad: items that cannot be trained on, where those were to be found and not to be raised;
    labels and ids are then those of the others, in which a bad item has the label -1.
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
    seen: Sequence[SeenItem] = ()
    not_finite: Sequence[int] = ()
    bad: Sequence[BadSample] = ()


@dataclass
class Found:
    """What reading items in order has found: one entry for each in each list.

    forms: each form once, under the text of it. error: of the first that was raised.
    """

    labels: list[int | None] = field(default_factory=list)
    ids: list[int | str | None] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    form_of: list[str] = field(default_factory=list)
    forms: dict[str, Any] = field(default_factory=dict)
    seen: list[SeenItem] = field(default_factory=list)
    not_finite: list[int] = field(default_factory=list)
    bad: dict[int, str] = field(default_factory=dict)
    content: bytes = b""
    error: str | None = None

    def add(self, other: Found) -> None:
        """Puts what comes next behind it."""
        for name in ("labels", "ids", "inputs", "form_of", "seen", "not_finite"):
            getattr(self, name).extend(getattr(other, name))
        self.forms.update(other.forms)
        self.bad.update(other.bad)

    def add_bad(self, position: int, error: str) -> None:
        """Adds one that could not be read."""
        self.labels.append(None)
        self.ids.append(None)
        self.inputs.append(0)
        self.form_of.append("")
        self.bad[position] = error

    def judge(self, *, any_form: bool) -> None:
        """Adds to the bad ones those that are not as most of the others are."""
        for position in self.not_finite:
            self.bad.setdefault(position, NOT_FINITE)
        labelled = sum(label is not None for label in self.labels)
        if labelled * 2 > len(self.labels):
            for position, label in enumerate(self.labels):
                if label is None:
                    self.bad.setdefault(position, "its label is no whole number, as in most items")
        forms = Counter(filter(None, self.form_of))
        if not any_form and len(forms) > 1:
            usual = max(forms, key=lambda text: (forms[text], -self.form_of.index(text)))
            for position, text in enumerate(self.form_of):
                if text not in {usual, ""}:
                    found = difference(self.forms[text], self.forms[usual])
                    self.bad.setdefault(position, f"{found} in most items")


class _Unreadable(DataError):
    """A user's item raised what is its cause; what ours raise says itself what is wrong."""


class _Seeds:
    """A seed for each position, made for many at once: one by one takes ten times as long."""

    def __init__(self) -> None:
        self._start, self._block = -1, list[int]()

    def __getitem__(self, position: int) -> int:
        import numpy as np

        start = position - position % SEED_BLOCK
        if start != self._start:
            positions = np.arange(start, start + SEED_BLOCK, dtype=np.int64)
            self._start, self._block = start, hash_u64(positions, "describe").tolist()
        return self._block[position - start]


class ItemReader:
    """Reads the items of one data set.

    count: how many there are. unequal_at: of those that were looked at, the first position of an
    item of another form than that at position 0, if there is one.
    """

    def __init__(self, dataset: Any, count: int, name: str, *, inputs: bool = False) -> None:
        """inputs: whether inputs are compared even where the content need not be read."""
        self._inputs = inputs
        self._first: Any = None
        self.unequal_at: int | None = None
        self._dataset = dataset
        self.count = count
        self._name = name
        self._to_be_seen = frozenset(fixed_positions(count))
        self._seeds = _Seeds()

    def item(self, position: int) -> Any:
        """The item. Raises DataError."""
        from epochal.data.inspection.told import path_of
        from epochal.data.loading.items import seed_generators

        seed_generators(self._seeds[position])
        try:
            return self._dataset[position]
        except DataError as error:  # of a built-in data set, which says what and where
            raise _Unreadable(
                f"{self._name}: item {position} of {self.count}: {error}, or set "
                "loader.on_bad_sample: quarantine (`epochal data check` lists all such items)"
            ) from error
        except BaseException as error:  # a user's data set may raise anything
            if passes_through(error):
                raise
            path = path_of(self._dataset, position)
            where = f" ({path})" if path is not None and path not in str(error) else ""
            raise _Unreadable(
                f"{self._name}: reading item {position} of {self.count}{where} raised "
                f"{in_one_line(error)}; every item is to be readable: mend the data, "
                "leave the item out of the data set, or set loader.on_bad_sample: quarantine"
            ) from error

    def label(self, position: int) -> int | None:
        """The item's label, if it is one whole number. Raises DataError."""
        return label_of(self.item(position))

    def look(self, positions: Sequence[int] | None = None) -> list[SeenItem]:
        """Items at fixed positions, in a fixed order; at least 4, and for about a second.

        positions: these instead, all of them. Raises DataError.
        """
        seen, started = list[SeenItem](), time.monotonic()
        for position in fixed_positions(self.count) if positions is None else positions:
            if positions is None and not may_go_on(len(seen), time.monotonic() - started):
                break
            item = self.item(position)
            self._add_content(QuickDigest(), item, position)
            seen.append(seen_item(item, position))
            self._first = self._first or form(item)
            if self.unequal_at is None and form(item) != self._first:
                self.unequal_at = position
        return seen

    def read(
        self,
        stated: str | None,
        *,
        keep_bad: bool = False,
        any_form: bool = False,
        make: Callable[[], Any] | None = None,
        progress: Progress | None = None,
    ) -> Description:
        """Reads all items. Raises DataError, unless `keep_bad`, for one that cannot be read.

        stated: the fingerprint, if it is known without. keep_bad: bad items are listed instead.
        any_form: items may differ in form. make: makes an object for each process that reads where
        it takes long; None: this one reads alone. progress: told now and then.
        """
        content = ContentDigest("data") if stated is None else None
        if content is not None:
            content.add("items", str(self.count).encode())
        found = Found()
        started = told = time.monotonic()
        for position in range(self.count):
            found.add(self.found_in(range(position, position + 1), content, keep_bad=keep_bad))
            now, done = time.monotonic(), position + 1
            if progress is not None and now - told > TELL_EVERY_S:
                progress(done, self.count)
                told = now
            if make is not None and now - started > TRIED_S:
                remaining_s = (now - started) / done * (self.count - done)
                if remaining_s > ALONE_S and num_readers() > 1:
                    self._read_rest(done, found, content, make(), keep_bad, progress)
                    break
                make = None
        fingerprint = stated if content is None else content.hexdigest()
        assert fingerprint is not None
        return self._described(found, fingerprint, keep_bad=keep_bad, any_form=any_form)

    def found_in(
        self, positions: range, content: ContentDigest | FramedParts | None, *, keep_bad: bool
    ) -> Found:
        """What reading these items finds. content: what they are added to. Raises DataError."""
        found = Found()
        for position in positions:
            try:
                self._add(found, self.item(position), position, content)
            except DataError as error:
                if not keep_bad:
                    raise
                cause = (error.__cause__ if isinstance(error, _Unreadable) else None) or error
                told = str(cause) if isinstance(cause, DataError) else in_one_line(cause)
                found.add_bad(position, told)
        return found

    def _read_rest(
        self,
        start: int,
        found: Found,
        content: ContentDigest | None,
        dataset: Any,
        keep_bad: bool,  # noqa: FBT001 - passed on
        progress: Progress | None,
    ) -> None:
        """Adds what other processes find from `start` on. dataset: nobody has read from it."""
        from epochal.data.loading.workers import read_ahead

        size = CHUNK_ITEMS
        if content is not None:
            one = FramedParts()
            self.found_in(range(start - 1, start), one, keep_bad=True)
            size = min(CHUNK_ITEMS, max(1, CHUNK_BYTES // max(1, len(one.data))))
        reader = ItemReader(dataset, self.count, self._name, inputs=self._inputs)

        def piece(first: int) -> Found:
            parts = None if content is None else FramedParts()
            positions = range(first, min(first + size, self.count))
            try:
                part = reader.found_in(positions, parts, keep_bad=keep_bad)
            except DataError as error:
                return Found(error=str(error))
            part.content = b"" if parts is None else bytes(parts.data)
            return part

        starts = range(start, self.count, size)
        with closing(
            read_ahead(piece, starts, workers=num_readers(), prefetch=2, pin=False)
        ) as pieces:
            for part in pieces:
                if part.error is not None:
                    raise DataError(part.error)
                if content is not None:
                    content.add_framed(part.content)
                found.add(part)
                if progress is not None:
                    progress(len(found.labels), self.count)

    def _add(
        self, found: Found, item: Any, position: int, content: ContentDigest | FramedParts | None
    ) -> None:
        """Adds what one item is; where it raises, nothing was added. Raises DataError."""
        from epochal.data.inspection.content_digest import is_finite

        digest = 0
        if content is not None:
            self._add_content(content, item, position)
        if content is not None or self._inputs:
            digest = input_digest(item)
        own_id = self._id(item, position) if has_id(item) else None
        shape = form(item)
        text = repr(shape)
        found.forms.setdefault(text, shape)
        found.form_of.append(text)
        found.ids.append(own_id)
        found.inputs.append(digest)
        found.labels.append(label_of(item))
        if position in self._to_be_seen:
            found.seen.append(seen_item(item, position))
        if not is_finite(item):
            found.not_finite.append(position)

    def _described(
        self, found: Found, fingerprint: str, *, keep_bad: bool, any_form: bool
    ) -> Description:
        import numpy as np

        from epochal.data.inspection.told import path_of

        if keep_bad:
            found.judge(any_form=any_form)
        good = [place for place in range(self.count) if place not in found.bad]
        usual = found.form_of[good[0]] if good else ""
        unequal = (place for place in good if found.form_of[place] != usual)
        ids = [one for place in good if (one := found.ids[place]) is not None]
        if ids and len(ids) != len(good):
            raise DataError(
                f"{self._name}: only {len(ids)} of {self.count} items have a {SAMPLE_ID!r}; "
                "give all items one, or none"
            )
        description = self._description(fingerprint, ids, good, found)
        return replace(
            description,
            inputs=None if not any(found.inputs) else np.array(found.inputs, dtype=np.uint64),
            unequal_at=next(unequal, None),
            seen=tuple(found.seen),
            not_finite=tuple(found.not_finite),
            bad=tuple(
                BadSample(place, error, path_of(self._dataset, place))
                for place, error in sorted(found.bad.items())
            ),
        )

    def _description(
        self, fingerprint: str, ids: list[int | str], good: Sequence[int], found: Found
    ) -> Description:
        import numpy as np

        told = checked_ids(self._texts(ids) or ids, self._name) if ids else {}
        labels = [one for place in good if (one := found.labels[place]) is not None]
        labels_N = None
        if good and len(labels) == len(good):
            labels_N = np.full(self.count, -1, dtype=np.int64)
            labels_N[np.array(good, dtype=np.int64)] = labels
        return Description(
            fingerprint=fingerprint,
            num_samples=self.count,
            labels=labels_N,
            label_min=None if labels_N is None else min(labels),
            label_max=None if labels_N is None else max(labels),
            **told,
        )

    def _add_content(
        self, content: ContentDigest | FramedParts | QuickDigest, item: Any, position: int
    ) -> None:
        from epochal.data.inspection.content_digest import UnsupportedItem, add_item

        try:
            add_item(content, item)
        except UnsupportedItem as error:
            raise DataError(
                f"{self._name}: item {position}: {error}; convert it in the data set"
            ) from error

    def _id(self, item: Any, position: int) -> int | str:
        given = item[SAMPLE_ID]
        if isinstance(given, str) and _is_id(given):
            return str(given)
        value = whole_number(given)
        if value is None or value < 0:
            raise DataError(
                f"{self._name}: item {position} has the {SAMPLE_ID} {given!r:.80}; "
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
                f"{self._name}: item {text} has the {SAMPLE_ID} {ids[text]!r:.80}, a text, and "
                f"item {number} has {ids[number]}, a number; expected texts in all items, or "
                "numbers in all"
            )
        return texts or None


def num_readers() -> int:
    """Processes that read at once."""
    return min(
        MAX_READERS,
        os.process_cpu_count()
        if hasattr(os, "process_cpu_count")
        else len(os.sched_getaffinity(0)),
    )


def _is_id(text: str) -> bool:
    try:
        return 0 < len(text.encode()) <= MAX_ID_BYTES
    except UnicodeEncodeError:  # of half a character, as in file names that are not UTF-8
        return False


def checked_ids(given: npt.NDArray[np.int64] | Sequence[int | str], name: str) -> dict[str, Any]:
    """`sample_ids` and `texts` of a description. given: numbers from 0 on, or texts, by position.

    Raises DataError where one comes twice.
    """
    import numpy as np

    texts = list(map(str, given)) if len(given) and isinstance(given[0], str) else None
    numbers = given if texts is None else list(map(text_id, texts))
    ids_N = np.asarray(numbers, dtype=np.int64)
    _check_unique(ids_N, texts, name)
    if texts is None and np.array_equal(ids_N, np.arange(len(ids_N))):
        return {}
    return {"sample_ids": ids_N, "texts": texts}


def _check_unique(ids_N: npt.NDArray[np.int64], texts: Sequence[str] | None, name: str) -> None:
    import numpy as np

    order_N = np.argsort(ids_N, kind="stable")
    sorted_N = ids_N[order_N]
    twice = np.flatnonzero(sorted_N[1:] == sorted_N[:-1])
    if len(twice):
        first, second = int(order_N[twice[0]]), int(order_N[twice[0] + 1])
        if texts is not None and texts[first] != texts[second]:
            raise DataError(
                f"{name}: the {SAMPLE_ID} {texts[first]!r} of item {first} and {texts[second]!r} "
                f"of item {second} have the same hash, {int(ids_N[first])}, which order, "
                "augmentation and tables go by; change one of the two texts"
            )
        shown = int(ids_N[first]) if texts is None else repr(texts[first])
        raise DataError(
            f"{name}: items {first} and {second} have the same {SAMPLE_ID} {shown}; "
            "expected each once: order, augmentation and tables go by it"
        )
