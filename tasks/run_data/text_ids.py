"""The table of a data set's text ids in the store, by which a sample's number becomes its text.

It lies in `<store>/fingerprints` beside the description of the data, under the sha256 of its bytes.
No key depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from epochal.data.hashing import file_sha256
from epochal.data.store.store import Store
from epochal.data.tables.schemas import TEXT_IDS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# N samples

MAX_SAMPLES = 1 << 22  # 400 MB of texts of 100 bytes; of larger data sets the numbers are shown


def write_text_ids(store: Store, ids_N: npt.NDArray[np.int64], texts: Sequence[str]) -> str:
    """Keeps the table and gives its sha256. ids_N: the hash of each text, int64 of shape (N,)."""
    import numpy as np

    from epochal.data.tables.writing import write_table

    columns = {"sample_id": ids_N, "text": np.array(texts, dtype=object)}
    with store.scratch() as folder:
        file = folder / "text_ids.parquet"
        write_table(columns, file, schema=TEXT_IDS, metadata={})
        sha256 = file_sha256(file)
        try:
            store.put_new(text_ids_path(sha256), file)
        except FileExistsError:
            return sha256  # its path says what it holds
    return sha256


def read_text_ids(store: Store, sha256: str) -> dict[int, str]:
    """Number → text of each sample. Raises FileNotFoundError, CorruptObject."""
    from epochal.data.tables.writing import read_table

    path = text_ids_path(sha256)
    with store.fetch_intact(path, digest=file_sha256, expected=sha256) as file:
        columns = read_table(file, schema=TEXT_IDS, max_rows=MAX_SAMPLES).columns
    return dict(zip(columns["sample_id"].tolist(), columns["text"].tolist(), strict=True))


def text_ids_path(sha256: str) -> str:
    """Where the store keeps the table."""
    return f"fingerprints/{sha256}.parquet"
