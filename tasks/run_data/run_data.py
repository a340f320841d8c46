"""The run's data sets, opened together: the inputs of its keys, and what two sets share."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from epochal.data.errors import DataError, InputError
from epochal.data.inspection.dataset import OpenDataset
from epochal.data.inspection.file_stamps import files_stamp
from epochal.data.store.store import Store
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.stage import DatasetFacts, RunInputs
from epochal.tasks.reporting import Reporter, SilentReporter
from epochal.tasks.run_data.reading import open_data
from epochal.tasks.runs.find_run import FoundRun
from epochal.tasks.runs.run_inputs import description_path, make_run_inputs, write_known
from epochal.tasks.runs.run_sources import DataField, RunSources, data_fields, read_sources
from epochal.tasks.stages.score import SCORING_DATA
from epochal.tasks.user_code.named_files import Stamps


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


def check_same_classes(train: OpenDataset, validation: OpenDataset) -> None:
    """Raises DataError if a label has one name in training and another in validation.

    So it is where each set counts the classes that it has, and the smaller one lacks one.
    """
    names = (train.info.class_names or (), validation.info.class_names or ())
    for label, (one, other) in enumerate(zip(*names, strict=False)):
        if one != other:
            raise DataError(
                f"{validation.field}: the label {label} is {other!r} here, but {one!r} in "
                f"{train.field}; expected one list of classes: state `classes` in both, or take "
                "both as parts of one `split`"
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
    check_same_classes(data["train_data"], data["validation_data"])
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
    for name in data_fields(config):
        path = description_path(config, name, sources=sources.get(name, {}), stamps=stamps)
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
