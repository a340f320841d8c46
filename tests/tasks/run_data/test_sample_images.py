"""`epochal samples --pictures`: every form of an image, and what is said where there is none."""

from copy import deepcopy

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from support.runs.bare_run import BareRun
from support.runs.project import Project, call

from epochal.tasks.run_data.sample_images import NoImage, image_of

GREY = np.arange(20, dtype=np.float32).reshape(4, 5)
COLOURS = np.stack([GREY, GREY + 10, GREY * 0], axis=-1)
PIL_COLOURS = Image.fromarray(COLOURS.astype(np.uint8))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (GREY, GREY),
        (torch.tensor(GREY)[None], GREY),
        (torch.tensor(GREY, dtype=torch.bfloat16), GREY),
        (torch.tensor(GREY, requires_grad=True), GREY),
        (GREY.astype(np.uint8)[:, :, None], GREY),
        (np.moveaxis(COLOURS, -1, 0), COLOURS),
        (torch.tensor(COLOURS), COLOURS),
        (np.concatenate([COLOURS, COLOURS[..., :1]], axis=-1), COLOURS),
        (PIL_COLOURS, COLOURS),
        (PIL_COLOURS.convert("P"), None),
        (GREY > 3, (GREY > 3) * 1.0),
    ],
)
def test_every_form_of_an_image_is_one(value, expected):
    found = image_of(value, name="x")
    assert (found.shape, found.dtype) == ((4, 5, 3), np.float32)
    assert (found.min(), found.max()) == (0, 1)
    if expected is not None:
        expected = np.broadcast_to(expected.reshape(4, 5, -1), (4, 5, 3))
        assert np.allclose(found, expected / expected.max(), atol=1e-6)


def test_contrast_is_the_images_own_and_odd_values_do_no_harm():
    flat = image_of(np.full((3, 3), 7.0), name="x")
    assert (flat == 0.5).all()
    odd = GREY.copy()
    odd[0, 1], odd[0, 2], odd[0, 3] = np.nan, np.inf, -np.inf
    found = image_of(odd, name="x")
    assert np.isfinite(found).all()
    assert (found[0, 1:4] == 0).all()
    assert (image_of(np.full((2, 2), np.nan), name="x") == 0.5).all()
    huge = np.array([[-3e38, 3e38], [0.0, 0.0]], dtype=np.float32)
    assert image_of(huge, name="x")[1, 1, 0] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.zeros(6), r"a Tensor of shape \(6,\)"),
        (np.zeros((2, 5, 4, 4)), r"a ndarray of shape \(2, 5, 4, 4\)"),
        (np.zeros((5, 6, 7)), ".*shape"),
        (np.zeros((1, 6)), ".*shape"),
        (np.array([["a", "b"], ["c", "d"]]), ".*shape"),
        ("a text", "a str"),
        (None, "nothing that is called `input` or `image`"),
    ],
)
def test_what_is_no_image_is_named_with_what_is_expected(value, said):
    with pytest.raises(NoImage, match=rf"x: its input is {said}.*\(H, W\), .*or a PIL image"):
        image_of(value, name="x")


PICTURES = """
    import torch
    from torch.utils.data import Dataset
    from blobs import blobs

    class Pictures(Dataset):
        def __init__(self, shape, split="train"):
            self.data, self.shape = blobs(split), shape

        def __len__(self):
            return len(self.data)

        def __getitem__(self, row):
            value, label = self.data[row]
            noise = torch.rand(())  # an augmentation: of the generator that is seeded by the id
            return {"image": (value + noise).reshape(self.shape), "label": label}
"""


@pytest.fixture
def project(tmp_path, home):
    project = Project(tmp_path / "project", epochs=2)
    project.write("pictures.py", PICTURES)
    project.write(
        "model.py",
        """
        from torch import nn

        def Net():
            return nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
        """,
    )
    return project


def drawn(project, name, *options):
    out = project.folder / name
    return call("samples", str(project.config), *options, "--pictures", str(out)), out


@pytest.mark.parametrize("order", ["suspects", "hardest", "easiest", None])
def test_the_command_draws_the_samples_asked_for(project, order):
    data = {"target": "pictures:Pictures", "args": {"shape": [1, 2, 3]}}
    config = yaml.safe_load(project.config.read_text())
    config |= {name: deepcopy(data) for name in ("train_data", "validation_data")}
    project.config.write_text(yaml.safe_dump(config))
    BareRun(project.config)()
    objects = sorted(project.store.rglob("*.*"))
    state = torch.random.get_rng_state()
    options = () if order is None else (f"--{order}", "5")
    done, out = drawn(project, "a.png", *options)
    assert done.code == 0, done.err
    assert f"pictures     {out}" in done.out
    assert out.read_bytes().startswith(b"\x89PNG")
    assert torch.equal(torch.random.get_rng_state(), state)
    again, other = drawn(project, "b.png", *options, "--json")
    assert out.read_bytes() == other.read_bytes()  # augmentation draws by the sample's id
    assert set(again.json) == {"run", "epoch", "samples", "tables"}
    assert sorted(project.store.rglob("*.*")) == objects


def test_a_run_that_is_named_by_its_name_builds_no_data_set(project):
    """What a store says that its data is must not become code."""
    BareRun(project.config)()
    out = project.folder / "a.png"
    done = call("samples", "blobs", "--store", str(project.store), "--pictures", str(out))
    assert (done.code, out.exists()) == (2, False)
    assert "name the run by its config's path instead of 'blobs'" in " ".join(done.err.split())


def test_a_data_set_without_images_is_refused_and_nothing_is_written(project):
    BareRun(project.config)()
    done, out = drawn(project, "a.png", "--hardest", "3")
    assert (done.code, out.exists()) == (2, False)
    text = " ".join(done.err.split())
    assert "--pictures: train_data: sample " in text
    assert "its input is a Tensor of shape (6,); for a picture expected a tensor" in text


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--pictures", "a.jpg"), "--pictures a.jpg: expected a name that ends with .png"),
        (("--pictures", "nowhere/a.png"), "there is no folder nowhere; make it first"),
        (("--hardest", "2000", "--pictures", "a.png"), "at most 1000 are drawn"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_data_is_read(home, options, problem):
    done = call("samples", "blobs", *options)
    assert done.code == 2
    assert problem in " ".join(done.err.split())
