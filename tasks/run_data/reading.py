"""What is known of a data set: remembered, looked at in a few places, or read as a whole.

Where the content is named, by `version` or the data set itself, nothing is read for it. What takes
long to read is read once, and at each later start some of its items are compared with what they
were. Samples that are left out are those that reading all of them has found.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochal.data.config.loader import DataConfig
from epochal.data.errors import CorruptObject, DataError, passes_through
from epochal.data.hashing import digest
from epochal.data.inspection.dataset import DatasetInfo, OpenDataset
from epochal.data.inspection.describe import Description, HowToRead, describe, told_fingerprint
from epochal.data.inspection.file_stamps import files_stamp
from epochal.data.inspection.item_reader import BadSample, ItemReader
from epochal.data.inspection.seen import differences
from epochal.data.inspection.told import class_names, has_paths, told_ids
from epochal.data.inspection.unsteady import check_steady
from epochal.data.store.store import Store
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.layout import layout_of, with_layout
from epochal.tasks.reporting import Reporter
from epochal.tasks.run_data.hash_order import check_hash_order
from epochal.tasks.run_data.kept_tables import (
    MAX_SAMPLES,
    read_bad_samples,
    read_known_samples,
    table_path,
    write_bad_samples,
    write_known_samples,
    write_text_ids,
)
from epochal.tasks.run_data.make import make_dataset, without
from epochal.tasks.runs.run_inputs import (
    data_stamp,
    description_path,
    effective_fingerprint,
    read_known,
    stated_fingerprint,
    write_known,
)
from epochal.tasks.runs.run_sources import DataField, data_fields
from epochal.tasks.user_code.named_files import Stamps

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# N samples

QUICK_READ_S = 10.0
"""Data that is read in less is read at every start, in case it has changed unseen."""
MAX_NAMED = 3  # bad samples in an error


def open_data(
    config: RunConfig,
    field: DataField,
    store: Store,
    *,
    sources: Mapping[str, str],
    notice: Reporter,
    before_write: Callable[[], None],
    stamps: Stamps = files_stamp,
) -> OpenDataset:
    """Makes the data set and reads it, if that is quick or was never done.

    before_write: called before what was read is noted in the store. stamps: looks at the files
    that the config declares. notice: is told what a person should know, and how far reading is.
    Raises TargetError if the target fails, DataError if the data set cannot be trained on.
    """
    notice.doing(f"opening {field}")
    path = description_path(config, field, sources=sources, stamps=stamps)
    opening = _Opening(config, field, store, path, notice, before_write)
    return opening.remembered() or opening.read()


def read_alone(config: RunConfig, field: DataField, *, how: HowToRead) -> OpenDataset:
    """The data set, all of it read and nothing of it remembered."""
    make = partial(make_dataset, config, field)
    dataset = make()
    description = describe(dataset, name=field, how=replace(how, make=make))
    good = good_samples(description, name=field)
    info = info_of(dataset, description).model_copy(update=good.update)
    return opened(dataset, make, info, good, bad=description.bad, name=field)


def opened(
    dataset: Any,
    make: Callable[[], Any],
    info: DatasetInfo,
    good: GoodSamples,
    *,
    bad: Sequence[BadSample],
    name: DataField,
    version: str | None = None,
) -> OpenDataset:
    """A data set without the samples that are left out. dataset: one that was described."""
    positions = [one.position for one in bad]
    data = OpenDataset(
        field=name,
        make=lambda: without(make(), positions),
        info=info,
        fingerprint=effective_fingerprint(version or info.fingerprint, info),
        read_ids_N=good.ids_N,
        labels_N=good.labels_N,
        inputs_N=good.inputs_N,
        bad=tuple(bad),
    )
    data.looked = without(dataset, positions)
    return data


@dataclass(frozen=True)
class GoodSamples:
    """Of the samples that are not left out. update: what they change in what is remembered."""

    ids_N: npt.NDArray[np.int64] | None
    labels_N: npt.NDArray[np.int64] | None
    inputs_N: npt.NDArray[np.uint64] | None = None
    update: Mapping[str, Any] = field(default_factory=dict)


def good_samples(description: Description, *, name: str) -> GoodSamples:
    """What is left without the bad ones. Raises DataError, with the field's `name`, if nothing."""
    import numpy as np

    ids_N, labels_N, inputs_N = description.sample_ids, description.labels, description.inputs
    positions = [one.position for one in description.bad]
    if not positions:
        return GoodSamples(ids_N, labels_N, inputs_N)
    good_K = np.delete(np.arange(description.num_samples, dtype=np.int64), positions)
    if not len(good_K):
        raise DataError(f"{name}: every sample is bad; item 0: {description.bad[0].error}")
    if ids_N is None or len(ids_N) != len(good_K):
        ids_N = good_K if ids_N is None else ids_N[good_K]
    update = {
        "num_samples": len(good_K),
        "index_ids": False,
        "num_bad": len(positions),
        "without": digest("bad-positions", positions),
    }
    return GoodSamples(
        ids_N,
        None if labels_N is None else labels_N[good_K],
        None if inputs_N is None else inputs_N[good_K],
        update,
    )


def info_of(dataset: Any, description: Description) -> DatasetInfo:
    """What is known of a data set that was read, as if that had been quick."""
    return DatasetInfo(
        fingerprint=description.fingerprint,
        num_samples=description.num_samples,
        seconds=0.0,
        index_ids=description.sample_ids is None,
        label_min=description.label_min,
        label_max=description.label_max,
        unequal_at=description.unequal_at,
        class_names=class_names(
            dataset, count=description.num_samples, labels_N=description.labels
        ),
        has_paths=has_paths(dataset),
        seen=list(description.seen),
    )


def check_same_items(config: RunConfig, field: DataField, known: DatasetInfo) -> None:
    """Raises DataError if some items are not here what they are where the data set was read.

    known: as it was read by the first of several processes, perhaps on another machine.
    """
    from epochal.data.loading.items import kept_generators

    dataset = make_dataset(config, field)
    if not known.seen:
        return
    positions = [one.position for one in known.seen]
    with kept_generators():
        now = ItemReader(dataset, known.num_samples + known.num_bad, field).look(positions)
    if found := differences(known.seen, now, dataset=dataset):
        check_hash_order(config, field, positions)
        raise DataError(
            f"{field}: on {socket.gethostname()} it is not what the first process has read: "
            f"{'; '.join(found)}; every process of a run needs the same data"
        )


@dataclass
class _Opening:
    """One data set's opening. path: where the store remembers it."""

    config: RunConfig
    field: DataField
    store: Store
    path: str
    notice: Reporter
    before_write: Callable[[], None]

    def __post_init__(self) -> None:
        self._is_told = False  # that the content has changed
        self._make = partial(make_dataset, self.config, self.field)
        self._dataset = self._make()
        self._known = read_known(self.store, self.path)
        self._stamp = data_stamp(self._data, folder=Path(self.config.folder))

    @property
    def _data(self) -> DataConfig:
        return data_fields(self.config)[self.field]

    @property
    def _version(self) -> str | None:
        return stated_fingerprint(self._data, names=self.config.batch)

    @property
    def _quarantine(self) -> bool:
        return self.config.loader.on_bad_sample == "quarantine"

    def remembered(self) -> OpenDataset | None:
        """The data set as it is remembered, where that is enough; else None."""
        known = self._known
        if known is None or not self._fits(known):
            return None
        told = told_fingerprint(self._dataset, self.field)
        if self._version is None:
            slow = told is None and known.seconds > QUICK_READ_S
            if not slow and not (told is not None and self._quarantine):
                return None
            if told != known.told or known.stamp not in {None, self._stamp}:
                return None
            if found := self._differences(known):
                self._tell_changed(known, found)
                return None
        try:
            ids_N, labels_N = self._known_samples(known)
            bad = [] if known.bad is None else read_bad_samples(self.store, known.bad)
        except (FileNotFoundError, CorruptObject):
            return None
        if self._version is None and told is None:
            self.notice.notice(
                f"{self.field}: reading it took {known.seconds:.0f} s, so its content is taken as "
                f"it was then, and {len(known.seen)} items were looked at; state `version:` or "
                "`files:` to say when it changes"
            )
        return self._opened(known, GoodSamples(ids_N, labels_N), bad)

    def read(self) -> OpenDataset:
        """Reads what is not named, and remembers what it was."""
        known, started = self._known, time.monotonic()
        self.notice.doing(f"reading {self.field}")
        told = told_fingerprint(self._dataset, self.field)
        description = describe(self._dataset, name=self.field, how=self._how())
        seconds = time.monotonic() - started
        self.notice.reading(self.field, description.num_samples, description.num_samples)
        if known is not None and self._version is None:
            description = self._changed(known, description, told)
        info = info_of(self._dataset, description)
        good = good_samples(description, name=self.field)
        unnamed = told is None and self._version is None
        slow = seconds > QUICK_READ_S
        info = info.model_copy(
            update={
                "seconds": round(seconds, 1) if slow and unnamed else 0.0,
                "stamp": self._stamp,
                "told": told,
                "text_ids": self._text_ids(description),
                **good.update,
                "bad": self._bad(description),
            }
        )
        if slow or (not unnamed and self._ids_were_read(good)):
            info = info.model_copy(update={"samples": self._keep_samples(good)})
        return self._opened(info, good, description.bad)

    def _ids_were_read(self, good: GoodSamples) -> bool:
        """Whether ids were found in the items, since no attribute tells them."""
        count = len(self._dataset)
        return (
            good.ids_N is not None and told_ids(self._dataset, count=count, name=self.field) is None
        )

    def _keep_samples(self, good: GoodSamples) -> str | None:
        import numpy as np

        ids_N, labels_N = good.ids_N, good.labels_N
        if ids_N is None and labels_N is None:
            return None
        if ids_N is None:
            assert labels_N is not None
            ids_N = np.arange(len(labels_N), dtype=np.int64)
        self.before_write()
        return write_known_samples(self.store, ids_N, labels_N)

    def _how(self) -> HowToRead:
        told = partial(self.notice.reading, self.field)
        return HowToRead(
            version=self._version,
            keep_bad=self._quarantine,
            any_form=self.config.loader.collate is not None,
            make=self._make,
            progress=told,
            steady=self._known is None,
        )

    def _fits(self, known: DatasetInfo) -> bool:
        """Whether what is remembered is of this data set, judged without reading the data."""
        try:
            count = len(self._dataset)
        except BaseException as error:  # a user's __len__ may raise anything; `describe` says it
            if passes_through(error):
                raise
            return False
        return count == known.num_samples + known.num_bad

    def _differences(self, known: DatasetInfo) -> list[str]:
        """What some items are now and were not. Raises DataError for one that cannot be read."""
        from epochal.data.loading.items import kept_generators

        if not known.seen:
            return []
        count = known.num_samples + known.num_bad
        with kept_generators():
            now = ItemReader(self._dataset, count, self.field).look()
            found = differences(known.seen, now, dataset=self._dataset)
            if found:
                check_steady(self._dataset, now, count, self.field)
        return found

    def _tell_changed(self, known: DatasetInfo, found: Sequence[str]) -> None:
        """Says what is not as it was. Raises DataError where the process itself is the cause."""
        if known.stamp is None or known.stamp == self._stamp:
            positions = [one.position for one in known.seen]
            untold = check_hash_order(self.config, self.field, positions)
            if untold is not None:
                self.notice.notice(untold)
        self.notice.notice(
            f"{self.field}: its content has changed since it was last read: {'; '.join(found)}"
        )
        self._is_told = True

    def _changed(self, known: DatasetInfo, now: Description, told: str | None) -> Description:
        """Tells of a change; a content that is another under the name it had gets another."""
        found: list[str] = []
        same_count = now.num_samples == known.num_samples + known.num_bad
        if same_count and known.seen and now.seen:
            found = differences(known.seen, now.seen, dataset=self._dataset)
        if told is not None and told == known.told:
            if not found:
                return replace(now, fingerprint=known.fingerprint)
            content = [[one.position, one.digest] for one in now.seen]
            now = replace(now, fingerprint=digest("data-changed", [told, content]))
        if self._is_told:
            return now
        if found:
            check_steady(self._dataset, now.seen, now.num_samples, self.field)
            self._tell_changed(known, found)
        elif known.fingerprint != now.fingerprint and not known.num_bad and not now.bad:
            counts = f"{known.num_samples} samples then, {now.num_samples} now"
            self.notice.notice(
                f"{self.field}: its content has changed since it was last read ({counts})"
            )
        return now

    def _known_samples(
        self, known: DatasetInfo
    ) -> tuple[npt.NDArray[np.int64] | None, npt.NDArray[np.int64] | None]:
        """Ids and labels. Raises FileNotFoundError or CorruptObject where they are to be read."""
        if known.samples is None:
            if known.index_ids:
                return None, None
            raise FileNotFoundError(self.path)
        ids_N, labels_N = read_known_samples(self.store, known.samples)
        if len(ids_N) != known.num_samples:
            raise FileNotFoundError(known.samples)
        return (
            None if known.index_ids else ids_N,
            None if known.label_min is None else labels_N,
        )

    def _bad(self, description: Description) -> str | None:
        """The sha256 of the table of the samples that are left out; None where none is.

        Raises DataError where they are too many.
        """
        if not description.bad:
            return None
        self._check_share(description)
        self.before_write()
        return write_bad_samples(self.store, description.bad)

    def _check_share(self, description: Description) -> None:
        bad, count = description.bad, description.num_samples
        share = self.config.loader.max_bad_share
        shown = "; ".join(f"item {one.position}: {one.error}" for one in bad[:MAX_NAMED])
        if len(bad) > share * count:
            raise DataError(
                f"{self.field}: {len(bad)} of {count} samples are bad, more than the share of "
                f"{share:g} that loader.max_bad_share takes: {shown}; `epochal data check` lists "
                "them; mend the data, or raise the share"
            )
        self.notice.notice(
            f"{self.field}: {len(bad)} of {count} samples are left out (loader.on_bad_sample: "
            f"quarantine): {shown}{'; …' if len(bad) > MAX_NAMED else ''}"
        )

    def _text_ids(self, description: Description) -> str | None:
        """The sha256 of the table of text ids, which the store has then; None: it keeps none."""
        ids_N, texts, known = description.sample_ids, description.texts, self._known
        if ids_N is None or texts is None:
            return None
        if len(texts) > MAX_SAMPLES:
            self.notice.notice(
                f"{self.field}: the texts of more than {MAX_SAMPLES:,} sample ids are not kept; "
                "`samples` and tables name samples by the hashes of the texts"
            )
            return None
        if known is not None and known.fingerprint == description.fingerprint:
            kept = known.text_ids
            if kept is not None and self.store.size(table_path(kept)) is not None:
                return kept
        self.before_write()
        return write_text_ids(self.store, ids_N, texts)

    def _remember(self, info: DatasetInfo) -> None:
        known = self._known
        if info == known:
            return
        self.before_write()
        write_known(self.store, self.path, info)
        if known is not None:
            for old in {known.text_ids, known.samples, known.bad} - {
                None, info.text_ids, info.samples, info.bad
            }:  # fmt: skip
                assert old is not None
                self.store.delete(table_path(old))

    def _opened(
        self, info: DatasetInfo, good: GoodSamples, bad: Sequence[BadSample]
    ) -> OpenDataset:
        data = opened(
            self._dataset,
            self._make,
            info,
            good,
            bad=bad,
            name=self.field,
            version=self._version,
        )
        layout = layout_of(self.config, self.field, data.looked, count=info.num_samples)
        data.info = info.model_copy(update=layout)
        self._remember(data.info)
        found = with_layout(self.config, self.field, data.fingerprint, data.info)
        assert found is not None, "the layout was looked at"
        data.fingerprint = found
        return data
