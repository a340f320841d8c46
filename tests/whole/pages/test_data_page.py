"""Each file of docs/data.md is a whole run as it stands there: data, a small model, trained."""

import re
import tarfile
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from support.runs.bare_run import BareRun
from support.runs.project import Project

from epochal.tasks.config.load import load_config

PAGE = Path(__file__).parents[3] / "docs" / "data.md"
FILES = {
    name: text
    for text in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    for name in re.findall(r"^# (\w+)\.yaml\n", text)
}
MODEL = """
    import torch
    from torch import nn

    class Images(nn.Sequential):
        def __init__(self, classes):
            super().__init__(
                nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
                nn.Linear(16, classes),
            )

    class Pixels(nn.Conv2d):
        def __init__(self, classes):
            super().__init__(3, classes, 3, padding=1)

    class Vectors(nn.Linear):
        def __init__(self, classes):
            super().__init__(5, classes)

    class Regression(nn.Linear):
        def __init__(self, features):
            super().__init__(features, 1)

        def forward(self, x):
            return super().forward(x).squeeze(1)

    class Words(nn.Module):
        def __init__(self, classes):
            super().__init__()
            self.embedding = nn.EmbeddingBag(40, 4, padding_idx=0)
            self.head = nn.Linear(4, classes)

        def forward(self, words):
            return self.head(self.embedding(words))

    class Language(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(256, 8), nn.Linear(8, 256)

        def forward(self, tokens):
            return self.head(self.embedding(tokens)).transpose(1, 2)
"""
OWN = """
    import numpy as np
    import torch

    class Measurements:
        def __init__(self, path, part):
            arrays = np.load(path)
            self.signals, self.kinds = arrays[f"{part}_signals"], arrays[f"{part}_kinds"]

        def __len__(self):
            return len(self.kinds)

        def __getitem__(self, row):
            return {"signal": torch.from_numpy(self.signals[row]), "kind": int(self.kinds[row])}
"""
DRAW = np.random.RandomState(7)


def picture(label, *, size=(40, 36)):
    """The bytes of a PNG, bluish or reddish by its label."""
    pixels = DRAW.randint(0, 120, (*size, 3)).astype(np.uint8)
    pixels[..., 2 * label] += 100
    data = BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def photos(folder):
    for row in range(20):
        name = ("cat", "dog")[row % 2]
        write(folder / "photos" / name / f"{row}.png", picture(row % 2, size=(30 + row, 40)))


def hub(folder):
    for part, count in (("train-0", 16), ("train-1", 8), ("test-0", 8)):
        rows = [{"bytes": picture(row % 2), "path": f"{row}.png"} for row in range(count)]
        table = pa.table({"image": rows, "label": [row % 2 for row in range(count)]})
        (folder / "hub").mkdir(exist_ok=True)
        pq.write_table(table, folder / "hub" / f"{part}.parquet", row_group_size=5)


def own(folder):
    arrays = {}
    for part, count in (("train", 24), ("validation", 8)):
        arrays[f"{part}_signals"] = DRAW.randn(count, 5).astype(np.float32)
        arrays[f"{part}_kinds"] = np.arange(count) % 2
    np.savez(folder / "measurements.npz", **arrays)


def sentences(folder):
    def rows(count):
        words = [DRAW.randint(1, 40, DRAW.randint(1, 9)).tolist() for _ in range(count)]
        return datasets.Dataset.from_dict(
            {"input_ids": words, "label": [row % 2 for row in range(count)]}
        )

    made = datasets.DatasetDict({"train": rows(24), "test": rows(8)})
    made.save_to_disk(folder / "sentences")


def houses(folder):
    lines = ["rooms,area,year,price"]
    lines += [f"{row % 5},{20 + row},{1950 + row},{1000 + 90.5 * row}" for row in range(30)]
    (folder / "houses.csv").write_text("\n".join(lines) + "\n")


def shards(folder):
    (folder / "shards").mkdir()
    for name, count in (("train-000", 12), ("train-001", 12), ("test-000", 8)):
        with tarfile.open(folder / "shards" / f"{name}.tar", "w") as tar:
            for row in range(count):
                for end, data in (("png", picture(row % 2)), ("cls", str(row % 2).encode())):
                    member = tarfile.TarInfo(f"{name}-{row:03d}.{end}")
                    member.size = len(data)
                    tar.addfile(member, BytesIO(data))


def masks(folder):
    for row in range(12):
        write(folder / "scenes" / f"{row}.png", picture(row % 2, size=(20, 24)))
        data = BytesIO()
        Image.fromarray(DRAW.randint(0, 2, (20, 24)).astype(np.uint8)).save(data, "PNG")
        write(folder / "masks" / f"{row}.png", data.getvalue())


def prose(folder):
    for row in range(3):
        write(folder / "books" / f"{row}.txt", b"It was the best of times. " * (60 + row))


MAKE = {
    "photos": photos,
    "hub": hub,
    "own": own,
    "sentences": sentences,
    "houses": houses,
    "shards": shards,
    "masks": masks,
    "prose": prose,
}


def test_every_file_of_the_page_is_run_here():
    assert FILES.keys() == MAKE.keys()


@pytest.fixture
def made(tmp_path, home, monkeypatch):
    monkeypatch.setenv("EPOCHAL_CACHE", str(tmp_path / "cache"))

    def make(name):
        project = Project(tmp_path / name)
        project.config = project.folder / f"{name}.yaml"
        project.config.write_text(FILES[name])
        project.write("model.py", MODEL)
        project.write("measurements.py", OWN)
        MAKE[name](project.folder)
        return project

    return make


@pytest.mark.parametrize("name", MAKE)
def test_a_file_of_the_page_has_at_most_a_few_lines_and_trains_as_it_stands(name, made):
    assert len(yaml.safe_load(FILES[name])) <= 11
    project = made(name)
    config = load_config(project.config)
    run = BareRun(project.config)
    assert not [text for text in run.notices if "its content has changed" in text]
    run()
    assert [one.stage.epoch for one in run.outcomes if one.stage.kind == "train"] == [0, 1]
    again = BareRun(project.config, epochs=3, loader__workers=0, loader__threads=0)()
    computed = {one.stage.epoch for one in again.outcomes if not one.cached}
    assert computed - {None} == {2}, config.sampling
