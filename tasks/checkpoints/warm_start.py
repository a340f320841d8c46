"""The weights that a run starts from: opened, checked against their digest, put into the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from epochal.data.errors import (
    NotFound,
    StateMismatch,
    TrainingFailed,
)
from epochal.data.hashing import file_sha256
from epochal.data.stage_store.stages import StageRecord, StageStore
from epochal.data.store.open import open_store
from epochal.tasks.config.run import RunConfig

if TYPE_CHECKING:
    from epochal.tasks.user_code.components import Components


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


@contextmanager
def opened_weights(weights: Weights, *, sha256: str | None) -> Iterator[Path]:
    """A local file that holds them. sha256: what they must be, or None.

    Raises as `Weights.opened`; TrainingFailed if they have changed.
    """
    with weights.opened() as path:
        if sha256 is not None and file_sha256(path) != sha256:
            raise TrainingFailed(
                f"start.from: {weights.what} has changed since this command began; run it again"
            )
        yield path


def load_weights(path: Path, what: str, config: RunConfig, components: Components) -> None:
    """The weights that `config.start` names into the model. what: how messages call them.

    Raises StateMismatch if they do not fit, CorruptObject if they are none.
    """
    from epochal.engine.checkpoint.serialize import load_tensors
    from epochal.engine.checkpoint.warm_start import load_start
    from epochal.engine.model.state import fresh_optimizer

    assert config.start is not None
    tensors = load_tensors(path, device="cpu")
    try:
        load_start(
            components.state.model,
            tensors,
            strict=config.start.strict,
            allow_missing=config.start.allow_missing,
            allow_unexpected=config.start.allow_unexpected,
            slices=components.state.slices,
        )
    except StateMismatch as error:
        raise StateMismatch(f"start.from: {what}: {error}") from None
    fresh_optimizer(components.state)  # so that a moving average starts from the new weights
