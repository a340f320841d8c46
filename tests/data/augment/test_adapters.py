"""Transforms of other libraries: seeded by sample, images with their masks and boxes."""

import numpy as np
import pytest
import torch

from epochal.data.augment import albumentations, timm, torchvision
from epochal.data.errors import DataError
from epochal.data.loading.items import kept_generators, seed_generators


@pytest.fixture
def library(monkeypatch):
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network
    return pytest.importorskip("albumentations")


def item(dtype=torch.uint8):
    """An image that is white where its mask is one and in its first box."""
    image = torch.zeros(3, 40, 50, dtype=dtype)
    mask = torch.zeros(40, 50, dtype=torch.int64)
    image[:, 10:20, 5:25] = 255 if dtype == torch.uint8 else 1.0
    mask[10:20, 5:25] = 1
    boxes = torch.tensor([[5.0, 10, 25, 20], [46, 36, 50, 40]])
    return {"image": image, "mask": mask, "boxes": boxes, "labels": torch.tensor([7, 8])}


def seeded(transform, value, given):
    with kept_generators():
        seed_generators(value)
        return transform(given)


def equal(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def check_together(transform, given):
    """What is drawn follows from the seed, and mask and boxes stay on what they mark."""
    found = [seeded(transform, value, given) for value in range(8)]
    assert all(
        equal(seeded(transform, value, given), one) for value, one in reversed([*enumerate(found)])
    )
    assert len({one["image"].numpy().tobytes() for one in found}) > 2
    for one in found:
        white = one["image"][0] > one["image"].max() / 2
        assert torch.equal(white, one["mask"] == 1)
        box = one["boxes"][one["labels"] == 7]
        y, x = torch.nonzero(white, as_tuple=True)
        tight = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()
        assert torch.allclose(box[0], tight, atol=1e-3)
    return found


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("composed", [True, False])
def test_albumentations_moves_masks_and_boxes_and_draws_by_the_seed_alone(library, dtype, composed):
    listed = [library.HorizontalFlip(p=0.5), library.RandomCrop(36, 44)]
    transform = albumentations(library.Compose(listed) if composed else listed)
    found = check_together(transform, item(dtype))
    assert {len(one["boxes"]) for one in found} == {len(one["labels"]) for one in found} == {1, 2}
    assert found[0]["image"].dtype == dtype
    assert found[0]["mask"].dtype == torch.int64


def test_albumentations_takes_pairs_arrays_and_bare_images(library):
    transform = albumentations(library.HorizontalFlip(p=1))
    whole = item()
    image, target = transform((whole["image"], 3))
    assert torch.equal(image, whole["image"].flip(-1))
    assert target == 3
    assert torch.equal(transform(whole["image"]), image)
    array = whole["image"].permute(1, 2, 0).numpy()
    assert torch.equal(transform((array, 3))[0], image)
    image, mask = transform((whole["image"], whole["mask"]))
    assert torch.equal(mask, whole["mask"].flip(-1))


def test_what_is_no_transform_of_albumentations_is_refused(library):
    with pytest.raises(DataError, match="found a dict among the transforms"):
        albumentations([{"HorizontalFlip": 0.5}])


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"rows": torch.zeros(3)}, "a dict"),
        ((torch.zeros(3), 1), r"a Tensor of shape \(3,\)"),
        ("text", "a str"),
    ],
)
def test_an_item_without_an_image_is_an_error(library, given, problem):
    with pytest.raises(DataError, match=problem):
        albumentations(library.HorizontalFlip())(given)


def importable(name):
    """The library, where it is there and fits this torch."""
    try:
        return __import__(name, fromlist=["*"])
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"{name}: {error}")


def test_torchvision_moves_masks_and_boxes_and_draws_by_the_seed_alone():
    v2 = importable("torchvision.transforms.v2")
    transform = torchvision([v2.RandomHorizontalFlip(), v2.RandomCrop((36, 44))])
    found = check_together(transform, item())
    assert all(type(part) is torch.Tensor for part in found[0].values())


def test_timm_draws_by_the_seed_alone():
    importable("timm.data")
    transform = timm(input_size=(3, 32, 32), is_training=True, auto_augment="rand-m9-mstd0.5")
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 40, 50), dtype=np.uint8))
    first, again, other = (seeded(transform, value, (image, 1))[0] for value in (1, 1, 2))
    assert first.shape == (3, 32, 32)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
