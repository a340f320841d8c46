"""A user's data set that opens what it reads at first use: right samples with any workers.

What describes the data, tries the model on it and reads it ahead are readers of one data set; where
they shared an open file, each would move the others' place in it.
"""

import sqlite3
import zipfile

import h5py
import numpy as np
import pytest
from support.numbers.drawing_data import few_processors
from support.runs.bare_run import BareRun
from support.runs.project import Project
from support.stores.s3_server import BUCKET, s3_process

COUNT, WIDTH = 160, 4096

LAZY = """
    from pathlib import Path

    import numpy as np
    import torch
    from torch import nn
    from torch.utils.data import Dataset

    class Lazy(Dataset):
        '''Row k holds the number k only; what is read otherwise is told in `wrong`.'''

        def __init__(self, path, wrong, count, width, first=0):
            self.path, self.wrong, self.count, self.width = path, wrong, count, width
            self.first, self.handle = first, None

        def __len__(self):
            return self.count

        def __getitem__(self, row):
            if row >= self.count:
                raise IndexError(row)
            if self.handle is None:
                self.handle = self.open()
            found = self.read(row + self.first)
            if found.shape != (self.width,) or (found != row + self.first).any():
                with Path(self.wrong).open("a") as told:
                    told.write(f"{row + self.first}: {found[:4]}\\n")
            return torch.from_numpy(found[:6].astype(np.float32)) / 100, row % 3

        def __del__(self):
            if hasattr(self.handle, "close"):
                self.handle.close()

    class Plain(Lazy):
        def open(self):
            return Path(self.path).open("rb")

        def read(self, row):
            self.handle.seek(row * self.width * 8)
            return np.frombuffer(self.handle.read(self.width * 8), dtype=np.int64)

    class Zip(Lazy):
        def open(self):
            import zipfile
            return zipfile.ZipFile(self.path)

        def read(self, row):
            return np.frombuffer(self.handle.read(str(row)), dtype=np.int64)

    class Hdf5(Lazy):
        def open(self):
            import h5py
            return h5py.File(self.path)["rows"]

        def read(self, row):
            return self.handle[row]

    class Sqlite(Lazy):
        def open(self):
            import sqlite3
            return sqlite3.connect(self.path, check_same_thread=False)

        def read(self, row):
            (data,) = self.handle.execute("select data from rows where id = ?", (row,)).fetchone()
            return np.frombuffer(data, dtype=np.int64)

    class S3(Lazy):
        def open(self):
            import fsspec
            return fsspec.filesystem("s3").open(self.path, "rb", block_size=1 << 16)

        def read(self, row):
            self.handle.seek(row * self.width * 8)
            return np.frombuffer(self.handle.read(self.width * 8), dtype=np.int64)
"""


def rows():
    return np.repeat(np.arange(COUNT, dtype=np.int64)[:, None], WIDTH, axis=1)


def plain(path):
    path.write_bytes(rows().tobytes())


def zipped(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for row, values in enumerate(rows()):
            archive.writestr(str(row), values.tobytes())


def hdf5(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("rows", data=rows(), chunks=(4, WIDTH), compression="gzip")


def sqlite(path):
    database = sqlite3.connect(path)
    database.execute("create table rows (id integer primary key, data blob)")
    database.executemany(
        "insert into rows values (?, ?)",
        [(row, values.tobytes()) for row, values in enumerate(rows())],
    )
    database.commit()
    database.close()


@pytest.fixture(scope="module")
def bucket():
    """A server in a process of its own: this one forks workers."""
    import boto3
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()  # of another test's server
    with s3_process():
        boto3.client("s3").put_object(Bucket=BUCKET, Key="rows.bin", Body=rows().tobytes())
        yield f"s3://{BUCKET}/rows.bin"
    S3FileSystem.clear_instance_cache()


KINDS = {"Plain": plain, "Zip": zipped, "Hdf5": hdf5, "Sqlite": sqlite}


def check(kind, tmp_path, request, *, workers, times=1):
    path = tmp_path / "rows"
    if kind == "S3":
        path = request.getfixturevalue("bucket")
    else:
        KINDS[kind](path)
    wrong = tmp_path / "wrong.txt"
    args = {"path": str(path), "wrong": str(wrong), "width": WIDTH}
    held_out = COUNT // 4
    for time in range(times):
        project = Project(
            tmp_path / f"project-{time}",
            epochs=2,
            train_data={
                "target": f"lazy:{kind}",
                "args": {**args, "count": COUNT - held_out},
            },
            validation_data={
                "target": f"lazy:{kind}",
                "args": {**args, "count": held_out, "first": COUNT - held_out},
            },
            sampling={"policy": "none"},
            loader={"batch_size": 8, "workers": workers},
        )
        project.write("lazy.py", LAZY)
        BareRun(project.config)()
        assert not wrong.exists(), wrong.read_text()


@few_processors
@pytest.mark.parametrize(
    "kind",
    [
        "Plain",
        "S3",
        *(pytest.param(one, marks=pytest.mark.slow) for one in KINDS if one != "Plain"),
    ],
)
def test_a_file_that_is_opened_at_first_use_gives_right_samples_with_workers(
    kind, tmp_path, home, request
):
    check(kind, tmp_path, request, workers=4)


@few_processors
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("workers", [0, 4])
@few_processors
@pytest.mark.parametrize("kind", [*KINDS, "S3"])
def test_a_file_that_is_opened_at_first_use_gives_right_samples_each_time(
    kind, workers, tmp_path, home, request
):
    check(kind, tmp_path, request, workers=workers, times=20)
