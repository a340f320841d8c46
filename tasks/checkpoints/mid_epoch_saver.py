"""Commits inside an epoch: from the live state to the store in the background, and back.

Training stops only while the state is copied into buffers; a thread writes, hashes and stores
them. An error of the thread is raised at the next micro-step.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from epochal.data.errors import StoreUnavailable
from epochal.data.stage_store.mid_epoch import MidEpochCommit, MidEpochStore
from epochal.data.store.addresses import scheme_of
from epochal.data.store.failures import cause_of
from epochal.data.store.hashed_files import write_checksummed
from epochal.data.store.store import Store
from epochal.tasks.checkpoints.host_buffers import HostBuffers
from epochal.tasks.config.parts import CheckpointConfig

if TYPE_CHECKING:
    from torch import Tensor

    from epochal.engine.loop.progress import MidEpochState, Progress
    from epochal.engine.model.state import TrainingState

_MODEL, _OPTIMIZER, _EMA, _GRADIENT = "model/", "optimizer/", "ema/", "gradient/"
_COMPANION, _COMPANIONS = "companion/", "companions"
_METRIC, _OBSERVED, _ENDS = "metric/", "observed/", "update_ends"
BESIDE = "goodput"
"""In a commit's body: what the epoch has cost so far."""
PREPARE_AT = 0.5
"""Share of the time before the first commit after which its buffers are made in the background."""
COMMIT_WITHIN_S = 15.0
"""For the commit of a run that is being ended: Prefect grants 30 s, MLflow's end takes up to 12."""


def _nothing(rows: int) -> Mapping[str, Any]:  # noqa: ARG001 - as it is asked
    return {}


class MidEpochSaver:
    """Saves one epoch's progress when it is due.

    identity: what a commit must have in common with the stage that goes on from it. times: gives
    the pairs of `StageTimes` up to an update. saved: called from the thread for each commit, once
    it is durable. beside: gives what travels with a commit of so many samples, under `BESIDE`, and
    need not be equal. buffers: kept by the caller, so that all epochs share them. resumed: whether
    there are commits of an earlier try.
    """

    def __init__(
        self,
        store: Store,
        key: str,
        config: CheckpointConfig,
        *,
        identity: Mapping[str, Any],
        times: Callable[[int], list[list[int]]],
        saved: Callable[[MidEpochState, list[list[int]]], None],
        beside: Callable[[int], Mapping[str, Any]] = _nothing,
        buffers: HostBuffers | None = None,
        resumed: bool = False,
    ) -> None:
        self._store = store
        self._commits = MidEpochStore(store, key)
        self._config = config
        self._identity = dict(identity)
        self._times = times
        self._beside = beside
        self._saved = saved
        self._resumed = resumed
        self._buffers = HostBuffers() if buffers is None else buffers
        self._prepared = False
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._given_up = False
        self._last_s = time.monotonic()
        self._last_updates = 0
        self._last_micro_steps = 0

    def when_due(self, progress: Progress) -> None:
        """Begins a commit if one is due and none is under way. Raises the error of the last one."""
        share = self._share_of_interval(progress)
        if self._error is not None:
            self._join()
        if self._thread is not None and self._thread.is_alive():
            return
        if share >= 1.0:
            self._join()
            self._begin(progress)
        elif share >= PREPARE_AT and progress.updates and not self._prepared:
            # By now the optimizer has its moments. An epoch that ends earlier needs no buffers.
            self._prepared = True
            tensors, *_ = _tensors(progress.state, _gradients(progress.state))
            self._start(partial(self._buffers.prepare, tensors))

    def _share_of_interval(self, progress: Progress) -> float:
        """Share of the time or of the updates between two commits that is over; at 1 one is due."""
        share = (time.monotonic() - self._last_s) / self._config.every_seconds
        every = self._config.every_updates
        if every is not None:
            share = max(share, (progress.updates - self._last_updates) / every)
        return share

    def now(self, progress: Progress) -> None:
        """Commits here, and returns when it is durable.

        Raises StoreUnavailable, also if that takes longer than `COMMIT_WITHIN_S`: a run that is
        being ended must not wait for ever, and the commit before this one is still there.
        """
        until_s = time.monotonic() + COMMIT_WITHIN_S
        self._join(until_s=until_s)
        if progress.micro_steps > self._last_micro_steps:
            self._begin(progress)
            self._join(until_s=until_s)

    def wait(self, *, notice: Callable[[str], None] = lambda _: None) -> None:
        """Waits for the thread. An error of it ends nothing now; `notice` is told of it."""
        if self._thread is not None and not self._given_up:
            self._thread.join()
        if self._error is not None:
            error, self._error = self._error, None
            notice(f"the last commit inside the epoch failed: {cause_of(error)}")

    def clear(self) -> None:
        """Deletes all commits: the stage is done."""
        if self._last_micro_steps or self._resumed:
            self._commits.clear()

    def _join(self, *, until_s: float | None = None) -> None:
        if self._thread is not None:
            self._thread.join(None if until_s is None else max(0.0, until_s - time.monotonic()))
            if self._thread.is_alive():
                self._given_up = True
                raise StoreUnavailable(
                    f"{self._store.url} did not take a commit of the epoch within "
                    f"{COMMIT_WITHIN_S:.0f} s; the one before it stands, run the same command to "
                    "go on from there"
                )
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _begin(self, progress: Progress) -> None:
        captured = progress.capture()
        tensors, document, companions = _tensors(progress.state, captured.gradients)
        copied = self._buffers.copy(tensors)
        # Else the thread would keep the live gradients in memory.
        captured = replace(captured, gradients={})
        loss, counts = captured.partial_loss, captured.denominators
        times = self._times(progress.updates)
        body = {
            **self._identity,
            "updates": captured.updates,
            "partial_loss": None if loss is None else [[value.hex(), kind] for value, kind in loss],
            "denominators": None if counts is None else [value.hex() for value in counts],
            "document": document,
            **({_COMPANIONS: companions} if companions else {}),
            "anchors": times,
            BESIDE: dict(self._beside(progress.rows)),
        }
        self._prepared = True
        self._last_s, self._last_updates = time.monotonic(), progress.updates
        self._last_micro_steps = progress.micro_steps
        self._start(partial(self._write, captured, copied, body, times))

    def _start(self, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - raised again in the training's thread
                self._error = error

        self._thread = threading.Thread(target=guarded, name="epochal-commit", daemon=True)
        self._thread.start()

    def _write(
        self,
        captured: MidEpochState,
        copied: Mapping[str, Tensor],
        body: Mapping[str, Any],
        times: list[list[int]],
    ) -> None:
        from epochal.engine.checkpoint.safetensors_file import safetensors_pieces

        with self._store.scratch() as scratch:
            pieces = safetensors_pieces({**copied, **_arrays(captured)})
            # A remote store reads the file again to send it; a local one takes the file itself.
            sent = scheme_of(self._store.url) != "file"
            written = write_checksummed(scratch / "partial.safetensors", pieces, cached=sent)
            self._commits.commit(captured.micro_steps, written, body)
        self._saved(captured, times)


def _tensors(
    state: TrainingState, gradients: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """The tensors of the live state by their names in a commit; the rest; that of companions."""
    from epochal.engine.checkpoint.serialize import split_state

    parts = split_state(state)
    groups = {
        _MODEL: parts.model,
        _OPTIMIZER: parts.optimizer,
        _EMA: parts.ema,
        _COMPANION: parts.companions,
        _GRADIENT: gradients,
    }
    named = {
        prefix + name: tensor for prefix, group in groups.items() for name, tensor in group.items()
    }
    return named, parts.document, parts.companions_document


def _gradients(state: TrainingState) -> dict[str, Tensor]:
    named = state.named_parameters().items()
    return {name: parameter.grad for name, parameter in named if parameter.grad is not None}


def _arrays(partial: MidEpochState) -> dict[str, Tensor]:
    import torch

    arrays = {
        **{_METRIC + name: column for name, column in partial.metrics.items()},
        **{_OBSERVED + name: column for name, column in partial.observations.items()},
        _ENDS: np.array(partial.update_ends, dtype=np.int64),
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _numbers(texts: Any) -> list[tuple[float, str]] | None:
    if texts is None:
        return None
    if not isinstance(texts, list) or not texts:
        message = f"partial_loss: {texts!r:.100}"
        raise ValueError(message)
    return [(float.fromhex(text), str(kind)) for text, kind in texts]


def _denominators(texts: Any) -> tuple[float, float] | None:
    if texts is None:
        return None
    estimate, total = (float.fromhex(text) for text in texts)
    if not estimate:
        message = f"denominators: {texts!r:.100}"
        raise ValueError(message)
    return estimate, total


def restore(commit: MidEpochCommit, state: TrainingState) -> MidEpochState:
    """Loads a commit into the live state; gives what `train_epoch` goes on from.

    Raises StateMismatch or CorruptObject.
    """
    from epochal.engine.checkpoint.serialize import StateParts, load_state, load_tensors
    from epochal.engine.loop.progress import MidEpochState

    tensors = load_tensors(Path(commit.tensors), device="cpu")

    def of(prefix: str) -> dict[str, Tensor]:
        group = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        return {name.removeprefix(prefix): tensor for name, tensor in group.items()}

    body = commit.body
    load_state(
        state,
        StateParts(
            model=of(_MODEL),
            optimizer=of(_OPTIMIZER),
            document=dict(body["document"]),
            ema=of(_EMA),
            companions=of(_COMPANION),
            companions_document=dict(body.get(_COMPANIONS, {})),
        ),
    )
    loss = body["partial_loss"]
    return MidEpochState(
        micro_steps=commit.micro_steps,
        updates=int(body["updates"]),
        gradients=of(_GRADIENT),
        partial_loss=_numbers(loss),
        denominators=_denominators(body["denominators"]),
        metrics={name: column.numpy() for name, column in of(_METRIC).items()},
        observations={name: column.numpy() for name, column in of(_OBSERVED).items()},
        update_ends=tuple(tensors[_ENDS].tolist()),
    )
