"""What keys need beyond the config: digests of sources and of data. No torch.

Fingerprints of data that was read once are kept in `<store>/fingerprints`, so that `plan` need
not read data. A data set's description is found there by its target, args, source and declared
files. Their content may have changed without that, so `train` reads small data sets again.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from epochal.data.config.loader import DataConfig
from epochal.data.documents import dump_document, load_document
from epochal.data.errors import CorruptObject
from epochal.data.hashing import digest
from epochal.data.inspection.dataset import DatasetInfo
from epochal.data.inspection.describe import files_stamp
from epochal.data.store.store import Store
from epochal.data.types import Target, in_json
from epochal.engine.schedule.kinds import CustomSchedule
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.run_length import sample_digests, with_epochs
from epochal.tasks.planning.stage import DatasetFacts, RunInputs
from epochal.tasks.runs.warm_start import start_sha256
from epochal.tasks.stages.score import SCORING_DATA, own_data
from epochal.tasks.user_code.source_digests import source_digests
from epochal.tasks.user_code.targets import resolved_args

MAX_DESCRIPTION_BYTES = 1 << 16

DataField = Literal["train_data", "validation_data", "sampling.scoring.data"]


def data_fields(config: RunConfig) -> dict[DataField, DataConfig]:
    """The data sets of a run by their field."""
    fields: dict[DataField, DataConfig] = {
        "train_data": config.train_data,
        "validation_data": config.validation_data,
    }
    if (scored := own_data(config)) is not None:
        fields[SCORING_DATA] = scored
    return fields


def source_files(config: RunConfig) -> dict[str, dict[str, str]]:
    """Config field of each target → the user's files that it runs, with their digests.

    Raises TargetError if one of them cannot be read as Python.
    """
    targets: dict[str, Target | None] = {
        "model": config.model,
        "loss": config.loss,
        "step": config.step,
        "optimizer": config.optimizer,
        "schedule": config.schedule if isinstance(config.schedule, CustomSchedule) else None,
        "sampling": config.sampling.callable_target,
    }
    # A stated version replaces everything else.
    data = data_fields(config).items()
    targets |= {name: data_config for name, data_config in data if data_config.version is None}
    for metric in config.metrics.validation:
        if not isinstance(metric, str):
            targets[f"metrics.{metric.name}"] = metric
    folder = Path(config.folder)
    return {
        name: source_digests(target.target.partition(":")[0], folder=folder)
        for name, target in targets.items()
        if target is not None
    }


def description_path(data: DataConfig, *, sources: Mapping[str, str], folder: Path) -> str:
    """Where the store remembers this data set. Raises DataError if a declared file is missing."""
    identity: dict[str, Any] = {
        "target": data.target,
        "args": in_json(resolved_args(data.args, folder=folder)),
        "sources": dict(sources),
        "version": data.version,
    }
    if data.version is None and data.files:
        identity["files"] = files_stamp(data.files, folder)
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


def stated_fingerprint(data: DataConfig) -> str | None:
    """The fingerprint that a stated `version` gives, without reading anything; else None."""
    if data.version is None:
        return None
    return digest(
        "data-version",
        {"target": data.target, "args": in_json(data.args), "version": data.version},
    )


def remembered_run_inputs(config: RunConfig, store: Store) -> RunInputs:
    """The inputs as far as the store knows them: for `plan`, which reads no data."""
    sources = source_files(config)
    data_sets: dict[DataField, DatasetFacts] = {}
    for name, data in data_fields(config).items():
        fingerprint = stated_fingerprint(data)
        known = None
        by_updates = config.schedule.unit == "updates" or config.max_updates is not None
        if fingerprint is None or by_updates:
            path = description_path(data, sources=sources.get(name, {}), folder=Path(config.folder))
            known = read_known(store, path)
        if fingerprint is None and known is not None:
            fingerprint = known.fingerprint
        num_samples = None if known is None else known.num_samples
        data_sets[name] = DatasetFacts(fingerprint=fingerprint, num_samples=num_samples)
    return make_run_inputs(config, sources, data_sets)


def make_run_inputs(
    config: RunConfig,
    sources: Mapping[str, Mapping[str, str]],
    data_sets: Mapping[DataField, DatasetFacts],
) -> RunInputs:
    """What keys need beyond the config. sources: of `source_files`; data_sets: as far as known."""
    num_samples = data_sets["train_data"].num_samples
    return RunInputs(
        sources=sources,
        train_data=data_sets["train_data"],
        validation_data=data_sets["validation_data"],
        schedule=sample_digests(with_epochs(config, num_samples=num_samples), num_samples),
        start=start_sha256(config),
        scoring_data=data_sets.get(SCORING_DATA),
    )
