"""Where a run starts: the weights that `start.from` names, found, hashed and loaded.

Weights that are named but missing are an error before anything starts, never a start from scratch.
"""

from __future__ import annotations

import re
from pathlib import Path

from epochal.data.errors import (
    ConfigError,
    InputError,
    NotFound,
)
from epochal.data.hashing import file_sha256
from epochal.data.stage_store.stages import StageStore
from epochal.data.store.open import open_store
from epochal.tasks.checkpoints.warm_start import Weights
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.run_view import RunView
from epochal.tasks.runs.lookup import records_of
from epochal.tasks.runs.run_plans import find_plan

_EPOCH = re.compile(r"(?P<run>.+?)(?::(?P<epoch>\d+|best))?")


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
    if not _is_file(path):
        raise NotFound(
            f"start.from: there is no file {path}; a path is relative to the config's folder"
        )
    return Weights(str(path), file=path)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file system holds
        return False


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
    stages = plan.listed_stages(run)
    stage_store = StageStore(store)
    statuses = stage_store.lookup([stage.known_key for stage in stages])
    view = RunView(run, stages, records_of(statuses))
    trained = {stage.number: record for stage, record in view.of_kind("train")}
    if (last := view.stopped_after) is not None:
        trained = {epoch: record for epoch, record in trained.items() if epoch <= last}
    epoch = match["epoch"]
    number = max(trained, default=None) if epoch is None else None
    if epoch == "best":
        if view.best is None:
            raise NotFound(f"start.from: {plan.reference} has no best epoch: {view.why_no_best()}")
        number = view.best.epoch
    elif epoch is not None:
        number = int(epoch)
    if number not in trained:
        has = f"it has epochs 0 to {max(trained)}" if trained else "it has none"
        raise NotFound(
            f"start.from: {plan.reference} has no checkpoint of epoch "
            f"{epoch if number is None else number}; {has}"
        )
    record = trained[number]
    if "model" in statuses[record.key].pruned:
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
