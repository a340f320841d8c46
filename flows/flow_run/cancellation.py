"""Cancel, in Prefect's UI, while a stage is at work: a cancellation, not a crash.

Before Prefect's runner sends SIGTERM it asks the flow's process whether it will take the signal
for a cancellation. The process says no unless Prefect's own handler is in place; but our stages
note signals themselves, and hand them to that handler once they have committed
(`epochal.tasks.trainer.interruption`). So the answer is given here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prefect._internal import control_listener
from prefect.utilities import engine

_Action = Callable[[], None]
_QUESTION = "commit_control_intent_and_ack"


@contextmanager
def cancellable() -> Iterator[None]:
    """Inside a flow: Prefect may cancel it although a stage handles the signal itself."""
    before = getattr(control_listener, _QUESTION)
    setattr(control_listener, _QUESTION, _accept)
    try:
        yield
    finally:
        setattr(control_listener, _QUESTION, before)


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
