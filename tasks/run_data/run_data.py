"""The run's data sets: made by their targets, described once, checked before epoch 0."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from epochal.data.config.loader import DataConfig
from epochal.data.errors import DataError, InputError, passes_through
from epochal.data.inspection.dataset import DatasetInfo, OpenDataset
from epochal.data.inspection.describe import Description, describe
from epochal.data.inspection.file_stamps import files_stamp
from epochal.data.inspection.names import class_names, has_paths
from epochal.data.store.store import Store
from epochal.data.types import seed_64
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.stage import DatasetFacts, RunInputs
from epochal.tasks.reporting import Reporter, SilentReporter
from epochal.tasks.run_data.text_ids import MAX_SAMPLES, text_ids_path, write_text_ids
from epochal.tasks.runs.find_run import FoundRun
from epochal.tasks.runs.run_inputs import (
    data_stamp,
    description_path,
    make_run_inputs,
    read_known,
    stated_fingerprint,
    write_known,
)
from epochal.tasks.runs.run_sources import DataField, RunSources, data_fields, read_sources
from epochal.tasks.stages.score import SCORING_DATA
from epochal.tasks.user_code.named_files import Stamps
from epochal.tasks.user_code.targets import call_target

QUICK_READ_S = 10.0
"""Data that is read in less is read at every start, in case it has changed unseen."""


def make_dataset(config: RunConfig, field: DataField) -> Any:
    """The data set that the target gives, under the names of `batch`. Raises TargetError.

    What it draws is the same in every process, for all fields and whatever the run's seed: two
    fields may name the two parts of one random split.
    """
    from epochal.engine.randomness import seeded

    with seeded(seed_64("data")):
        dataset = call_target(data_fields(config)[field], field=field, folder=Path(config.folder))
    if config.batch is None:
        return dataset
    from epochal.data.loading.named_items import named

    return named(dataset, config.batch, field=field)


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
    )


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
    """Makes the data set and reads it if that is quick or was never done.

    before_write: called before what was read is noted in the store. stamps: looks at the files
    that the config declares.
    Raises TargetError if the target fails, DataError if the data set cannot be trained on.
    """
    data: DataConfig = data_fields(config)[field]
    folder = Path(config.folder)
    path = description_path(data, names=config.batch, sources=sources, folder=folder, stamps=stamps)
    dataset = make_dataset(config, field)
    known, stamp = read_known(store, path), data_stamp(data, folder=folder)
    if (
        known is not None
        and known.seconds > QUICK_READ_S
        and (known.stamp is None or known.stamp == stamp)
        and _is_of(known, dataset)
    ):
        notice.notice(
            f"{field}: reading it took {known.seconds:.0f} s, so its content is taken as it was "
            "then; state `version:` or `files:` to say when it changes"
        )
        return OpenDataset(
            field=field,
            dataset=dataset,
            info=known,
            fingerprint=stated_fingerprint(data, names=config.batch) or known.fingerprint,
            read_ids_N=None,
            labels_N=None,
        )
    started = time.monotonic()
    description = describe(dataset, name=field)
    seconds = time.monotonic() - started
    read = info_of(dataset, description).model_copy(
        update={
            "seconds": round(seconds, 1) if seconds > QUICK_READ_S else 0.0,
            "stamp": stamp,
            "text_ids": _text_ids(
                description, known, store, field=field, notice=notice, before_write=before_write
            ),
        }
    )
    if known is not None and known.fingerprint != read.fingerprint and data.version is None:
        counts = f"{known.num_samples} samples then, {read.num_samples} now"
        notice.notice(f"{field}: its content has changed since it was last read ({counts})")
    if read != known:
        before_write()
        write_known(store, path, read)
        if known is not None and known.text_ids not in (None, read.text_ids):
            store.delete(text_ids_path(known.text_ids))
    return OpenDataset(
        field=field,
        dataset=dataset,
        info=read,
        fingerprint=stated_fingerprint(data, names=config.batch) or read.fingerprint,
        read_ids_N=description.sample_ids,
        labels_N=description.labels,
        inputs_N=description.inputs,
    )


def _text_ids(
    description: Description,
    known: DatasetInfo | None,
    store: Store,
    *,
    field: str,
    notice: Reporter,
    before_write: Callable[[], None],
) -> str | None:
    """The sha256 of the table of text ids, which the store has then; None where it keeps none."""
    ids_N, texts = description.sample_ids, description.texts
    if ids_N is None or texts is None:
        return None
    if len(texts) > MAX_SAMPLES:
        notice.notice(
            f"{field}: the texts of more than {MAX_SAMPLES:,} sample ids are not kept; `samples` "
            "and tables name samples by the hashes of the texts"
        )
        return None
    if known is not None and known.fingerprint == description.fingerprint:
        kept = known.text_ids
        if kept is not None and store.size(text_ids_path(kept)) is not None:
            return kept
    before_write()
    return write_text_ids(store, ids_N, texts)


def _is_of(known: DatasetInfo, dataset: Any) -> bool:
    """Whether the remembered description fits this data set, judged without reading the data."""
    try:
        count = len(dataset)
    except BaseException as error:  # a user's __len__ may raise anything; `describe` says it
        if passes_through(error):
            raise
        return False
    return known.index_ids and count == known.num_samples


def check_same_samples(trained: OpenDataset, scored: OpenDataset) -> None:
    """Raises DataError if the data set of the scoring pass has not the samples of training."""
    import numpy as np

    if np.array_equal(trained.sample_ids_N, scored.sample_ids_N):
        return
    count, own = len(trained.sample_ids_N), len(scored.sample_ids_N)
    raise DataError(
        f"{scored.field}: found {own} samples, train_data has {count}"
        f"{', and other ids' if own == count else ''}; expected the same samples in the same "
        "order, so that a score is found by the id of its sample"
    )


def tell_repeats(train: OpenDataset, validation: OpenDataset, *, notice: Reporter) -> None:
    """Tells of inputs that come more than once, as far as the data was read."""
    from epochal.data.inspection.duplicates import (
        note_between,
        note_within,
        repeats_between,
        repeats_within,
    )

    for data in (train, validation):
        if data.inputs_N is not None:
            found = repeats_within(data.inputs_N, data.labels_N)
            if found.is_noted:
                notice.notice(note_within(data.field, found))
    if train.inputs_N is not None and validation.inputs_N is not None:
        found = repeats_between(validation.inputs_N, train.inputs_N)
        if found.is_noted:
            notice.notice(note_between(validation.field, train.field, found))


def read_run_inputs(
    config: RunConfig,
    store: Store,
    sources: RunSources,
    *,
    notice: Reporter,
    before_write: Callable[[], None],
    start: str | None,
    stamps: Stamps = files_stamp,
) -> tuple[RunInputs, dict[str, OpenDataset]]:
    """The inputs of the keys, made from the data as it is now, and the open data sets.

    start: of `start_sha256`. The rest as for `open_data`.
    """
    digests = sources.digests
    data: dict[DataField, OpenDataset] = {
        name: open_data(
            config,
            name,
            store,
            sources=digests.get(name, {}),
            notice=notice,
            before_write=before_write,
            stamps=stamps,
        )
        for name in data_fields(config)
    }
    scored = data.get(SCORING_DATA)
    if scored is not None:
        check_same_samples(data["train_data"], scored)
    tell_repeats(data["train_data"], data["validation_data"], notice=notice)
    data_sets = {
        name: DatasetFacts(dataset.fingerprint, dataset.info.num_samples)
        for name, dataset in data.items()
    }
    return make_run_inputs(config, sources, data_sets, start=start), dict(data.items())


def remember_data(
    config: RunConfig,
    store: Store,
    data: Mapping[str, OpenDataset],
    sources: Mapping[str, Mapping[str, str]],
    *,
    stamps: Stamps = files_stamp,
) -> None:
    """Remembers what was read of the data for targets whose code is known by now to be `sources`.

    So that data whose reading takes long is not read again for it.
    """
    for name, data_config in data_fields(config).items():
        path = description_path(
            data_config,
            names=config.batch,
            sources=sources.get(name, {}),
            folder=Path(config.folder),
            stamps=stamps,
        )
        write_known(store, path, data[name].info)


class Told(SilentReporter):
    """A reporter of notices only."""

    def __init__(self, notice: Callable[[str], None]) -> None:
        self._notice = notice

    def notice(self, text: str) -> None:
        """Passes it on."""
        self._notice(text)


def own_config(run: FoundRun, what: str) -> RunConfig:
    """The config file that the user named the run by: only code that it names is ever called.

    what: which result needs that code, for the error. Raises InputError for a run that was named
    in another way.
    """
    if run.own is None:
        raise InputError(
            f"{what} built by a config of yours, never by what a store says: name the run by its "
            f"config's path instead of {run.plan.run!r}"
        )
    return run.own


def found_data(
    run: FoundRun,
    field: DataField,
    *,
    config: RunConfig,
    notice: Callable[[str], None],
    changed: str,
) -> OpenDataset:
    """The data set of that field, as `train` opens it.

    config: names the target, which is called. changed: the notice to give if the content is not
    that of the run any more. Raises what `open_data` raises.
    """
    data = open_data(
        config,
        field,
        run.store,
        sources=read_sources(config, run.store).digests.get(field, {}),
        notice=Told(notice),
        before_write=lambda: None,
    )
    planned = getattr(run.plan, field)
    if data.fingerprint != planned:
        notice(f"{field}: its content has changed since the run; {changed}")
    return data
