"""Tables, arrays, Parquet and text that were mangled: a read, or an error that names the file."""

import io

import numpy as np
import pyarrow as pa
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import feather, parquet
from support.stores.malformed_bytes import mangled, mutated, told
from support.stores.tar_files import picture

from epochal.data.datasets import arrays, parquet_images, table, text
from epochal.data.errors import DataError, EpochalError
from epochal.data.types import Target
from epochal.tasks.user_code.targets import call_target

pytestmark = [
    pytest.mark.filterwarnings("ignore:Generating overly large repr"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
FEW = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
MANY = settings(FEW, max_examples=2000)
ROWS = 12


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EPOCHAL_CACHE", str(tmp_path / "cache"))


def written(write):
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


COLUMNS = pa.table(
    {
        "a": np.arange(ROWS, dtype=np.float32),
        "b": np.arange(ROWS, dtype=np.int64),
        "label": [["cat", "dog"][row % 2] for row in range(ROWS)],
    }
)
PICTURES = pa.table(
    {
        "image": [{"bytes": picture(row), "path": f"{row}.png"} for row in range(ROWS)],
        "label": pa.array([row % 3 for row in range(ROWS)], pa.int64()),
    }
)
NUMBERS = {"x": np.arange(24, dtype=np.float32).reshape(12, 2), "y": np.arange(12) % 2}
TENSORS = {name: torch.from_numpy(values) for name, values in NUMBERS.items()}


def read_table(path):
    return table(str(path), target="label")


def read_named(path):
    return arrays("x", "y", path=str(path))


FILES = {
    "hub.parquet": (
        written(lambda stream: parquet.write_table(PICTURES, stream, row_group_size=5)),
        lambda path: parquet_images(str(path)),
    ),
    "zstd.parquet": (
        written(lambda stream: parquet.write_table(PICTURES, stream, compression="zstd")),
        lambda path: parquet_images(str(path)),
    ),
    "table.parquet": (written(lambda stream: parquet.write_table(COLUMNS, stream)), read_table),
    "table.feather": (written(lambda stream: feather.write_feather(COLUMNS, stream)), read_table),
    "table.csv": (COLUMNS.to_pandas().to_csv(index=False).encode(), read_table),
    "x.npy": (
        written(lambda stream: np.save(stream, NUMBERS["x"])),
        lambda path: arrays(str(path)),
    ),
    "both.npz": (written(lambda stream: np.savez(stream, **NUMBERS)), read_named),
    "packed.npz": (written(lambda stream: np.savez_compressed(stream, **NUMBERS)), read_named),
    "both.safetensors": (safetensors.torch.save(TENSORS), read_named),
    "both.pt": (written(lambda stream: torch.save(TENSORS, stream)), read_named),
    "a.txt": (b"Die Katze tritt die Treppe krumm. " * 3, lambda path: text(str(path), 8)),
}


def check_file(name, data, folder):
    path = folder / name
    path.write_bytes(data)
    try:
        opened = FILES[name][1](path)
        items = [opened[place] for place in range(len(opened))]
    except DataError as error:
        told(error, path.name)
        return
    assert len(items) == len(opened)


@pytest.mark.parametrize("name", FILES)
def test_a_mangled_file_is_read_or_named(name, tmp_path):
    @FEW
    @given(mangled(FILES[name][0]))
    def check(data):
        check_file(name, data, tmp_path)

    check()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", FILES)
def test_a_mangled_file_is_read_or_named_each_time(name, tmp_path):
    @MANY
    @given(
        mangled(FILES[name][0]).flatmap(
            lambda data: st.one_of(st.just(data), mangled(data)) if data else st.just(data)
        )
    )
    def check(data):
        check_file(name, data, tmp_path)

    check()


ARGS = {
    "parquet_images": {
        "path": "./hub.parquet",
        "image": "image",
        "label": "label",
        "split": {"part": "train", "fraction": 0.2, "seed": 0},
        "resize": [4, 5],
    },
    "table": {
        "path": "./table.csv",
        "target": "label",
        "features": ["a", "b"],
        "split": {"part": "train", "fraction": 0.2, "seed": 0},
        "classes": ["cat", "dog"],
        "dtype": "float32",
    },
    "arrays": {"input": "x", "target": "y", "path": "./both.npz", "dtype": "float32"},
    "text": {"path": "./a.txt", "window": 8},
}


@pytest.mark.parametrize("name", ARGS)
def test_mutated_arguments_of_a_data_set_are_refused_by_name_or_taken(name, tmp_path):
    for file, (data, _) in FILES.items():
        (tmp_path / file).write_bytes(data)

    @FEW
    @given(mutated(ARGS[name]))
    def check(args):
        try:
            target = Target.model_validate(
                {"target": f"epochal.data.datasets:{name}", "args": args}
            )
        except ValueError:  # of the config's own reading
            return
        try:
            call_target(target, field="train_data", folder=tmp_path)
        except EpochalError as error:
            assert any(one in str(error) for one in (name, "args", "path")), error  # noqa: PT017

    check()
