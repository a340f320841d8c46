"""Tables of a data set that the store keeps beside its description, each under its sha256.

The texts that are ids of samples, by the hashes that stand for them; ids and labels where reading
them again would take long; the samples that are left out. No key depends on their bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from epochal.data.errors import CorruptObject
from epochal.data.hashing import bytes_sha256, file_sha256
from epochal.data.inspection.item_reader import BadSample
from epochal.data.store.store import Store
from epochal.data.tables.schemas import BAD_SAMPLES, KNOWN_SAMPLES, TEXT_IDS, Schema

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# N samples

MAX_SAMPLES = 1 << 22  # 400 MB of texts of 100 bytes; of larger data sets the numbers are shown
MAX_KNOWN = 1 << 31
MAX_TABLE_BYTES = 1 << 32


def table_path(sha256: str) -> str:
    """Where the store keeps such a table."""
    return f"fingerprints/{sha256}.parquet"


def write_text_ids(store: Store, ids_N: npt.NDArray[np.int64], texts: Sequence[str]) -> str:
    """Keeps the table and gives its sha256. ids_N: the hash of each text, int64 of shape (N,)."""
    import numpy as np

    columns = {"sample_id": ids_N, "text": np.array(texts, dtype=object)}
    return _write(store, columns, TEXT_IDS)


def read_text_ids(store: Store, sha256: str) -> dict[int, str]:
    """Number → text of each sample. Raises FileNotFoundError, CorruptObject."""
    columns = _read(store, sha256, TEXT_IDS, max_rows=MAX_SAMPLES)
    return dict(zip(columns["sample_id"].tolist(), columns["text"].tolist(), strict=True))


def write_known_samples(
    store: Store, ids_N: npt.NDArray[np.int64], labels_N: npt.NDArray[np.int64] | None
) -> str:
    """Keeps ids and labels by position, int64 of shape (N,), and gives the table's sha256."""
    import numpy as np

    positions_N = np.arange(len(ids_N), dtype=np.int64)
    labels_N = np.full(len(ids_N), -1, dtype=np.int64) if labels_N is None else labels_N
    columns = {"position": positions_N, "sample_id": ids_N, "label": labels_N}
    return _write(store, columns, KNOWN_SAMPLES)


def read_known_samples(
    store: Store, sha256: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ids and labels by position. Raises FileNotFoundError, CorruptObject."""
    columns = _read(store, sha256, KNOWN_SAMPLES, max_rows=MAX_KNOWN)
    return columns["sample_id"], columns["label"]


def write_bad_samples(store: Store, bad: Sequence[BadSample]) -> str:
    """Keeps the samples that are left out, and gives the table's sha256."""
    import numpy as np

    columns = {
        "position": np.array([one.position for one in bad], dtype=np.int64),
        "path": np.array([one.path or "" for one in bad], dtype=object),
        "error": np.array([one.error for one in bad], dtype=object),
    }
    return _write(store, columns, BAD_SAMPLES)


def read_bad_samples(store: Store, sha256: str) -> list[BadSample]:
    """The samples that are left out. Raises FileNotFoundError, CorruptObject."""
    columns = _read(store, sha256, BAD_SAMPLES, max_rows=MAX_KNOWN)
    rows = zip(*(columns[name].tolist() for name in ("position", "error", "path")), strict=True)
    return [BadSample(position, error, path or None) for position, error, path in rows]


def _write(store: Store, columns: Mapping[str, Any], schema: Schema) -> str:
    from epochal.data.tables.writing import write_table

    with store.scratch() as folder:
        file = folder / f"{schema.name}.parquet"
        write_table(columns, file, schema=schema, metadata={})
        sha256 = file_sha256(file)
        try:
            store.put_new(table_path(sha256), file)
        except FileExistsError:
            return sha256  # its path says what it holds
    return sha256


def _read(store: Store, sha256: str, schema: Schema, *, max_rows: int) -> Mapping[str, Any]:
    from epochal.data.tables.writing import read_table

    path = table_path(sha256)

    def intact(data: bytes) -> bytes:
        if bytes_sha256(data) != sha256:
            raise CorruptObject(f"{store.address(path)} has not the digest that its name says")
        return data

    data = store.read_intact(path, intact, max_bytes=MAX_TABLE_BYTES)
    with store.scratch() as folder:
        file = folder / "table.parquet"
        file.write_bytes(data)
        return read_table(file, schema=schema, max_rows=max_rows).columns
