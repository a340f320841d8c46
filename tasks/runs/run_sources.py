"""The code of a run's targets: their source files, the files they read, the packages they are of.

What building a target has loaded beyond its import statements is kept in `<store>/fingerprints`,
so that `plan`, which builds nothing, knows the same keys. Torch is not imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from epochal.data.config.loader import COLLATE, DataConfig
from epochal.data.documents import dump_document, load_document
from epochal.data.errors import CorruptObject
from epochal.data.hashing import digest
from epochal.data.inspection.file_stamps import files_stamp
from epochal.data.store.store import Store
from epochal.data.types import Frozen, Target, in_key
from epochal.engine.schedule.kinds import CustomSchedule
from epochal.tasks.config.run import RunConfig
from epochal.tasks.stages.score import SCORING_DATA, own_data
from epochal.tasks.user_code.files_read import files_read
from epochal.tasks.user_code.loaded_modules import found_again, loaded_beside, remembered
from epochal.tasks.user_code.named_files import NamedFiles, Stamps, named_files
from epochal.tasks.user_code.package_versions import package_versions
from epochal.tasks.user_code.source_digests import (
    ModuleFile,
    UserSource,
    is_known_to_all,
    merged,
    read_source,
)
from epochal.tasks.user_code.targets import with_nested

MAX_IMPORTS_BYTES = 1 << 20
_OWN_CODE_ONLY = frozenset({"torch", "torchvision", "torchmetrics"})
"""Packages whose targets run no module of the user's."""


@dataclass(frozen=True)
class RunSources:
    """Config field of each target → its source.

    imports: what its files import, as statements name it. code: with what building it has loaded
    beside. files: the files that it reads, none of data sets. paths: where the store keeps what
    its building has loaded. built: whether that is known. read: files that building has
    read here, and that are in no key.
    """

    folder: Path
    targets: Mapping[str, Target]
    imports: Mapping[str, UserSource]
    code: Mapping[str, UserSource]
    files: Mapping[str, NamedFiles]
    paths: Mapping[str, str]
    built: frozenset[str]
    read: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def digests(self) -> dict[str, dict[str, str]]:
        """Field → the user's files that its target runs, with their digests."""
        return {field: dict(source.digests) for field, source in self.code.items()}

    @property
    def definitions(self) -> dict[str, dict[str, str]]:
        """File → function or class → digest."""
        return {
            name: dict(defined)
            for source in self.code.values()
            for name, defined in source.definitions.items()
        }

    @property
    def packages(self) -> dict[str, dict[str, str]]:
        """Field → installed package that its code imports → version."""
        return {field: package_versions(source.packages) for field, source in self.code.items()}

    @property
    def not_followed(self) -> list[str]:
        """What of the targets no key holds, each with its place and what can be done."""
        return [
            text
            for field, source in self.imports.items()
            if field not in self.built
            for text in (
                *(
                    f"{field}: {place}: which code this runs, only building it shows"
                    for place in source.unfollowed
                ),
                *(
                    f"{field}.args: {name} is a folder, whose content is in no key; name what is "
                    f"read of it in {field}.files"
                    for name in self._folders(field)
                ),
            )
        ]

    def _folders(self, field: str) -> tuple[str, ...]:
        return self.files[field].folders if field in self.files else ()

    def with_loaded(self, store: Store) -> RunSources:
        """With what the targets, all built in this process, have loaded beside their imports.

        The store keeps it for the next start.
        """
        code, read = dict(self.code), dict(self.read)
        beside = loaded_beside(self.imports)
        for name, modules in beside.items():
            code[name] = _read(self.targets[name], self.folder, modules)
            if name in self.files:
                paths = files_read(name, named=self.files[name].paths(self.folder))
                read[name] = tuple(os.path.relpath(path, self.folder) for path in paths)
            unsure = self.imports[name].unfollowed or self._folders(name) or read.get(name)
            if name in self.paths and (modules or unsure):
                _write(store, self.paths[name], remembered(modules, folder=self.folder))
        return replace(self, code=code, read=read, built=self.built | beside.keys())


class _Module(Frozen):
    name: str = Field(pattern=r"^[^/\x00][^\x00]*\.py$", max_length=1000)
    path: str = Field(pattern=r"^[^\x00]+\.py$", max_length=4000)


class _Imports(Frozen):
    modules: Annotated[tuple[_Module, ...], Field(max_length=10_000)]


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


def _targets(config: RunConfig) -> dict[str, Target]:
    """The targets whose code is in keys, by their field."""
    named: dict[str, Target | None] = {
        "model": config.model,
        "loss": config.loss,
        "step": config.step,
        COLLATE: config.loader.collate,
        "optimizer": config.optimizer,
        "schedule": config.schedule if isinstance(config.schedule, CustomSchedule) else None,
        "sampling": config.sampling.callable_target,
    }
    # A stated version replaces everything else.
    data = data_fields(config).items()
    named |= {field: target for field, target in data if target.version is None}
    for metric in config.metrics.validation:
        if not isinstance(metric, str):
            named[f"metrics.{metric.name}"] = metric
    return {field: target for field, target in named.items() if target is not None}


def read_sources(config: RunConfig, store: Store, *, stamps: Stamps = files_stamp) -> RunSources:
    """The code of all targets, as far as it is known without running any.

    stamps: looks at the files that targets name.

    Raises TargetError if a file cannot be read as Python, DataError if one of `files` is missing.
    """
    folder, targets = Path(config.folder), _targets(config)
    imports = {field: _read(target, folder) for field, target in targets.items()}
    files = {
        field: named_files(target, folder=folder, stamps=stamps)
        for field, target in targets.items()
        if not isinstance(target, DataConfig)
    }
    paths = {
        field: _path(target, imports[field], files.get(field, NamedFiles()))
        for field, target in targets.items()
        if not _runs_own_code_only(target)
    }
    code, built = dict(imports), set[str]()
    for name, path in paths.items():
        documents = _known(store, path)
        if documents is not None:
            built.add(name)
            if documents:
                code[name] = _read(targets[name], folder, found_again(documents, folder=folder))
    return RunSources(folder, targets, imports, code, files, paths, frozenset(built))


def _read(target: Target, folder: Path, loaded: Iterable[ModuleFile] = ()) -> UserSource:
    """The code of a target and of those among its args."""
    sources = [
        read_source(inner.target.partition(":")[0], folder=folder, loaded=loaded)
        for _, inner in with_nested(target, field="")
    ]
    return sources[0] if len(sources) == 1 else merged(sources)


def _runs_own_code_only(target: Target) -> bool:
    top = target.target.partition(".")[0].partition(":")[0]
    return is_known_to_all(top) or top in _OWN_CODE_ONLY


def _path(target: Target, source: UserSource, files: NamedFiles) -> str:
    identity: dict[str, Any] = {
        "target": target.target,
        "args": in_key(target.args),
        "source": source.digests,
        "files": files.digests,
    }
    return f"fingerprints/{digest('imports', identity)}.json"


def _known(store: Store, path: str) -> list[dict[str, str]] | None:
    load = partial(load_document, name=path, max_bytes=MAX_IMPORTS_BYTES)
    try:
        body = store.read_intact(path, load, max_bytes=MAX_IMPORTS_BYTES)
        known = _Imports.model_validate(body)
    except (FileNotFoundError, CorruptObject, ValidationError):
        return None  # the next build tells it again
    return [one.model_dump() for one in known.modules]


def _write(store: Store, path: str, documents: list[dict[str, str]]) -> None:
    if _known(store, path) == documents:
        return
    store.delete(path)
    try:
        store.put_new(path, dump_document({"modules": documents}))
    except FileExistsError:
        return  # another process has just written what it built
