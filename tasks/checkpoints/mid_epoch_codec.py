"""A commit inside an epoch: the live state as named tensors and a document, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochal.data.errors import CorruptObject
from epochal.data.stage_store.mid_epoch import MidEpochCommit
from epochal.data.tables.schemas import OBSERVATIONS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from epochal.engine.loop.progress import MidEpochState
    from epochal.engine.model.state import Slice, TrainingState

_MODEL, _OPTIMIZER, _EMA, _GRADIENT = "model/", "optimizer/", "ema/", "gradient/"
_SLICED = (_MODEL, _OPTIMIZER, _EMA, _GRADIENT)
"""What tensors begin with of which a process may hold a slice."""
_COMPANION, _COMPANIONS = "companion/", "companions"
_METRIC, _OBSERVED, _ENDS = "metric/", "observed/", "update_ends"


@dataclass(frozen=True, eq=False)
class Recorded:
    """What an epoch has recorded by a commit.

    metrics: name → float64 of shape (U,). observations: name → shape (N,), in the order of
    training. ends_U: samples trained on by the end of each update.
    """

    metrics: Mapping[str, npt.NDArray[np.float64]]
    observations: Mapping[str, npt.NDArray[Any]]
    ends_U: npt.NDArray[np.int64]


def encode(
    captured: MidEpochState, state: TrainingState
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a commit by their names, those of the live state itself; and the rest."""
    tensors, document, companions = _tensors(state, captured.gradients)
    loss, counts = captured.partial_loss, captured.denominators
    body = {
        "updates": captured.updates,
        "partial_loss": None if loss is None else [[value.hex(), kind] for value, kind in loss],
        "denominators": None if counts is None else [value.hex() for value in counts],
        "document": document,
        **({_COMPANIONS: companions} if companions else {}),
    }
    return {**tensors, **_arrays(captured)}, body


def state_tensors(state: TrainingState) -> dict[str, Tensor]:
    """Those of a commit that is made now, but for what the epoch itself has recorded."""
    named = state.named_parameters().items()
    gradients = {name: parameter.grad for name, parameter in named if parameter.grad is not None}
    return _tensors(state, gradients)[0]


def slices_in(tensors: Mapping[str, Tensor], state: TrainingState) -> dict[str, Slice]:
    """Which tensors of a commit are slices, where a process holds a part of the state alone."""
    from epochal.engine.checkpoint.slices import slices_among

    return slices_among(tensors, state.slices, prefixes=_SLICED)


def whole_tensors(state: TrainingState) -> dict[str, Tensor]:
    """As `state_tensors`, for their size: of slices the wholes, without memory."""
    from epochal.engine.checkpoint.slices import as_wholes

    tensors = state_tensors(state)
    return as_wholes(tensors, slices_in(tensors, state))


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


def _arrays(partial: MidEpochState) -> dict[str, Tensor]:
    import numpy as np
    import torch

    arrays = {
        **{_METRIC + name: column for name, column in partial.metrics.items()},
        **{_OBSERVED + name: column for name, column in partial.observations.items()},
        _ENDS: np.array(partial.update_ends, dtype=np.int64),
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def read_recorded(tensors: Path) -> Recorded:
    """The numbers that a commit holds beside the state, which is not read. Without torch.

    Raises CorruptObject where they are no columns of one epoch, FileNotFoundError.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(tensors), framework="numpy") as file:
            held = {
                prefix: {
                    name.removeprefix(prefix): file.get_tensor(name)
                    for name in file.keys()  # noqa: SIM118 - it is no mapping
                    if name.startswith(prefix)
                }
                for prefix in (_METRIC, _OBSERVED)
            }
            found = Recorded(held[_METRIC], held[_OBSERVED], file.get_tensor(_ENDS))
    except (SafetensorError, KeyError, TypeError) as error:
        raise CorruptObject(f"a commit inside an epoch cannot be read: {error}") from error
    problem = next(_unlike(found), None)
    if problem is not None:
        raise CorruptObject(f"a commit inside an epoch: {problem}")
    return found


def _unlike(found: Recorded) -> Iterator[str]:
    ends_U, ids_N = found.ends_U, found.observations.get("sample_id")
    if ends_U.ndim != 1 or ends_U.dtype != "int64" or (ends_U[1:] < ends_U[:-1]).any():
        yield f"{_ENDS} is {ends_U.dtype} of shape {ends_U.shape}, expected ends of its updates"
        return
    for name, column_U in found.metrics.items():
        if column_U.shape != ends_U.shape or column_U.dtype != "float64":
            yield f"the metric {name} is {column_U.dtype} of shape {column_U.shape}"
    if ids_N is None or ids_N.ndim != 1 or ids_N.dtype != "int64":
        yield "it names no samples"
        return
    if len(ends_U) and not 0 <= ends_U[0] <= ends_U[-1] <= len(ids_N):
        yield f"its updates end at {ends_U[-1]} of {len(ids_N)} samples"
    for name, column_N in found.observations.items():
        known = OBSERVATIONS.column(name)
        if known is None or column_N.shape != ids_N.shape or column_N.dtype != known.dtype:
            yield f"the observation {name} is {column_N.dtype} of shape {column_N.shape}"


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
    from epochal.engine.checkpoint.serialize import StateParts, load_state
    from epochal.engine.checkpoint.slices import load_slices
    from epochal.engine.loop.progress import MidEpochState

    tensors = load_slices(Path(commit.tensors), state.slices, prefixes=_SLICED)

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
