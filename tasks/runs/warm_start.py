"""Where a run starts: the weights that `start.from` names, found, hashed and loaded.

What is named and not there is an error before anything starts, never a start from scratch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from epochal.data.errors import (
    ConfigError,
    CorruptObject,
    InputError,
    NotFound,
    StateMismatch,
    TrainingFailed,
)
from epochal.data.hashing import file_sha256
from epochal.data.stage_store.stages import StageRecord, StageStore
from epochal.data.store.open import open_store
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.early_stopping import needed_stages
from epochal.tasks.planning.keys import list_stages
from epochal.tasks.runs.run_plans import find_plan

if TYPE_CHECKING:
    from epochal.tasks.user_code.components import Components

_EPOCH = re.compile(r"(?P<run>.+?)(?::(?P<epoch>\d+|best))?")


@dataclass(frozen=True)
class Weights:
    """Where they are: a file here, an object of a store, or the model of a train stage."""

    what: str
    file: Path | None = None
    url: str | None = None
    stored: tuple[StageStore, StageRecord] | None = None

    @property
    def known_sha256(self) -> str | None:
        """Their digest, where a record names it."""
        return None if self.stored is None else self.stored[1].artifacts["model"].sha256

    @contextmanager
    def opened(self) -> Iterator[Path]:
        """A local file that holds them. Raises NotFound, InputError or CorruptObject."""
        try:
            if self.stored is not None:
                store, record = self.stored
                with store.fetch_artifact(record, "model") as path:
                    yield path
            elif self.url is not None:
                place, _, name = self.url.rpartition("/")
                with open_store(place).fetch(name) as path:
                    yield path
            else:
                assert self.file is not None
                yield self.file
        except FileNotFoundError:
            raise NotFound(f"start.from: there is no file {self.what}") from None


def find_weights(config: RunConfig) -> Weights | None:
    """What `start.from` names, or None where nothing is named.

    Raises NotFound or ConfigError, saying where it was looked for.
    """
    if config.start is None:
        return None
    named, folder = config.start.source, Path(config.folder)
    if not config.start.is_file:
        return _of_run(named, config)
    if named.startswith(("http://", "https://")):
        raise ConfigError(
            f"start.from: {named}: weights are read from files and object stores; download it, and "
            "give its path"
        )
    if "://" in named and not named.startswith("file://"):
        return Weights(named, url=named)
    path = folder / named.removeprefix("file://")
    if not path.is_file():
        raise NotFound(
            f"start.from: there is no file {path}; a path is relative to the config's folder"
        )
    return Weights(str(path), file=path)


def _of_run(named: str, config: RunConfig) -> Weights:
    match = _EPOCH.fullmatch(named.rpartition("/")[2])
    place = named.rpartition("/")[0] or config.store
    if match is None:
        raise ConfigError(
            f"start.from: {named!r} ends with '/'; expected NAME, STORE/NAME, with @GENERATION and "
            ":EPOCH or :best behind it, or the path of a .safetensors file"
        )
    store = open_store(place, folder=Path(config.folder))
    try:
        plan = find_plan(store, match["run"])
    except NotFound as error:
        raise NotFound(f"start.from: {error}. A file's name ends with .safetensors") from None
    run = plan.run_config()
    if run is None:
        raise NotFound(
            f"start.from: {plan.reference} was planned by another version of epochal, whose config "
            "this one does not read; export its weights there"
        )
    stages = list_stages(run, plan.run_inputs())
    stage_store = StageStore(store)
    found = stage_store.lookup([stage.known_key for stage in stages])
    records = {key: one.record for key, one in found.items() if one.record is not None}
    stages = list(needed_stages(run, stages, records))
    trained = {
        stage.number: records[stage.known_key]
        for stage in stages
        if stage.kind == "train" and stage.known_key in records
    }
    epoch = match["epoch"]
    if epoch == "best":
        from epochal.tasks.runs.summary import best_epoch

        best = best_epoch(run.metrics, stages, records)
        number = None if best is None else best.epoch
    else:
        number = max(trained, default=None) if epoch is None else int(epoch)
    if number not in trained:
        has = f"it has epochs 0 to {max(trained)}" if trained else "it has none"
        raise NotFound(
            f"start.from: {plan.reference} has no checkpoint of epoch "
            f"{epoch if number is None else number}; {has}"
        )
    record = trained[number]
    if "model" in found[record.key].pruned:
        raise NotFound(
            f"start.from: the checkpoint of {plan.reference}, epoch {number}, was removed by "
            "`epochal gc`; choose another epoch, or train that run again"
        )
    return Weights(f"{plan.reference}, epoch {number}", stored=(stage_store, record))


def start_sha256(config: RunConfig) -> str | None:
    """The digest of the weights to start from, which the key holds; None where there are none.

    Raises NotFound or InputError if they are not there or cannot be read.
    """
    weights = find_weights(config)
    if weights is None or weights.known_sha256 is not None:
        return None if weights is None else weights.known_sha256
    try:
        with weights.opened() as path:
            return file_sha256(path)
    except OSError as error:
        raise InputError(
            f"start.from: {weights.what} cannot be read: {error.strerror or error}"
        ) from error


def load_weights(config: RunConfig, components: Components, *, sha256: str | None = None) -> None:
    """The weights into the model. sha256: what they must be, or None.

    Raises StateMismatch if they do not fit, TrainingFailed if they have changed.
    """
    from epochal.engine.checkpoint.serialize import load_tensors
    from epochal.engine.checkpoint.warm_start import load_start
    from epochal.engine.model.state import fresh_optimizer

    weights = find_weights(config)
    assert weights is not None
    assert config.start is not None
    with weights.opened() as path:
        if sha256 is not None and file_sha256(path) != sha256:
            raise TrainingFailed(
                f"start.from: {weights.what} has changed since this command began; run it again"
            )
        tensors = load_tensors(path, device="cpu")
    try:
        load_start(
            components.state.model,
            tensors,
            strict=config.start.strict,
            allow_missing=config.start.allow_missing,
            allow_unexpected=config.start.allow_unexpected,
        )
    except StateMismatch as error:
        raise StateMismatch(f"start.from: {weights.what}: {error}") from None
    fresh_optimizer(components.state)  # an average of the weights begins with these


def check_start(config: RunConfig, components: Components) -> None:
    """Before the first stage: whether the weights fit. Raises ConfigError.

    They stay in the model, whose initialise stage loads them again.
    """
    if config.start is None:
        return
    try:
        load_weights(config, components)
    except (StateMismatch, CorruptObject) as error:
        raise ConfigError(str(error)) from error
