"""An update that is computed again, opened: a debugger before its step, a function of yours in it.

What is called there may look and keep; the random numbers that it draws are put back, so that the
update stays what it was.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from epochal.data.loading.items import kept_generators
from epochal.data.types import Batch

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from epochal.engine.model.state import TrainingState
    from epochal.engine.model.step import Step, StepOutput

# B samples of a micro-batch


@dataclass
class ReplayedUpdate:
    """Where a hook is called: one micro-batch of the update that is computed again.

    epoch: from 0. update: of the run, from 1. micro_batch: of the epoch, from 0.
    sample_ids_B: int64 of shape (B,). state: model, optimizer and all else that training changes.
    """

    epoch: int
    update: int
    micro_batch: int
    sample_ids_B: npt.NDArray[np.int64]
    state: TrainingState
    _at_gradients: list[Callable[[Any], Any]] = field(default_factory=list)

    def on_gradients(self, function: Callable[[Any], Any]) -> None:
        """Has `function(model)` called right before the optimizer's step.

        By then each parameter's `grad` is that of the whole update, clipped. An update that was
        skipped has no step.
        """
        self._at_gradients.append(function)


Hook = Callable[[Any, Any, "StepOutput", ReplayedUpdate], Any]
"""Takes the model, what the step was given, what it gave, and where it is called."""


@dataclass
class OpenedUpdate:
    """How one update is opened. hook: called after the forward pass of each of its micro-batches.

    debug: whether Python's debugger stops before the step of its first one.
    """

    epoch: int
    update: int
    row: int
    accumulate: int
    state: TrainingState
    hook: Hook | None = None
    debug: bool = False
    _batch: Batch | None = None
    _stopped: bool = False
    _at_gradients: list[Callable[[Any], Any]] = field(default_factory=list)

    def noted(self, batches: Generator[Batch, None, None]) -> Generator[Batch, None, None]:
        """The batches, of which the step is told which one it has. To close it closes them."""
        with closing(batches):
            for batch in batches:
                self._batch = batch
                yield batch

    def step(self, step: Step) -> Step:
        """The run's step, opened at the update."""
        return _OpenedStep(step, self)

    @property
    def at(self) -> ReplayedUpdate | None:
        """Where the step is now; None outside the update."""
        batch = self._batch
        if batch is None or batch.index // self.accumulate != self.row:
            return None
        return ReplayedUpdate(
            epoch=self.epoch,
            update=self.update,
            micro_batch=batch.index,
            sample_ids_B=batch.sample_ids_B,
            state=self.state,
            _at_gradients=self._at_gradients,
        )

    def call_hook(self, model: Any, batch: Any, output: StepOutput, at: ReplayedUpdate) -> None:
        """Calls it, if there is one, and prepares what it asks for."""
        if self.hook is None:
            return
        known = len(self._at_gradients)
        with kept_generators():
            self.hook(model, batch, output, at)
        if not known and self._at_gradients:
            handle = self.state.optimizer.register_step_pre_hook(lambda *_: self._gradients(handle))

    def _gradients(self, handle: Any) -> None:
        handle.remove()
        with kept_generators():
            for function in self._at_gradients:
                function(self.state.model)

    def stops_here(self) -> bool:
        """Whether the debugger is to stop now: once, at the first micro-batch."""
        stops = self.debug and not self._stopped
        self._stopped = self._stopped or stops
        return stops


class _OpenedStep:
    """The run's step, with all of its attributes."""

    def __init__(self, step: Step, opened: OpenedUpdate) -> None:
        self._step = step
        self._opened = opened

    def __getattr__(self, name: str) -> Any:
        return getattr(self._step, name)

    def __call__(self, model: Any, batch: Any) -> StepOutput:
        at = self._opened.at
        if at is None:
            return self._step(model, batch)
        if self._opened.stops_here():
            output = _debugged(self._step, model, batch, at)
        else:
            output = self._step(model, batch)
        self._opened.call_hook(model, batch, output, at)
        return output


def _debugged(step: Step, model: Any, batch: Any, at: ReplayedUpdate) -> StepOutput:
    """Stops before the step. In the debugger: `s` steps into it, `n` computes it, `c` goes on."""
    print(  # noqa: T201 - it belongs to the debugger, which prints too
        f"update {at.update} (epoch {at.epoch}, micro-batch {at.micro_batch}): model, batch, step "
        "and at are here; s steps into the step, n computes it, c goes on, q leaves"
    )
    breakpoint()  # noqa: T100 - what `--debug` asks for
    output = step(model, batch)
    return output  # noqa: RET504 - to be looked at in the debugger
