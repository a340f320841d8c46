"""A state as a folder of this machine: one call writes it, one reads it back.

The files have the bytes of a run's checkpoints: `model.safetensors`, which plain torch loads,
`optimizer.safetensors`, `ema.safetensors` where an average is kept, and the rest in `state.json`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from epochal.data.documents import dump_document, load_document
from epochal.engine.checkpoint.safetensors_file import safetensors_pieces
from epochal.engine.checkpoint.serialize import StateParts, load_state, load_tensors, split_state
from epochal.engine.model.state import TrainingState

MAX_STATE_BYTES = 1 << 28  # of state.json
_DOCUMENT = "state.json"
_COMPANIONS = "companions"


def save_checkpoint(state: TrainingState, folder: Path | str) -> None:
    """Writes the state into a new folder, which appears when all of it is on the disk.

    Raises FileExistsError if the folder is there, StateMismatch for what cannot be stored without
    pickle, OSError as the system does.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} is there, and no checkpoint is written over")
    folder.parent.mkdir(parents=True, exist_ok=True)
    parts = split_state(state)
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        written = Path(scratch) / folder.name
        written.mkdir()
        for name in ("model", "optimizer", "ema"):
            if name != "ema" or state.ema is not None:
                _write(_tensors(written, name), safetensors_pieces(getattr(parts, name)))
        document = parts.document
        if state.companions:
            _write(_tensors(written, _COMPANIONS), safetensors_pieces(parts.companions))
            document = {**document, _COMPANIONS: parts.companions_document}
        _write(written / _DOCUMENT, [dump_document(document)])
        _sync(written)
        written.rename(folder)
    _sync(folder.parent)


def load_checkpoint(state: TrainingState, folder: Path | str) -> None:
    """Puts what `save_checkpoint` wrote into the state, in place.

    Raises FileNotFoundError if a file of it is missing, CorruptObject if `state.json` is damaged or
    another is no safetensors file, and StateMismatch if it is of another model or optimizer; the
    state is then of no use. A changed bit of a weight is not noticed: only a store has digests.
    """
    folder = Path(folder)
    names = [
        *("model", "optimizer"),
        *(() if state.ema is None else ("ema",)),
        *((_COMPANIONS,) if state.companions else ()),
    ]
    tensors = {name: load_tensors(_tensors(folder, name), device="cpu") for name in names}
    document = load_document(
        (folder / _DOCUMENT).read_bytes(), name=str(folder / _DOCUMENT), max_bytes=MAX_STATE_BYTES
    )
    beside = document.pop(_COMPANIONS, {})
    load_state(state, StateParts(document=document, companions_document=beside, **tensors))


def _tensors(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


def _write(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    with path.open("xb") as stream:
        for piece in pieces:
            stream.write(piece)
    _sync(path)


def _sync(path: Path) -> None:
    """Returns when a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
