"""Bad input: one clear error, exit 2, and nothing has started: no store, no server, no run."""

import pytest
import yaml
from support.runs.project import Project, environment

BAD_DATA = """
    import torch
    from torch.utils.data import Dataset, IterableDataset, TensorDataset, random_split

    def empty():
        return TensorDataset(torch.ones(0, 6), torch.ones(0, dtype=torch.int64))

    def labels(values, size=12):
        rows = torch.tensor(values).repeat(size)[:size]
        return TensorDataset(torch.ones(size, 6), rows)

    class Ids(Dataset):
        def __init__(self, ids):
            self.ids = ids
        def __len__(self):
            return len(self.ids)
        def __getitem__(self, row):
            return {"input": torch.ones(6), "target": 0, "sample_id": self.ids[row]}

    class Stream(IterableDataset):
        def __iter__(self):
            yield torch.ones(6), 0

    class Broken(Dataset):
        def __len__(self):
            return 5
        def __getitem__(self, row):
            if row == 3:
                raise OSError("image file is truncated")
            return torch.ones(6), 0

    def nothing_left():
        return random_split(labels([0, 1]), [0, 12])[0]

    def number():
        return 3

    NOT_CALLABLE = 5
"""
MODELS = """
    from torch import nn

    def wrong_width(): return nn.Linear(5, 3)
    def right_width(): return nn.Linear(6, 3)
    def scalar(): return nn.Sequential(nn.Linear(6, 1), nn.Flatten(0))
    def no_module(): return 3
    def frozen(): return nn.Linear(6, 3).requires_grad_(False)
    def meta(): return nn.Linear(6, 3, device="meta")
    def exits(): raise SystemExit(0)
    def odd(): raise Odd("odd")

    class Odd(BaseException): pass

    class Words:
        def update(self, outputs, target): pass
        def compute(self): return "high"

    class Reads(Words):
        def compute(self): return open("/nowhere/labels.txt").read()
"""


@pytest.fixture
def project(tmp_path, tracker):
    made = Project(tmp_path / "project")
    made.write("bad.py", BAD_DATA)
    made.write("models.py", MODELS)
    made.write("sums.py", f"from model import Net\nx = {' + '.join(['1'] * 20_000)}\n")
    return made


def data(name, **args):
    return yaml.safe_dump({"target": f"bad:{name}", "args": args}, default_flow_style=True).strip()


def set_(path, value):
    return {path: value}


CASES = {
    "unknown key": (set_("epoch", 3), ["epoch", "did you mean 'epochs'"]),
    "misspelt nested key": (set_("loader__batchsize", 3), ["loader.batchsize", "'batch_size'"]),
    "wrong type": (set_("epochs", "many"), ["epochs: found 'many'", "integer"]),
    "out of range": (set_("epochs", 0), ["epochs: found 0", "greater than or equal to 1"]),
    "unknown policy": (set_("sampling__policy", "magic"), ["sampling.policy", "easy_skip"]),
    "schedule that does not fit": (
        set_("schedule", "{kind: warmup_stable_decay, decay: 9}"), ["decay 9", "4"],
    ),
    "unknown schedule": (set_("schedule", "{kind: saw}"), ["schedule.kind", "'saw'", "cosine"]),
    "no rate": (set_("optimizer__args", "{}"), ["optimizer.args.lr: found nothing"]),
    "module that is not there": (
        set_("model__target", "modell:Net"), ["model.target", "no module 'modell'"],
    ),
    "attribute that is not there": (
        set_("model__target", "model:Nett"), ["model.target", "did you mean 'Net'"],
    ),
    "target that is not callable": (
        set_("train_data", data("NOT_CALLABLE")), ["train_data.target", "is a int"],
    ),
    "target without a colon": (set_("model__target", "model.Net"), ["model.target", "module:"]),
    "target that refuses its args": (
        set_("model__args", "{widht: 3}"), ["model.args", "unexpected keyword argument 'widht'"],
    ),
    "optimizer that refuses its args": (
        set_("optimizer__args", "{lr: 0.1, momentun: 1}"), ["optimizer.args", "momentun"],
    ),
    "group that matches nothing": (
        set_("optimizer__groups", "[{match: 'haed.*'}]"),
        ["optimizer.groups: 'haed.*' matches no parameter that trains", "head.weight"],
    ),
    "option that the optimizer lacks": (
        set_("optimizer__groups", "[{match: 'head.*', momentun: 1}]"),
        ["optimizer.groups: 'momentun' of 'head.*'; AdamW has no option", "betas"],
    ),
    "everything frozen": (
        set_("optimizer__frozen", "[{match: '*', until: 2}]"), ["nothing to train in epoch 0"],
    ),
    "momentum without BatchNorm": (
        {"batch_norm": "{final_momentum: 0.01}", "model__target": "models:right_width"},
        ["batch_norm: Linear has no BatchNorm layer"],
    ),
    "updates that a policy changes": (
        set_("schedule", "{kind: step, size: 9, unit: updates}"),
        ["schedule.unit: 'updates' needs one number", "sampling.policy: 'easy_skip'"],
    ),
    "unknown metric": (set_("metrics__validation", "[accurracy]"), ["metrics.validation", "top5"]),
    "store of unknown scheme": (set_("store", "s4://bucket/x"), ["s4", "did you mean s3://"]),
    "store with one slash": (set_("store", "s3:/bucket"), ["did you mean s3://bucket"]),
    "store that is no path": (set_("store", "runs/x"), ["did you mean ./runs/x"]),
    "store below a file": (set_("store", "./model.py/store"), ["model.py", "store"]),
    "empty data": (set_("train_data", data("empty")), ["train_data", "no samples"]),
    "stream": (set_("train_data", data("Stream")), ["train_data", "map-style"]),
    "no data set": (set_("train_data", data("number")), ["train_data", "int"]),
    "duplicate ids": (
        set_("train_data", data("Ids", ids=[4, 7, 4])), ["items 0 and 2 have the same sample_id 4"],
    ),
    "negative ids": (set_("train_data", data("Ids", ids=[0, -2])), ["train_data", "-2"]),
    "item that raises": (
        set_("train_data", data("Broken")), ["train_data", "3", "image file is truncated"],
    ),
    "label above the classes": (
        set_("train_data", data("labels", values=[0, 1, 3])), ["train_data", "3", "0 to 2"],
    ),
    "label below zero": (
        set_("validation_data", data("labels", values=[0, -1])), ["validation_data", "-1"],
    ),
    "batch larger than the data": (
        {"loader__batch_size": 1000, "loader__drop_last": "true"},
        ["loader.batch_size: found 1000", "180"],
    ),
    "model of other input": (set_("model__target", "models:wrong_width"), ["model", "shapes"]),
    "no module": (set_("model__target", "models:no_module"), ["model", "torch.nn.Module"]),
    "nothing to train": (set_("model__target", "models:frozen"), ["model", "nothing to train"]),
    "policy without losses per sample": (
        set_("loss", "{target: 'torch.nn:CrossEntropyLoss', args: {reduction: mean}}"),
        ["sampling.policy", "loss per sample"],
    ),
    "accuracy of a regression": (
        {
            "loss": "{target: 'torch.nn:MSELoss'}", "sampling__policy": "none",
            "model__target": "models:scalar", "train_data": data("labels", values=[0.5, 1.5]),
            "validation_data": data("labels", values=[0.5, 1.5]),
        },
        ["metrics.validation", "'accuracy' needs outputs of shape (B, C", "[loss]"],
    ),
    "no such device": (set_("device", "cuda:9"), ["device", "cuda:9"]),
    "device of no integer": (set_("device", f"cuda:{'9' * 20}"), ["device: found 'cuda:999"]),
    "number that no float holds": (
        set_("optimizer__args", f"{{lr: 1{'0' * 400}}}"), ["optimizer.args", "larger than any"],
    ),
    "path with a NUL": (set_("folder", '"/a\\0b"'), ["folder", "the character \\0"]),
    "port that is none": (
        set_("tracking__uri", "http://127.0.0.1:99999"), ["tracking.uri", "Port out of range"],
    ),
    "module deeper than Python reads": (
        set_("model__target", "sums:Net"), ["importing 'sums' raised RecursionError"],
    ),
    "model without numbers": (
        set_("model__target", "models:meta"), ["model: weight of Linear", "`meta`"],
    ),
    "constructor that exits": (
        set_("model__target", "models:exits"), ["model: 'models:exits' raised SystemExit: 0"],
    ),
    "constructor that raises no Exception": (
        set_("model__target", "models:odd"), ["'models:odd' raised models.Odd: odd", "models.py"],
    ),
    "folder of 300 characters": (set_("store", f"./{'x' * 300}"), ["has 300 bytes", "at most 255"]),
    "store of 5000 characters": (set_("store", f"./{'x/' * 2500}"), ["store", "2000 characters"]),
    "target of 5000 characters": (
        set_("model__target", f"model:{'x' * 5000}"), ["model.target", "at most 2000"],
    ),
    "module of 300 characters": (
        set_("model__target", f"{'m' * 300}:Net"), ["model.target", "200 of each part"],
    ),
    "key of 5000 characters": (set_("k" * 5000, 1), ["there is no such key"]),
    "nothing left of a split": (
        set_("train_data", data("nothing_left")), ["train_data", "no samples"],
    ),
    "metric that computes a text": (
        set_("metrics__validation", "[{target: 'models:Words', name: words}]"),
        ["metrics.words: compute() gave a str"],
    ),
    "metric whose file is missing": (
        set_("metrics__validation", "[{target: 'models:Reads', name: reads}]"),
        ["metrics.reads: compute() raised FileNotFoundError", "/nowhere/labels.txt", "models.py"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_clear_error_before_anything_starts(case, project, monkeypatch, tmp_path):
    sets, words = CASES[case]
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    done = project("train", **sets)
    assert done.code == 2, (done.code, done.err)
    for word in words:
        assert word in done.err, done.err
    assert "Traceback" not in done.err
    assert len(done.err.splitlines()[0]) < 1200
    assert done.out == ""
    assert not list(project.store.glob("stages/*"))
    assert not list(project.store.glob("runs/*"))
    assert not (tmp_path / "prefect" / "epochal.json").exists(), "a server was started"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a\n- b\n", ["expected a mapping", "found a list"]),
        ("", ["found nothing"]),
        ("name: x\nname: y\n", ["'name' stands twice", "line 2"]),
        ("a: &x 1\nb: *x\n", ["alias"]),
        ("name: [\n", ["not valid YAML"]),
        ("x: !!python/object/apply:os.system ['true']\n", ["tag"]),
        ("\xff", ["run.yaml"]),
    ],
)
def test_a_file_that_is_no_config_is_refused(project, text, words):
    project.config.write_bytes(text.encode("latin-1"))
    done = project("train")
    assert done.code == 2
    for word in words:
        assert word in done.err


def test_an_unwritable_store_is_found_before_anything_starts(project, tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = project("train", store=str(tmp_path / "file"))
    assert done.code == 2
    assert str(tmp_path / "file") in done.err


def test_missing_credentials_are_named(project, s3_endpoint, tmp_path):
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    away = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "x")}
    with environment(**away), pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.delenv(name, raising=False)
        done = project("train", store="s3://bucket/prefix")
    assert done.code == 2, done.err
    assert "AWS_ACCESS_KEY_ID" in done.err


def test_a_missing_bucket_is_named(project, s3_endpoint):
    done = project("train", store="s3://there-is-no-such-bucket/prefix")
    assert done.code == 2, done.err
    assert "there-is-no-such-bucket" in done.err
