"""`epochal data show`: a batch as training sees it, drawn or as a table."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from support.runs.project import Project, call

from epochal.tasks.config.load import load_config
from epochal.tasks.report import batch as shown
from epochal.tasks.report.batch import _annotated, _displayed, show_batch

DATA = """
    import torch

    class Marked(list):
        classes = ["cat", "dog"]

        def __init__(self, size=24):
            self.samples = [(f"pets/{row}.png", row % 2) for row in range(size)]
            for row in range(size):
                image = torch.zeros(3, 20, 20, dtype=torch.uint8)
                mask = torch.zeros(20, 20, dtype=torch.int64)
                image[row % 3, 5:15, 2:8] = 255
                mask[5:15, 2:8] = 1
                boxes = torch.tensor([[2.0, 5, 8, 15]])
                self.append({"image": image, "label": row % 2, "mask": mask, "boxes": boxes})

    def pairs(size=24):
        found = Pairs((one["image"], one["label"]) for one in Marked(size))
        found.classes = Marked.classes
        return found

    class Pairs(list):
        pass

    def texts():
        return [{"input": torch.arange(9.0) + row, "target": row % 2, "text": f"row {row}"}
                for row in range(24)]
"""
NORMALIZE = {"kind": "normalize", "mean": [0.4], "std": [0.3]}


@pytest.fixture
def project(tmp_path, home, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(target, **changes):
        data = {f"{name}_data": {"target": target} for name in ("train", "validation")}
        changes = {"loader": {"batch_size": 8}, **data, **changes}
        project = Project(tmp_path / "project", **json.loads(json.dumps(changes)))  # no aliases
        project.write("pets.py", DATA)
        return project

    return make


def written(folder):
    """All files but what Python and matplotlib keep for themselves."""
    return {
        path
        for path in folder.rglob("*")
        if path.is_file() and not {"__pycache__", "home"} & {*path.relative_to(folder).parts}
    }


def show(project, *options):
    return call("data", "show", str(project.config), *options)


def test_a_batch_is_drawn_and_told_and_nothing_else_is_written(project, tmp_path):
    own = project("pets:Marked", augment={"train": [{"kind": "flip"}]})
    before = written(tmp_path)
    done = show(own, "--json")
    assert done.code == 0, done.err
    picture = tmp_path / "blobs-batch.png"
    assert written(tmp_path) == before | {picture}
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert {name: done.json[name] for name in ("run", "epoch", "batch", "batches", "out")} == {
        "run": "blobs", "epoch": 0, "batch": 0, "batches": 3, "out": picture.name,
    }  # fmt: skip
    assert done.json["input"] == "uint8 (8, 3, 20, 20)"
    for sample in done.json["samples"]:
        assert sample["path"] == f"pets/{sample['sample_id']}.png"
        assert sample["label"] == sample["sample_id"] % 2
        assert sample["class"] == ("cat", "dog")[sample["label"]]


def test_it_is_the_batch_that_training_gets_of_that_epoch_and_number(project, monkeypatch):
    from support.runs.bare_run import BareRun

    from epochal.engine.loop import epoch as loop

    augment = {"train": [{"kind": "crop", "padding": 4}, NORMALIZE], "validation": [NORMALIZE]}
    own = project(
        "pets:pairs", epochs=2, augment=augment, mixing={"mixup": 0.4}, gradients={},
        sampling={"policy": "none"}, model={"target": "net:net"},
    )  # fmt: skip
    own.write(
        "net.py",
        "from torch import nn\n\ndef net():\n"
        "    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))\n",
    )
    trained, drawn = [], []

    class Mixer(loop.Mixer):
        def __call__(self, *given):
            trained.append(super().__call__(*given))
            return trained[-1]

    monkeypatch.setattr(loop, "Mixer", Mixer)
    BareRun(own.config)()
    monkeypatch.setattr(shown, "_picture", lambda config, batch, seen, *_, **__: drawn.append(seen))
    for epoch, number in ((0, 0), (0, 2), (1, 1)):
        show_batch(load_config(own.config), epoch=epoch, number=number, notice=print)
    for seen, place in zip(drawn, (0, 2, 4), strict=True):
        assert torch.equal(seen.input, trained[place].input)
        assert torch.equal(seen.partner_target, trained[place].partner_target)


def test_mixed_samples_name_their_partners(project):
    to_float = [{"kind": "to_float"}]
    own = project(
        "pets:pairs", augment={"train": to_float, "validation": to_float}, mixing={"mixup": 1.0}
    )
    for sample in show(own, "--json").json["samples"]:
        assert 0 <= sample["mixed_with"]["share"] <= 0.5
        assert sample["mixed_with"]["class"] in {"cat", "dog"}


def test_what_holds_no_images_is_a_table(project, tmp_path):
    done = show(project("pets:texts"), "--out", "x.png")
    assert done.code == 0, done.err
    assert "no images" in done.err
    assert "sample  input" in done.out
    assert "row 16" in done.out
    assert "(9,)" in done.out
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--epoch", "9"), "epochs 0 to 3"),
        (("--batch", "3"), "batches 0 to 2"),
        (("--out", "x.jpg"), "ends with .png"),
        (("--set", "augment.train=[{kind: crop, size: 99}]", "--set", "augment.validation=[]"),
         "99 x 99"),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_an_error(project, options, problem):
    done = show(project("pets:Marked"), *options)
    assert done.code == 2
    assert problem in done.err


def test_a_policys_choice_is_said_to_be_left_out(project):
    assert "observed" in show(project("pets:texts"), "--epoch", "1").err


def test_what_normalized_an_image_is_undone(project):
    augment = {"train": [NORMALIZE], "validation": [NORMALIZE]}
    config = load_config(project("pets:pairs", augment=augment).config)
    image = torch.rand(2, 1, 4, 4)
    for found, own in zip(_displayed(config, (image - 0.4) / 0.3), image, strict=True):
        assert found.shape == (4, 4, 3)
        assert np.allclose(found[..., 1], own[0].numpy(), atol=1e-6)


def test_masks_are_tinted_and_boxes_outlined_where_they_are():
    image = np.zeros((20, 20, 3), dtype=np.float32)
    mask = torch.zeros(20, 20, dtype=torch.int64)
    mask[:, 10:] = 2
    found = _annotated(image, [mask], [torch.tensor([[1.0, 2, 7, 12], [3, 3, 3, 3]])])
    factor = len(found) // 20
    tinted = found.any(-1)
    assert tinted[:, 10 * factor :].all()
    box = tinted[:, : 10 * factor]
    y, x = np.nonzero(box)
    assert (x.min(), y.min(), x.max() + 1, y.max() + 1) == tuple(
        factor * one for one in (1, 2, 7, 12)
    )
    assert not box[4 * factor : 10 * factor, 3 * factor : 5 * factor].any()


def test_the_picture_holds_every_sample_of_a_batch(project):
    own = project("pets:Marked", augment={"train": [{"kind": "flip"}]})
    found = show_batch(load_config(own.config), epoch=0, number=0, notice=print)
    picture = np.asarray(Image.open(io.BytesIO(found.png)).convert("RGB")).astype(int)
    colours = [(230, 56, 54)]  # of the outlines
    assert (np.abs(picture - np.array(colours[0])).sum(-1) < 12).sum() > 8 * 100
