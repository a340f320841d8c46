"""A run opened where the numbers are: its code and data read, its parts tried before the start."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from epochal.data.errors import ConfigError
from epochal.data.inspection.dataset import OpenDataset
from epochal.data.store.store import Store
from epochal.tasks.computing.link import Link
from epochal.tasks.computing.work import Work
from epochal.tasks.planning.stage import RunInputs
from epochal.tasks.preflight.disk_space import checkpoint_size
from epochal.tasks.preflight.forward_pass import check_before_start
from epochal.tasks.reporting import SilentReporter
from epochal.tasks.run_data.run_data import read_run_inputs, remember_data
from epochal.tasks.runs.run_inputs import with_sources
from epochal.tasks.runs.run_sources import RunSources, read_sources
from epochal.tasks.user_code.files_read import forget_files
from epochal.tasks.user_code.loaded_modules import ANY, forget_modules, noting_modules

MAX_NAMED = 5


class _Told(SilentReporter):
    def __init__(self, link: Link) -> None:
        self._link = link

    def notice(self, text: str) -> None:
        """Passes it on."""
        self._link.notice(text)

    def doing(self, text: str) -> None:
        """Passes it on."""
        self._link.report("doing", text=text)

    def reading(self, field: str, done: int, count: int) -> None:
        """Passes it on."""
        self._link.ask("reading", field=field, done=done, count=count)


@dataclass
class Opening:
    """One run's opening. store: for what is remembered of code and data."""

    work: Work
    store: Store
    _sources: RunSources | None = None
    _run_inputs: RunInputs | None = None
    _checked: list[bool] = field(default_factory=list)

    def read(self) -> dict[str, Any]:
        """Reads code and data; tells what keys need, and the numerics environment."""
        from epochal.engine.environment import numerics_environment

        work, link = self.work, self.work.link
        link.report("doing", text="reading your code")
        sources = read_sources(work.config, self.store, stamps=self._stamps)
        forget_modules(sources.imports)
        forget_files()
        with noting_modules(ANY):
            run_inputs, data = read_run_inputs(
                work.config,
                self.store,
                sources,
                notice=_Told(link),
                before_write=self._check_store,
                start=link.ask("start_sha256"),
                stamps=self._stamps,
            )
        work.data, self._sources, self._run_inputs = data, sources, run_inputs
        return {
            "run_inputs": asdict(run_inputs),
            "environment": numerics_environment(work.device),
            "device": str(work.device),
            "data": {
                name: {
                    "info": one.info.model_dump(mode="json"),
                    "fingerprint": one.fingerprint,
                    "bad": [sample.position for sample in one.bad],
                }
                for name, one in data.items()
            },
        }

    def ids(self) -> bytes:
        """The ids of the samples of each data set that has ids of its own, int64, in order."""
        return b"".join(
            one.sample_ids_N.tobytes() for one in self.work.data.values() if not one.info.index_ids
        )

    def check(self) -> dict[str, Any]:
        """Builds the parts and tries them; tells what keys need beside, and a checkpoint's size."""
        import torch

        work, sources = self.work, self._sources
        work.link.report("doing", text="building the model, and trying a batch")
        launch, device = work.config.launch, work.device
        if launch.shard_model and launch.processes > 1:  # no device need hold it as a whole
            device = torch.device("cpu")
        assert sources is not None
        assert self._run_inputs is not None
        with noting_modules(ANY):
            work.components = check_before_start(
                work.config, work.data, device=device, notice=work.link.notice
            )
        work.touched = False
        forms = {name: _form(data) for name, data in work.data.items()}
        for data in work.data.values():
            data.forget_looked()
        built = sources.with_loaded(self.store)
        _tell_of_code(sources, built, work.link)
        changed = built.digests != sources.digests
        if changed:
            self._run_inputs = with_sources(self._run_inputs, built)
            remember_data(
                work.config, self.store, work.data, self._run_inputs.sources, stamps=self._stamps
            )
        size = checkpoint_size(work.components.state, accumulate=work.config.gradients.accumulate)
        return {
            "run_inputs": asdict(self._run_inputs) if changed else None,
            "size": asdict(size),
            "forms": forms,
        }

    def _check_store(self) -> None:
        if not self._checked:
            self.work.link.ask("check_store")
            self._checked.append(True)

    def _stamps(self, files: Sequence[str], folder: Path) -> list[list[Any]]:
        return _stamps(self.work.link, files, folder)


def _form(data: OpenDataset) -> Any:
    """What the first item is made of, as plain JSON."""
    from epochal.data.inspection.item_form import form
    from epochal.data.inspection.item_reader import ItemReader
    from epochal.data.loading.items import kept_generators

    with kept_generators():
        return form(ItemReader(data.looked, 1, data.field).item(0))


def _stamps(link: Link, files: Sequence[str], folder: Path) -> list[list[Any]]:
    """As `files_stamp`; what lies in an object store the orchestration looks at."""
    if not any("://" in name for name in files):
        from epochal.data.inspection.file_stamps import files_stamp

        return files_stamp(files, folder)
    stamps: list[list[Any]] = link.ask("files_stamp", files=list(files))
    return stamps


def check_same(told: Mapping[str, Any], work: Work, store: Store) -> None:
    """What must be on this machine as on that of the first process, whose bytes are made here too.

    told: its numerics `environment`, the digests of its code, `sources`, and of the `files` that
    the code's targets name. Raises ConfigError.
    """
    from epochal.engine.environment import numerics_environment

    sources = read_sources(work.config, store, stamps=partial(_stamps, work.link))
    own = {name: dict(digests) for name, digests in sources.digests.items()}
    for name, files in sources.files.items():
        own.setdefault(name, {}).update(files.digests)
    here = numerics_environment(work.device)
    pairs = {name: (here.get(name), value) for name, value in told["environment"].items()}
    for kind in ("sources", "files"):
        for field_name, digests in told[kind].items():
            for name, digest in digests.items():
                pairs[f"{field_name}: {name}"] = own.get(field_name, {}).get(name), digest
    for what, (found, expected) in pairs.items():
        if found != expected:
            raise ConfigError(
                f"{socket.gethostname()}: {what} is not what it is on the machine of the run: "
                f"{expected} there, {found} here; the machines of one run need the same code, "
                "packages, threads and kind of processor, for each makes a part of the same bytes"
            )


def _tell_of_code(known: RunSources, built: RunSources, link: Link) -> None:
    """Reports what building the targets has shown of their code, and what no key holds; once."""
    for name, source in built.code.items():
        before = known.code[name].digests
        found = [file for file in source.digests if file not in before]
        gone = [file for file in before if file not in source.digests]
        if found:
            link.notice(
                f"{name}: building it loaded {_named(found)}, which no import statement of "
                "its files names: now in the keys, as far as it was loaded before the start"
            )
        if gone:
            link.notice(
                f"{name}: building it no longer loads {_named(gone)}, which it did before: "
                "no longer in the keys"
            )
    for name, files in built.read.items():
        if files and name not in known.built:
            link.notice(
                f"{name}: building it read {_named(files)}, which is in no key: name it in "
                f"{name}.files, so that a change of it is seen"
            )
    for text in known.not_followed:
        link.notice(text)


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" * (len(names) > MAX_NAMED)
    return ", ".join(names[:MAX_NAMED]) + more
