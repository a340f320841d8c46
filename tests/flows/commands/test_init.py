"""`epochal init`: what it writes trains at once, and says what it saw."""

import numpy as np
import pytest
import yaml
from PIL import Image
from support.runs.bare_run import BareRun
from support.runs.project import Project, call

from epochal.tasks.config.load import load_config

DRAW = np.random.RandomState(3)


def photos(folder, *, classes=("cat", "dog"), count=10, size=(20, 24), grey=False):
    """A folder of images with a folder for each class."""
    for label, name in enumerate(classes):
        for row in range(count):
            pixels = DRAW.randint(0, 90, (size[0] + row % 3, size[1], 3)).astype(np.uint8)
            pixels[..., label % 3] += 120
            if grey:
                pixels[:] = pixels[..., :1]
            file = folder / name / f"{row}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
    return folder


def csv(path, columns):
    """A CSV file of these columns."""
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


SIGNALS = """
    import torch
    from torch import nn
    from torch.utils.data import Dataset

    class Signals(Dataset):
        def __init__(self, size=60):
            self.size = size

        def __len__(self):
            return self.size

        def __getitem__(self, row):
            own = torch.Generator().manual_seed(row)
            return {"signal": torch.randn(6, generator=own) + row % 3, "label": row % 3}

    class InParts(Signals):
        def __init__(self, split):
            super().__init__({"train": 40, "val": 20}[split])

    class Net(nn.Module):
        def __init__(self, num_classes, in_channels=1, depth=1):
            super().__init__()
            self.pool = nn.AdaptiveAvgPool2d(1)
            self.head = nn.Linear(in_channels, num_classes)

        def forward(self, image):
            return self.head(self.pool(image).flatten(1))
"""


@pytest.fixture
def folder(tmp_path, home, monkeypatch):
    monkeypatch.setenv("EPOCHAL_CACHE", str(tmp_path / "cache"))
    made = Project(tmp_path / "own").folder
    for file in made.iterdir():
        file.unlink()
    Project.write(type("In", (), {"folder": made}), "signals.py", SIGNALS)
    monkeypatch.chdir(made)
    return made


def init(*arguments):
    done = call("init", *arguments, "--yes", "--json")
    assert done.code == 0, done.err
    return done.json


def trained(written, **sets):
    """An epoch of what was written, without servers."""
    run = BareRun(written["config"], epochs=1, loader__workers=0, **sets)()
    assert not [text for text in run.notices if "cannot" in text]
    return run.view.config


def test_a_folder_of_images_trains_at_once(folder):
    photos(folder / "photos")
    written = init("./photos")
    assert (written["kind"], written["name"]) == ("images", "photos")
    assert written["files"] == ["photos.yaml", "model.py"]
    assert written["found"]["classes"].startswith("2: cat, dog")
    assert written["next"][1] == "epochal train photos.yaml"
    config = trained(written, model__args__width=4)
    assert config.train_data.args["resize"] == [32, 32]


def test_training_and_validation_folders_are_taken_as_they_are(folder):
    photos(folder / "d" / "train", size=(30, 30), grey=True)
    photos(folder / "d" / "val", size=(30, 30), count=4)
    config = load_config(folder / init("./d", "--out", "made")["config"])
    assert config.train_data.args == {"path": "../d/train", "mode": "L", "resize": [32, 32]}
    assert config.validation_data.args["path"] == "../d/val"
    assert config.model.args["channels"] == 1


def test_a_model_of_ones_own_is_given_what_is_known_of_the_data(folder):
    photos(folder / "photos")
    written = init("photos", "--model", "signals:Net", "--args", '{"depth": 2}')
    assert written["files"] == ["photos.yaml"]
    assert trained(written).model.args == {"num_classes": 2, "in_channels": 3, "depth": 2}


def test_a_table_with_texts_ids_and_gaps_trains_towards_a_number(folder):
    towns = ["x", "y", "z"] * 20
    csv(
        folder / "houses.csv",
        {
            "id": range(60),
            "rooms": [row % 5 for row in range(60)],
            "area": ["" if row == 7 else 20 + row for row in range(60)],
            "town": towns,
            "remark": [f"nice {row}" for row in range(60)],
            "price": [1e5 + 90.5 * row for row in range(60)],
        },
    )
    written = init("houses.csv")
    assert [note.split("'")[1] for note in written["notes"]] == ["remark", "area"]
    config = trained(written)
    assert config.train_data.args["ids"] == "id"
    assert config.train_data.args["categories"] == {"town": ["x", "y", "z"]}
    assert config.loss.target == "torch.nn:MSELoss"
    assert config.model.args["mean"] == pytest.approx(102_670, rel=1e-3)


def test_whole_numbers_that_do_not_count_from_0_become_classes(folder):
    csv(
        folder / "wine.csv",
        {"quality": [3 + row % 4 for row in range(40)], "acid": [row / 40 for row in range(40)]},
    )
    config = trained(init("wine.csv", "--target", "quality"))
    assert config.train_data.args["classes"] == [3, 4, 5, 6]
    assert config.model.args == {"features": 1, "classes": 4}


def test_texts_train_at_once(folder):
    (folder / "books").mkdir()
    (folder / "books" / "one.txt").write_text("It was the best of times. " * 60)
    written = init("./books")
    assert (written["kind"], written["found"]["windows"]) == ("text", "11, and 1 (10 %) held out")
    trained(written, model__args__width=8)


@pytest.mark.parametrize(
    ("source", "files"),
    [
        ("signals:Signals", ["signals.yaml", "parts.py", "model.py"]),
        ("signals:InParts", ["inparts.yaml", "model.py"]),
        (None, ["own.yaml", "data.py", "model.py"]),
    ],
)
def test_a_data_set_of_ones_own_or_a_stub_of_one_trains_at_once(source, files, folder):
    written = init(*(["--kind", "dataset"] if source is None else [source]))
    assert sorted(written["files"]) == sorted(files)
    config = trained(written)
    assert {"signals:Signals": "parts:part"}.get(source, source or "data:Data") == (
        config.train_data.target
    )


def test_nothing_is_ever_overwritten(folder):
    photos(folder / "photos")
    (folder / "model.py").write_text("mine\n")
    done = call("init", "photos", "--yes")
    assert done.code == 2
    assert "model.py: there already, and nothing is overwritten" in " ".join(done.err.split())
    assert (folder / "model.py").read_text() == "mine\n"
    assert not (folder / "photos.yaml").exists()


def test_texts_of_yaml_are_quoted_where_they_have_to_be(folder):
    photos(folder / "a: b, [c]")
    written = init("./a: b, [c]", "--name", "1e5")
    config = yaml.safe_load((folder / written["config"]).read_text())
    assert (config["name"], config["train_data"]["args"]["path"]) == ("1e5", "./a: b, [c]")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "what is to be trained on?"),
        (("./nowhere",), "is not there"),
        (("--kind", "video"), "expected one of images, table, text, dataset, lightning"),
        (("t.csv", "--target", "z"), "no such column; it has a, b"),
        (("t.csv", "--target", "a"), "is 1 in every row"),
        (("t.csv", "--model", "signals:Nat"), "did you mean 'Net'?"),
        (("t.csv", "--name", "../x"), "expected up to 100 letters"),
        (("t.csv", "--args", "{}"), "--args: is for dataset"),
        (("flat",), "lie directly in it; expected a folder for each class"),
        (("signals:Net",), "epochal init DATA --model signals:Net"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(arguments, told, folder):
    csv(folder / "t.csv", {"a": [1] * 20, "b": [row % 2 for row in range(20)]})
    photos(folder / "flat", classes=(".",))
    before = sorted(folder.iterdir())
    done = call("init", *arguments, "--yes")
    assert done.code == 2
    assert told in " ".join(done.err.split())
    assert sorted(path for path in folder.iterdir() if path.name != "__pycache__") == before


LIT = """
    import lightning
    import torch
    from torch.nn import functional
    from signals import Signals

    class Lit(lightning.LightningModule):
        def __init__(self, width=8):
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.Linear(6, width), torch.nn.Linear(width, 3))

        def training_step(self, batch, batch_idx):
            return functional.cross_entropy(self.net(batch["signal"]), batch["label"])

        def on_train_epoch_end(self):
            print("an epoch")

        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 3)]

    class Data(lightning.LightningDataModule):
        def train_dataloader(self):
            return torch.utils.data.DataLoader(Signals(48), batch_size=12, shuffle=True)

        def val_dataloader(self):
            return torch.utils.data.DataLoader(Signals(12), batch_size=12)
"""


@pytest.mark.parametrize("data", ["lit:Data", "signals:Signals"])
def test_a_lightning_module_trains_at_once_and_says_what_is_lost(data, folder):
    pytest.importorskip("lightning")
    Project.write(type("In", (), {"folder": folder}), "lit.py", LIT)
    written = init("lit:Lit", "--data", data, "--args", '{"width": 4}')
    assert written["kind"] == "lightning"
    assert written["notes"] == ["the run does without: on_train_epoch_end (docs/moving-in.md)"]
    assert written["found"]["schedule"] == "StepLR, stepped each epoch"
    config = trained(written)
    assert config.optimizer.args == {"lr": 0.05, "scheduler": "schedule"}
    assert config.loader.batch_size == (12 if data == "lit:Data" else 32)


def test_a_model_of_hugging_face_is_fine_tuned_on_a_table_of_texts(folder):
    transformers = pytest.importorskip("transformers")
    words = {word: row for row, word in enumerate(["[PAD]", "[UNK]", "good", "bad"])}
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel(words, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained("bert")
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=4, intermediate_size=16, **shape)
    transformers.BertForSequenceClassification(config).save_pretrained("bert")
    texts = [f"{'good' if row % 2 else 'bad'} thing {row}" for row in range(40)]
    csv(folder / "reviews.csv", {"review": texts, "sentiment": [row % 2 for row in range(40)]})
    written = init("./bert", "--data", "reviews.csv")
    assert written["found"]["label"] == "sentiment: 2 classes"
    config = trained(written, loader__batch_size=8)
    assert config.model.files == ("./bert",)


def test_what_it_trains_on_must_be_given(folder):
    done = call("init", "--kind", "huggingface", "bert", "--yes")
    assert (done.code, "--data: is missing" in done.err) == (2, True)
