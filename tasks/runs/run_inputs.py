"""What keys need beyond the config: digests of sources and of data. No torch.

Fingerprints of data that was read once are kept in `<store>/fingerprints`, so that `plan` need
not read data. A data set's description is found there by its target, args, source and declared
files. Their content may have changed without that, so `train` reads small data sets again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from epochal.data.config.dataset import BatchNames
from epochal.data.config.loader import DataConfig
from epochal.data.documents import dump_document, load_document
from epochal.data.errors import CorruptObject
from epochal.data.hashing import digest
from epochal.data.inspection.dataset import DatasetInfo
from epochal.data.inspection.file_stamps import files_stamp, quick_stamp
from epochal.data.store.store import Store
from epochal.data.types import in_key
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.layout import with_layout
from epochal.tasks.planning.run_length import sample_digests, with_epochs
from epochal.tasks.planning.stage import DatasetFacts, RunInputs, Seen
from epochal.tasks.runs.run_sources import DataField, RunSources, data_fields
from epochal.tasks.runs.warm_start import start_sha256
from epochal.tasks.stages.score import SCORING_DATA
from epochal.tasks.user_code.named_files import Stamps, paths_in
from epochal.tasks.user_code.targets import resolved_args

MAX_DESCRIPTION_BYTES = 1 << 17


def description_path(
    config: RunConfig,
    field: DataField,
    *,
    sources: Mapping[str, str],
    stamps: Stamps = files_stamp,
) -> str:
    """Where the store remembers this data set. Raises DataError if a declared file is missing.

    stamps: looks at declared files.
    """
    data, folder = data_fields(config)[field], Path(config.folder)
    identity: dict[str, Any] = {
        "target": data.target,
        "args": in_key(resolved_args(data.args, folder=folder)),
        "sources": dict(sources),
        "version": data.version,
        **_named(config.batch),
    }
    if data.version is None and data.files:
        identity["files"] = stamps(data.files, folder)
    if config.loader.on_bad_sample == "quarantine":
        identity["on_bad_sample"] = "quarantine"
    return f"fingerprints/{digest('data', identity)}.json"


def read_known(store: Store, path: str) -> DatasetInfo | None:
    """The description at `path`, or None if there is none that can be read."""
    load = partial(load_document, name=path, max_bytes=MAX_DESCRIPTION_BYTES)
    try:
        body = store.read_intact(path, load, max_bytes=MAX_DESCRIPTION_BYTES)
        return DatasetInfo.model_validate(body, strict=True)
    except (FileNotFoundError, ValidationError):
        return None
    except CorruptObject:
        return None  # it is read again from the data, and written again


def write_known(store: Store, path: str, known: DatasetInfo) -> None:
    """Remembers `known`, in place of another description at that path."""
    data = dump_document(known.model_dump(mode="json"))
    try:
        store.put_new(path, data)
    except FileExistsError:
        if read_known(store, path) == known:
            return
        store.delete(path)
        try:
            store.put_new(path, data)
        except FileExistsError:
            return  # another process has just written what it read


def _named(names: BatchNames | None) -> dict[str, Any]:
    return {} if names is None else {"batch": names.model_dump(mode="json")}


def stated_fingerprint(data: DataConfig, *, names: BatchNames | None) -> str | None:
    """The fingerprint that a stated `version` gives, without reading anything; else None."""
    if data.version is None:
        return None
    stated = {"target": data.target, "args": in_key(data.args), "version": data.version}
    return digest("data-version", {**stated, **_named(names)})


def remembered_run_inputs(config: RunConfig, store: Store, sources: RunSources) -> RunInputs:
    """The inputs as far as the store knows them: for `plan`, which reads no data."""
    digests = sources.digests
    data_sets: dict[DataField, DatasetFacts] = {}
    for name, data in data_fields(config).items():
        fingerprint = stated_fingerprint(data, names=config.batch)
        known = None
        by_updates = config.schedule.unit == "updates" or config.max_updates is not None
        quarantined = config.loader.on_bad_sample == "quarantine"
        by_layout = config.batches.shuffle != "global" or config.needs_lengths
        if fingerprint is None or by_updates or quarantined or by_layout:
            path = description_path(config, name, sources=digests.get(name, {}))
            known = read_known(store, path)
        num_samples = None if known is None else known.num_samples
        seen: Seen = "same"
        if fingerprint is not None and known is not None:
            fingerprint = effective_fingerprint(fingerprint, known)
        elif quarantined and known is None:
            fingerprint = None
        if fingerprint is None and known is not None:
            seen = _seen(data, known, folder=Path(config.folder))
            fingerprint = None
            if seen != "changed":
                fingerprint = effective_fingerprint(known.fingerprint, known)
        if fingerprint is not None:
            fingerprint = with_layout(config, name, fingerprint, known)
        data_sets[name] = DatasetFacts(fingerprint, num_samples, seen)
    return make_run_inputs(config, sources, data_sets, start=start_sha256(config))


def data_stamp(data: DataConfig, *, folder: Path) -> str | None:
    """Of the files that its args name; None where they name none, or too many to look at."""
    names = [name for name in paths_in(data.args) if (folder / name).exists()]
    return quick_stamp(names, folder)


def _seen(data: DataConfig, known: DatasetInfo, *, folder: Path) -> Seen:
    if data.files:  # they are in the path of what is known
        return "same"
    stamp = data_stamp(data, folder=folder)
    if stamp is None or known.stamp is None:
        return "not looked at"
    return "same" if stamp == known.stamp else "changed"


def effective_fingerprint(fingerprint: str, known: DatasetInfo) -> str:
    """Of the data that is trained on: without the samples that are left out."""
    if known.without is None:
        return fingerprint
    return digest("data-without", [fingerprint, known.without])


def with_sources(run_inputs: RunInputs, sources: RunSources) -> RunInputs:
    """The inputs with the code as `sources` has it."""
    return replace(
        run_inputs,
        sources=sources.digests,
        files={field: files.digests for field, files in sources.files.items()},
        packages=sources.packages,
        definitions=sources.definitions,
    )


def make_run_inputs(
    config: RunConfig,
    sources: RunSources,
    data_sets: Mapping[DataField, DatasetFacts],
    *,
    start: str | None,
) -> RunInputs:
    """What keys need beyond the config. data_sets: as far as known. start: of `start_sha256`."""
    num_samples = data_sets["train_data"].num_samples
    run_inputs = RunInputs(
        sources={},
        train_data=data_sets["train_data"],
        validation_data=data_sets["validation_data"],
        schedule=sample_digests(with_epochs(config, num_samples=num_samples), num_samples),
        start=start,
        scoring_data=data_sets.get(SCORING_DATA),
    )
    return with_sources(run_inputs, sources)
