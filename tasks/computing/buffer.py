"""Host memory that two processes see: what one has computed, the other hashes and stores.

A file in memory, whose descriptor a child process inherits. In it lie whole images of safetensors
files, so that they are written as they are, and arrays. It grows and is kept: new memory costs more
than the copy itself, since each page is cleared and mapped at its first touch.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from epochal.data.errors import TrainingFailed, Unavailable
from epochal.data.store.failures import advice, cause_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

PAGE_BYTES = 4096
_POPULATE = getattr(mmap, "MAP_POPULATE", 0)  # Linux: the pages are mapped at once, not one by one


@dataclass(frozen=True)
class Packed:
    """What lies in a buffer. files: name → (offset, bytes). arrays: name → (offset, dtype, shape).

    size: bytes from the buffer's start that are in use.
    """

    size: int
    files: Mapping[str, Sequence[int]] = field(default_factory=dict)
    arrays: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @property
    def document(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


class Buffer:
    """One area of memory, mapped as far as it was asked for."""

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = _new_file() if descriptor is None else descriptor
        self._file = os.fstat(self.descriptor)
        self._map: mmap.mmap | None = None
        self._using = threading.Lock()

    def allocate(self, size: int) -> None:
        """Makes the file at least `size` bytes long. From any thread.

        Raises Unavailable if memory runs out, TrainingFailed if somebody has closed the descriptor.
        """
        with self._using:
            if self._length() < size:
                self._grow(size)

    def _length(self) -> int:
        """Of the file. Whoever closes what is not theirs may have one of their own there since."""
        try:
            now = os.fstat(self.descriptor)
        except OSError:
            now = None
        if now is None or not os.path.samestat(now, self._file):
            raise TrainingFailed(
                "the code that the run calls has closed descriptors that are not its own, that of "
                "the memory for checkpoints among them. Close what your code has opened, no range "
                "as os.closerange() does. What was committed is intact, and the same command goes "
                "on from there"
            )
        return now.st_size

    def _grow(self, size: int) -> None:
        try:
            if hasattr(os, "posix_fallocate"):  # else a page that is missing would kill the process
                os.posix_fallocate(self.descriptor, 0, size)
            else:
                os.ftruncate(self.descriptor, size)
        except OSError as error:
            raise Unavailable(
                f"cannot make {size:,} bytes of memory for a checkpoint: {cause_of(error)}; "
                f"{advice(error)}, then run the same command to go on"
            ) from error

    def bytes_of(self, size: int) -> npt.NDArray[np.uint8]:
        """The first `size` bytes, uint8 of shape (size,), to read and to write."""
        import numpy as np

        if not size:
            return np.empty(0, np.uint8)
        if self._map is None or len(self._map) < size:
            length = self._length()
            self._map = mmap.mmap(self.descriptor, length, flags=mmap.MAP_SHARED | _POPULATE)
        return np.frombuffer(self._map, np.uint8, size)

    def write(self, offset: int, data: memoryview) -> None:
        """Puts bytes into the file, which is long enough, without mapping it here."""
        self._length()
        data = data.cast("B")
        while len(data):
            written = os.pwrite(self.descriptor, data, offset)
            data, offset = data[written:], offset + written

    def file(self, packed: Packed, name: str) -> memoryview:
        """The bytes of a file that was packed."""
        offset, size = packed.files[name]
        return self.bytes_of(packed.size)[offset : offset + size].data

    def array(self, packed: Packed, name: str) -> npt.NDArray[Any]:
        """A copy of an array that was packed."""
        import numpy as np

        offset, dtype, shape = packed.arrays[name]
        count = int(np.prod(shape, dtype=np.int64))
        size = count * np.dtype(dtype).itemsize
        raw = self.bytes_of(packed.size)[offset : offset + size].tobytes()
        return np.frombuffer(bytearray(raw), dtype).reshape(shape)

    def close(self) -> None:
        """Gives the descriptor back; what is mapped stays until nobody uses it."""
        with self._using:  # else memory could be asked for under the number of another file
            self._map = None
            descriptor, self.descriptor = self.descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)


def pack(
    buffer: Buffer,
    files: Mapping[str, Mapping[str, Tensor]],
    arrays: Mapping[str, npt.NDArray[Any]],
) -> Packed:
    """Copies tensors, as images of safetensors files, and arrays into the buffer.

    Nobody else may use the buffer meanwhile. Raises StateMismatch for tensors that no such file
    holds, Unavailable if memory runs out.
    """
    import numpy as np
    import torch

    from epochal.engine.checkpoint.safetensors_file import copy_safetensors, safetensors_size

    packed = places_of({name: safetensors_size(tensors) for name, tensors in files.items()}, arrays)
    buffer.allocate(packed.size)
    area = buffer.bytes_of(packed.size)
    for name, tensors in files.items():
        at, size = packed.files[name]
        copy_safetensors(tensors, torch.from_numpy(area[at : at + size]))
    for name, array in arrays.items():
        if array.nbytes:
            at = packed.arrays[name][0]
            flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            np.copyto(area[at : at + array.nbytes], flat)
    return packed


def places_of(sizes: Mapping[str, int], arrays: Mapping[str, npt.NDArray[Any]]) -> Packed:
    """Where files of such sizes and such arrays lie in a buffer."""
    end = 0
    places: dict[str, tuple[int, int]] = {}
    for name, size in sizes.items():
        places[name] = (end, size)
        end = _next_page(end + size)
    kept: dict[str, tuple[int, str, list[int]]] = {}
    for name, array in arrays.items():
        kept[name] = (end, array.dtype.str, list(array.shape))
        end = _next_page(end + array.nbytes)
    return Packed(size=end, files=places, arrays=kept)


def packed_size(files: Mapping[str, Mapping[str, Tensor]]) -> int:
    """Bytes that `pack` needs for such tensors."""
    from epochal.engine.checkpoint.safetensors_file import safetensors_size

    return sum(_next_page(safetensors_size(tensors)) for tensors in files.values())


def _next_page(offset: int) -> int:
    return -(-offset // PAGE_BYTES) * PAGE_BYTES


def _new_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("epochal-buffer", os.MFD_CLOEXEC)
    descriptor, path = tempfile.mkstemp(prefix="epochal-buffer-")
    os.unlink(path)  # noqa: PTH108 - only the descriptor is left of it
    return descriptor
