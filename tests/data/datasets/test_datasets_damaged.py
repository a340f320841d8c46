"""Tables, arrays and token files of any bytes: an error that names the file, or what it says."""

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal.data.datasets.arrays import arrays
from epochal.data.datasets.table import table
from epochal.data.datasets.text import text
from epochal.data.errors import DataError

KINDS = ("csv", "parquet", "feather", "npy", "npz", "pt", "safetensors")
X = np.arange(40, dtype=np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    whole = pa.table({"x": X, "y": X.astype(np.int64), "t": [f"text {one}" for one in X]})
    pa.csv.write_csv(whole, folder / "a.csv")
    pa.parquet.write_table(whole, folder / "a.parquet")
    pa.feather.write_feather(whole, folder / "a.feather")
    np.save(folder / "a.npy", X)
    np.savez(folder / "a.npz", x=X)
    torch.save({"x": torch.from_numpy(X)}, folder / "a.pt")
    safetensors.numpy.save_file({"x": X}, folder / "a.safetensors")
    return folder


def read(path, kind):
    if kind in {"csv", "parquet", "feather"}:
        table(str(path), "x", ["y"], ids="t")
        return table(str(path), "y", ["x"])
    if kind == "npy":
        text(str(path), 2)
    return arrays(str(path)) if kind == "npy" else arrays("x", path=str(path))


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    cut=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=3),
)
def test_a_damaged_file_is_an_error_that_names_it_or_is_read(files, kind, cut, changes):
    data = bytearray((files / f"a.{kind}").read_bytes())
    for place, value in changes:
        data[int(place * len(data))] = value
    if not changes:
        data = data[: int(cut * len(data))]
    path = files / f"damaged.{kind}"
    path.write_bytes(data)
    message = f"damaged.{kind}"
    try:
        assert len(read(path, kind)) > 0
    except DataError as error:
        message = str(error)
    assert f"damaged.{kind}" in message
