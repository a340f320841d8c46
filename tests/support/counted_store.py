"""Which operations reach the storage, of which object, and how many bytes come back."""

from contextlib import contextmanager
from dataclasses import dataclass

from epochal.data.store import open as opening


@dataclass(frozen=True)
class Operation:
    """One operation. path: of the object or folder; read_bytes: what was given out."""

    name: str
    path: str
    read_bytes: int = 0

    @property
    def is_of_artifact(self):
        """Whether it is a table or a part of a checkpoint: of a stage, named by its digest."""
        folder, _, name = self.path.rpartition("/")
        return folder.startswith("stages/") and len(name.partition(".")[0]) == 64


class CountedBackend:
    """A backend whose operations are noted."""

    def __init__(self, inner, operations):
        self._inner, self._operations = inner, operations

    def __getattr__(self, name):
        given = getattr(self._inner, name)
        if not callable(given) or name in {"map", "scratch"}:
            return given

        def noted(path, *args, **kwargs):
            answer = given(path, *args, **kwargs)
            size = len(answer) if name == "read" else 0
            self._operations.append(Operation(name, path, size))
            return answer

        return noted

    @contextmanager
    def fetch(self, path):
        with self._inner.fetch(path) as local:
            self._operations.append(Operation("fetch", path, local.stat().st_size))
            yield local


@contextmanager
def counted():
    """Inside the block: the operations of every store that is opened there, in order."""
    operations = []
    original = opening.backend_at
    opening.backend_at = lambda address: CountedBackend(original(address), operations)
    try:
        yield operations
    finally:
        opening.backend_at = original
