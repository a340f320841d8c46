"""Writes ./tumours.parquet, 569 rows that come with scikit-learn: run it once."""

from pathlib import Path

import pyarrow as pa
from pyarrow import parquet
from sklearn.datasets import load_breast_cancer

FILE = Path(__file__).parent / "tumours.parquet"


def main() -> None:
    loaded = load_breast_cancer()
    names = [name.replace(" ", "_") for name in loaded.feature_names]
    columns = dict(zip(names, loaded.data.T, strict=True))
    parquet.write_table(pa.table({**columns, "malignant": loaded.target == 0}), FILE)


if __name__ == "__main__":
    main()
