"""All digests and all counter-based random numbers, each tagged with its kind.

Nothing else in the project calls a hash function, so a change here is a change of every key;
`tests/data/test_hashing.py` pins golden values.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import xxhash

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

BLOCK_BYTES = 1 << 20
_CHECKSUM = re.compile(r"[0-9a-f]{32}")
SIGNIFICANT_DIGITS = 12  # of a float in a key: 0.1 + 0.2 and 0.3 are the same rate


def canonical_float(value: float) -> float:
    """`value` at 12 significant digits; -0.0 becomes 0.0. ValueError if it is not finite."""
    if not math.isfinite(value):
        message = f"a key cannot hold {value!r}"
        raise ValueError(message)
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}") + 0.0


def canonical(value: Any) -> Any:
    """`value` as plain JSON data: mappings with string keys, lists, canonical floats."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return canonical_float(value)
    if isinstance(value, Mapping):
        return {str(key): canonical(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [canonical(item) for item in value]
    message = f"a key cannot hold a {type(value).__name__}: {value!r}"
    raise TypeError(message)


def canonical_json(value: Any) -> bytes:
    """`value` as JSON: equal values give equal bytes. Sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(
        canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


def digest(kind: str, value: Any) -> str:
    """Hex sha256 of `value`, tagged with `kind`: equal values of two kinds never collide."""
    return hashlib.sha256(canonical_json(["epochal", kind, value])).hexdigest()


def bytes_sha256(data: bytes | memoryview) -> str:
    """Hex sha256 of the bytes alone, as `sha256sum` prints it."""
    return hashlib.sha256(data).hexdigest()


def stream_sha256(stream: BinaryIO) -> str:
    """Hex sha256 of what is left in `stream`, read in blocks of 1 MiB."""
    return _of_stream(stream, BytesDigest())


def _of_stream(stream: BinaryIO, digest: BytesDigest) -> str:
    while block := stream.read(BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes, as `sha256sum` prints it."""
    with path.open("rb") as stream:
        return stream_sha256(stream)


class _Hasher(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


class BytesDigest:
    """A running sha256 of bytes alone: what `sha256sum` prints of the file that they make."""

    def __init__(self) -> None:
        self._hasher: _Hasher = hashlib.sha256()

    def update(self, data: bytes | memoryview) -> None:
        """Adds the bytes; other threads run meanwhile."""
        self._hasher.update(data)

    def hexdigest(self) -> str:
        """In hexadecimal, of the bytes added so far."""
        return self._hasher.hexdigest()


class Checksum(BytesDigest):
    """A running xxh3_128 of bytes alone, in 32 digits: detects damage, but no deliberate change.

    For commits inside an epoch, which are written often and deleted when the epoch is done: it
    takes less processor time from the training than sha256, docs/performance.md.
    """

    def __init__(self) -> None:
        self._hasher = xxhash.xxh3_128()


def is_checksum(text: str) -> bool:
    """Whether `text` is 32 lower-case hexadecimal digits."""
    return _CHECKSUM.fullmatch(text) is not None


def file_checksum(path: Path) -> str:
    """The `Checksum` of a file's bytes, as `xxhsum -H2` prints it."""
    with path.open("rb") as stream:
        return _of_stream(stream, Checksum())


class _Parts:
    """Adds parts to a hash, so that no two contents have equal bytes."""

    _hasher: Any

    def add(self, tag: str, data: bytes | memoryview) -> None:
        """Adds one part; (`a`, `bc`) and (`ab`, `c`) differ."""
        view = memoryview(data).cast("B")
        self._hasher.update(f"{len(tag)}:{tag}:{view.nbytes}:".encode())
        self._hasher.update(view)


class ContentDigest(_Parts):
    """A running sha256 over parts, each framed by its tag and length."""

    def __init__(self, kind: str) -> None:
        self._hasher = hashlib.sha256(canonical_json(["epochal", kind]))

    def hexdigest(self) -> str:
        """Hex sha256 of the parts added so far."""
        digest: str = self._hasher.hexdigest()
        return digest

    def add_framed(self, data: bytes) -> None:
        """Adds parts that `FramedParts` has framed, as if each were added here."""
        self._hasher.update(data)


class FramedParts(_Parts):
    """Parts as `ContentDigest` takes them, kept to be added to one. data: their bytes."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._hasher = self

    def update(self, data: bytes | memoryview) -> None:
        """Adds bytes as they are."""
        self.data += data


class QuickDigest(_Parts):
    """A running 64-bit checksum over parts, framed as by `ContentDigest`: to find equal ones."""

    def __init__(self) -> None:
        self._hasher = xxhash.xxh3_64()

    def value(self) -> int:
        """In [0, 2**64)."""
        value: int = self._hasher.intdigest()
        return value


def quick_digests(rows_NX: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """A 64-bit checksum of each row: uint8 of shape (N, X), contiguous, to uint64 of shape (N,)."""
    import numpy as np

    values = map(xxhash.xxh3_64_intdigest, rows_NX)
    return np.fromiter(values, dtype=np.uint64, count=len(rows_NX))


def seed_64(*parts: int | str) -> int:
    """An integer in [0, 2**63) from a tagged tuple: seeds of the generators (blake2b, 1 µs)."""
    text = "\x1f".join(str(part) for part in parts)
    value = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(value, "little") >> 1


def text_id(text: str) -> int:
    """The whole number in [0, 2**63) that stands for a sample's text id: ids of tables are int64.

    Raises UnicodeEncodeError for a text that UTF-8 cannot hold.
    """
    value = hashlib.blake2b(text.encode(), digest_size=8, person=b"sample_id").digest()
    return int.from_bytes(value, "little") >> 1


def hash_u64(ids_N: npt.NDArray[np.int64], *stream: int | str) -> npt.NDArray[np.uint64]:
    """A counter-based random 64-bit number for each id, independent of the ids around it.

    ids_N: int64 of shape (N,). `stream` names the use (seed, epoch, purpose): another stream is
    another sequence. Two rounds of the finaliser of splitmix64 (Steele, Lea & Flood 2014,
    doi:10.1145/2660193.2660195).
    """
    import numpy as np

    offset = np.uint64(seed_64("stream", *stream))
    with np.errstate(over="ignore"):
        state = np.asarray(ids_N, dtype=np.int64).astype(np.uint64)
        for key in (offset, offset ^ np.uint64(0x9E3779B97F4A7C15)):
            state = (state + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + key
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state


def hash_uniform(ids_N: npt.NDArray[np.int64], *stream: int | str) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each id: the upper 53 bits of `hash_u64`. Shape (N,)."""
    return as_uniform(hash_u64(ids_N, *stream))


def as_uniform(hash_N: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each hash: its upper 53 bits. Shape (N,)."""
    import numpy as np

    return (hash_N >> np.uint64(11)).astype(np.float64) * 2.0**-53


def hash_repeated(
    ids_N: npt.NDArray[np.int64], repeats_N: npt.NDArray[np.int64] | None, *stream: int | str
) -> npt.NDArray[np.uint64]:
    """`hash_u64` of samples that come more than once: another number each time.

    repeats_N: how often the id came before, int64 of shape (N,), or None where each comes once. At
    its first occurrence a sample gets the number that `hash_u64` gives.
    """
    import numpy as np

    hash_N = hash_u64(ids_N, *stream)
    if repeats_N is not None:
        again = repeats_N > 0
        with np.errstate(over="ignore"):
            counted = hash_N[again] + repeats_N[again].astype(np.uint64)
        hash_N[again] = hash_u64(counted.view(np.int64), *stream, "repeat")
    return hash_N
