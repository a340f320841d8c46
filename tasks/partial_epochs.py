"""Commits inside an epoch: from the live state to the store in the background, and back.

Training stops for a copy into buffers that are kept; a thread hashes and stores them. An error of
the thread comes up at the next micro-step.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from epochal.data.partials import PartialCommit, PartialStore
from epochal.data.store import Store
from epochal.tasks.config import CheckpointConfig

if TYPE_CHECKING:
    from torch import Tensor

    from epochal.engine.progress import PartialEpoch, Progress
    from epochal.engine.state import TrainingState

_MODEL, _OPTIMIZER, _EMA, _GRADIENT = "model/", "optimizer/", "ema/", "gradient/"
_METRIC, _OBSERVED, _ENDS = "metric/", "observed/", "update_ends"


class PartialSaver:
    """Saves one epoch's progress when it is due.

    identity: what a commit must share with the stage that would go on from it. anchors: gives the
    times up to an update, as `tasks.watch` has them. saved: told of each commit once it is durable,
    from the thread. resumed: whether commits of an earlier try are there.
    """

    def __init__(
        self,
        store: Store,
        key: str,
        config: CheckpointConfig,
        *,
        identity: Mapping[str, Any],
        anchors: Callable[[int], list[list[int]]],
        saved: Callable[[PartialEpoch, list[list[int]]], None],
        resumed: bool = False,
    ) -> None:
        self._store = store
        self._partials = PartialStore(store, key)
        self._config = config
        self._identity = dict(identity)
        self._anchors = anchors
        self._saved = saved
        self._resumed = resumed
        self._buffers: dict[str, Tensor] = {}
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._last_s = time.monotonic()
        self._last_updates = 0
        self._last_micro_steps = 0

    def when_due(self, progress: Progress) -> None:
        """Begins a commit if one is due and none is under way. Raises what the last one raised."""
        every = self._config.every_updates
        due = time.monotonic() - self._last_s >= self._config.every_seconds
        if every is not None and progress.updates - self._last_updates >= every:
            due = True
        if self._error is not None:
            self._join()
        if due and (self._thread is None or not self._thread.is_alive()):
            self._join()
            self._begin(progress)

    def now(self, progress: Progress) -> None:
        """Commits here, and returns when it is durable. Raises StoreUnavailable."""
        self._join()
        if progress.micro_steps > self._last_micro_steps:
            self._begin(progress)
            self._join()

    def wait(self) -> None:
        """Waits for the thread, whatever becomes of its commit: nothing of it is needed now."""
        if self._thread is not None:
            self._thread.join()

    def clear(self) -> None:
        """Deletes all commits: the stage is done."""
        if self._last_micro_steps or self._resumed:
            self._partials.clear()

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _begin(self, progress: Progress) -> None:
        from epochal.engine.serialize import split_state

        partial = progress.capture()
        parts = split_state(progress.state)
        groups = {
            _MODEL: parts.model,
            _OPTIMIZER: parts.optimizer,
            _EMA: parts.ema,
            _GRADIENT: partial.gradients,
        }
        self._copy(
            {prefix + name: one for prefix, group in groups.items() for name, one in group.items()}
        )
        loss = partial.partial_loss
        anchors = self._anchors(progress.updates)
        body = {
            **self._identity,
            "updates": partial.updates,
            "partial_loss": None if loss is None else [one.hex() for one in loss],
            "document": parts.document,
            "anchors": anchors,
        }
        self._last_s, self._last_updates = time.monotonic(), progress.updates
        self._last_micro_steps = progress.micro_steps
        self._thread = threading.Thread(
            target=self._write, args=(partial, body, anchors), name="epochal-commit", daemon=True
        )
        self._thread.start()

    def _copy(self, tensors: Mapping[str, Tensor]) -> None:
        """Into the kept buffers; those of gradients that are not there now are dropped."""
        import torch

        for name in [name for name in self._buffers if name not in tensors]:
            del self._buffers[name]
        with torch.no_grad():
            for name, tensor in tensors.items():
                kept = self._buffers.get(name)
                if kept is None or kept.shape != tensor.shape or kept.dtype != tensor.dtype:
                    kept = torch.empty(
                        tensor.shape, dtype=tensor.dtype, pin_memory=tensor.device.type == "cuda"
                    )
                    self._buffers[name] = kept
                kept.copy_(tensor)

    def _write(
        self, partial: PartialEpoch, body: Mapping[str, Any], anchors: list[list[int]]
    ) -> None:
        from epochal.engine.serialize import save_tensors

        try:
            with self._store.scratch() as scratch:
                path = scratch / "partial.safetensors"
                save_tensors({**self._buffers, **_arrays(partial)}, path)
                self._partials.commit(partial.micro_steps, path, body)
            self._saved(partial, anchors)
        except BaseException as error:  # noqa: BLE001 - raised again in the training's own thread
            self._error = error


def _arrays(partial: PartialEpoch) -> dict[str, Tensor]:
    import torch

    arrays = {
        **{_METRIC + name: column for name, column in partial.metrics.items()},
        **{_OBSERVED + name: column for name, column in partial.observations.items()},
        _ENDS: np.array(partial.update_ends, dtype=np.int64),
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def restore(commit: PartialCommit, state: TrainingState) -> PartialEpoch:
    """Loads a commit into the live state; gives what `train_epoch` goes on from.

    Raises StateMismatch or Damaged.
    """
    from epochal.engine.progress import PartialEpoch
    from epochal.engine.serialize import StateParts, load_state, load_tensors

    tensors = load_tensors(Path(commit.tensors), device="cpu")

    def of(prefix: str) -> dict[str, Tensor]:
        found = {name: one for name, one in tensors.items() if name.startswith(prefix)}
        return {name.removeprefix(prefix): one for name, one in found.items()}

    body = commit.body
    load_state(
        state,
        StateParts(
            model=of(_MODEL),
            optimizer=of(_OPTIMIZER),
            document=dict(body["document"]),
            ema=of(_EMA),
        ),
    )
    loss = body["partial_loss"]
    return PartialEpoch(
        micro_steps=commit.micro_steps,
        updates=int(body["updates"]),
        gradients=of(_GRADIENT),
        partial_loss=None if loss is None else [float.fromhex(one) for one in loss],
        metrics={name: one.numpy() for name, one in of(_METRIC).items()},
        observations={name: one.numpy() for name, one in of(_OBSERVED).items()},
        update_ends=tuple(tensors[_ENDS].tolist()),
    )
