"""Cancel and Pause, in Prefect's UI, while a stage is at work: it commits, and the run ends so.

Before Prefect's runner sends SIGTERM it asks the flow's process whether it will take the signal
for a cancellation. The process says no unless Prefect's own handler is in place; but our stages
note signals themselves, and hand them to that handler once they have committed
(`epochal.tasks.trainer.interruption`). So the answer is given here.

A run that a command started has no runner: nobody would send it a signal. And a pause reaches a
run of a deployment between two tasks only, which may be hours apart. So each run looks for both.
"""

from __future__ import annotations

import contextvars
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from types import FrameType
from typing import TYPE_CHECKING

from prefect._internal import control_listener
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext
from prefect.exceptions import Pause, TerminationSignal
from prefect.utilities import engine

from epochal.data.errors import Interrupted
from epochal.flows.flow_run.client import server_errors

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

LOOK_EVERY_S = 3.0
"""For Cancel, at the server; a request costs it some milliseconds."""
PAUSE_EVERY_S = 0.5
"""For Pause, of which Prefect itself has told this process."""
_Action = Callable[[], None]
_QUESTION = "commit_control_intent_and_ack"


class CancelledInPrefectError(TerminationSignal):
    """Somebody has pressed Cancel on the page of a run that a command started."""


class _Steering:
    """What somebody asks of a run at work: noticed in a thread, obeyed as a signal is."""

    def __init__(self, look_every_s: float) -> None:
        context = FlowRunContext.get()
        if context is None or context.flow_run is None:
            raise RuntimeError("steered() is for the inside of a flow")
        self._run = context.flow_run
        self._pause = context.flow_run_suspension_request
        self._every_s = PAUSE_EVERY_S if self._has_runner else look_every_s
        self._cancelled, self._over = False, threading.Event()
        self._thread = threading.Thread(
            target=contextvars.copy_context().run,
            args=(self._look,),
            name="epochal-steering",
            daemon=True,
        )

    @property
    def _has_runner(self) -> bool:
        """Whether a worker or runner started the run, which also cancels it."""
        return self._run.deployment_id is not None

    @contextmanager
    def by_signal(self) -> Iterator[None]:
        """Inside the block SIGTERM means what was asked for; of the main thread only."""
        self._before = signal.signal(signal.SIGTERM, self._obey)
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            if signal.getsignal(signal.SIGTERM) == self._obey:
                signal.signal(signal.SIGTERM, self._before)
            self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(self._every_s):
            if self._pause.is_requested():
                os.kill(os.getpid(), signal.SIGTERM)
                return
            if not self._has_runner and _is_cancelling(self._run):
                self._cancelled = True
                control_listener._set_intent("cancel")  # noqa: SLF001 - as its own reader does
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def _obey(self, number: int, frame: FrameType | None) -> None:
        state = self._pause.get_state()
        if state is not None:
            raise Pause(state=state)
        if self._cancelled:
            raise CancelledInPrefectError(signal=number)
        if callable(self._before):
            self._before(number, frame)


@contextmanager
def steered(*, look_every_s: float = LOOK_EVERY_S) -> Iterator[None]:
    """Inside a flow: Cancel and Pause reach it in the middle of a stage, which commits first."""
    question = getattr(control_listener, _QUESTION)
    setattr(control_listener, _QUESTION, _accept)
    in_main = threading.current_thread() is threading.main_thread()
    try:
        with _Steering(look_every_s).by_signal() if in_main else nullcontext():
            yield
    finally:
        setattr(control_listener, _QUESTION, question)


@contextmanager
def telling_of_cancellation() -> Iterator[None]:
    """Around the call of a flow by a command: raises Interrupted for a Cancel in Prefect's UI."""
    try:
        yield
    except CancelledInPrefectError as error:
        raise Interrupted(
            "the run was cancelled in Prefect's UI; what was committed is intact, run the same "
            "command to go on"
        ) from error
    finally:
        control_listener.clear_intent()


def _is_cancelling(run: FlowRun) -> bool:
    with suppress(*server_errors(), RuntimeError), get_client(sync_client=True) as client:
        state = client.read_flow_run(run.id).state
        return state is not None and state.type in {StateType.CANCELLING, StateType.CANCELLED}
    return False


def _accept(
    commit_intent: _Action,
    clear_intent: _Action,
    send_ack: _Action,
    trigger_cancel: _Action | None = None,
) -> bool:
    """Prefect's own function, but without its check that the handler of SIGTERM is Prefect's."""
    with engine._prefect_sigterm_bridge_lock:  # noqa: SLF001 - the lock of its teardown
        if engine._prefect_sigterm_handler_depth == 0:  # noqa: SLF001
            return False
        commit_intent()
        try:
            send_ack()
        except OSError:
            clear_intent()
            return False
        if trigger_cancel is not None:
            trigger_cancel()
        return True
