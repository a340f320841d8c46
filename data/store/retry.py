"""Tries operations again while a storage does not answer.

For seconds anywhere on remote storage, where a request now and then is refused; for a minute once
a run is at work, so that a server that is away for some time does not end a run of days. Not so
long while it starts, where a misspelt endpoint should be an error soon.
"""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from epochal.data.errors import ConfigError
from epochal.data.store.backend import Backend, R, T, UnfinishedUpload
from epochal.data.store.failures import cause_of, is_transient, storage_errors

VARIABLE = "EPOCHAL_STORE_PATIENCE_SECONDS"
DEFAULT_S = 60.0
HURRIED_S = 5.0  # what a run that is being ended still waits: it has some 20 s for all it does
BRIEFLY_S = 4.0  # of one request: some five tries where the answer comes at once
FIRST_PAUSE_S, MAX_PAUSE_S = 0.25, 2.0

# Pauses must not be those of other clients, and must not come from Python's global generator, from
# which the training may draw. This one has no state, so forked processes do not share it either.
_random = random.SystemRandom()


def tried(
    operation: Callable[[], R],
    *,
    left_s: Callable[[], float] = lambda: BRIEFLY_S,
    tell: Callable[[Exception], None] = lambda _: None,
) -> R:
    """What `operation` gives, tried again while its error may pass by itself.

    left_s: from the first failure to the last try, asked before each. tell: told of each failure.
    """
    failed_s: float | None = None
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            return operation()
        except storage_errors() as error:
            if not is_transient(error):
                raise
            now_s = time.monotonic()
            failed_s = now_s if failed_s is None else failed_s
            if now_s - failed_s + pause_s > left_s():
                raise
            tell(error)
        # A storage that is away tells nobody when it is back, so it is asked; without a pause
        # between two tries all clients would ask a server that starts again without end.
        time.sleep(_random.uniform(pause_s / 2, pause_s))
        pause_s = min(2 * pause_s, MAX_PAUSE_S)


@dataclass(frozen=True)
class RetryPolicy:
    """How long is waited, and who is told.

    seconds: from the first failure to the last try. hurried: asked before each further try.
    notice: told once until the storage answers again, perhaps from another thread.
    """

    seconds: float
    hurried: Callable[[], bool] = lambda: False
    notice: Callable[[str], None] = lambda _: None

    @classmethod
    def of_environment(
        cls, *, hurried: Callable[[], bool], notice: Callable[[str], None]
    ) -> RetryPolicy:
        """What `EPOCHAL_STORE_PATIENCE_SECONDS` says, else a minute. Raises ConfigError."""
        text = os.environ.get(VARIABLE, "")
        try:
            seconds = float(text) if text else DEFAULT_S
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds < float("inf"):
            raise ConfigError(f"{VARIABLE}: {text!r} is not a number of seconds, 0 or more")
        return cls(seconds, hurried, notice)

    @property
    def left_s(self) -> float:
        """How long one operation is tried, as things stand now."""
        return min(self.seconds, HURRIED_S) if self.hurried() else self.seconds


class RetryingBackend:
    """A backend whose operations are tried again while its storage does not answer.

    An operation whose answer was lost may have happened: then its second try says FileExistsError
    or FileNotFoundError, as `Backend` has it for both of two callers.
    """

    def __init__(self, inner: Backend, patience: RetryPolicy) -> None:
        self._inner = inner
        self._patience = patience
        self.exclusive = inner.exclusive
        self._told = False

    def _tried(self, operation: Callable[[], R]) -> R:
        answer = tried(operation, left_s=lambda: self._patience.left_s, tell=self._tell)
        self._told = False
        return answer

    def _tell(self, error: Exception) -> None:
        if not self._told:
            self._told = True
            self._patience.notice(
                f"the store does not answer ({cause_of(error)}); it is tried again for "
                f"{self._patience.seconds:.0f} s, and the training goes on as long as it can"
            )

    def put_new(self, path: str, source: bytes | Path) -> None:
        """As the backend below, once it answers."""
        handed_over = isinstance(source, Path) and source.exists()

        def put() -> None:
            try:
                self._inner.put_new(path, source)
            except FileNotFoundError:
                if handed_over and isinstance(source, Path) and not source.exists():
                    # A try whose answer was lost has taken the file: the object is there.
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from None
                raise

        self._tried(put)

    def read(self, path: str, *, max_bytes: int) -> bytes:
        """As the backend below, once it answers."""
        return self._tried(lambda: self._inner.read(path, max_bytes=max_bytes))

    def size(self, path: str) -> int | None:
        """As the backend below, once it answers."""
        return self._tried(lambda: self._inner.size(path))

    def listing(self, folder: str) -> dict[str, int]:
        """As the backend below, once it answers."""
        return self._tried(lambda: self._inner.listing(folder))

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """As the backend below."""
        return self._inner.map(function, items)

    def delete(self, path: str) -> None:
        """As the backend below, once it answers."""
        self._tried(lambda: self._inner.delete(path))

    def move(self, path: str, target: str) -> None:
        """As the backend below, once it answers."""
        self._tried(lambda: self._inner.move(path, target))

    @contextmanager
    def fetch(self, path: str) -> Iterator[Path]:
        """As the backend below, once it answers."""
        with ExitStack() as stack:
            yield self._tried(lambda: stack.enter_context(self._inner.fetch(path)))

    def forget(self, path: str) -> None:
        """As the backend below."""
        self._inner.forget(path)

    def unfinished_uploads(self, *, quiet_s: float) -> list[UnfinishedUpload]:
        """As the backend below, once it answers."""
        return self._tried(lambda: self._inner.unfinished_uploads(quiet_s=quiet_s))

    def abort_upload(self, upload: UnfinishedUpload) -> None:
        """As the backend below, once it answers."""
        self._tried(lambda: self._inner.abort_upload(upload))

    def scratch(self) -> AbstractContextManager[Path]:
        """As the backend below."""
        return self._inner.scratch()
