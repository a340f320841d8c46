"""What an epoch is at: words that the loop calls out as it goes from one to the next.

The loop measures nothing and knows no clock; who listens may.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from epochal.data.types import Batch

Phase = Literal["data", "forward_backward", "communication", "optimizer"]
"""data: waiting for the next batch. forward_backward: from the batch to the gradients, and waiting
for the device. communication: with the other processes of a group, and waiting for them. optimizer:
from the gradients to the new weights."""

DATA: Literal["data"] = "data"
FORWARD_BACKWARD: Literal["forward_backward"] = "forward_backward"
COMMUNICATION: Literal["communication"] = "communication"
OPTIMIZER: Literal["optimizer"] = "optimizer"


def announced(batches: Iterable[Batch], on_phase: Callable[[Phase], None]) -> Iterator[Batch]:
    """The batches; before each one is asked for `on_phase` is told, and once it is there."""
    on_phase(DATA)
    for batch in batches:
        on_phase(FORWARD_BACKWARD)
        yield batch
        on_phase(DATA)
    on_phase(FORWARD_BACKWARD)  # what the device still does, and the caller waits for


def to_nobody(phase: Phase) -> None:
    """Drops the word."""
