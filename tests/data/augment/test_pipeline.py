"""A batch's augmentation is a function of each sample alone, and masks and boxes move with it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from epochal.data.augment import pipeline
from epochal.data.augment.geometry import draw_windows
from epochal.data.augment.pictures import Draws
from epochal.data.augment.pipeline import Augmentation
from epochal.data.config.augment import AugmentConfig
from epochal.data.errors import DataError

SEED, EPOCH = 5, 2
ALL = (
    {"kind": "resize", "shorter": 26},
    {"kind": "flip"},
    {"kind": "flip", "vertical": True, "probability": 0.3},
    {"kind": "crop", "padding": 3, "border": "reflect"},
    {"kind": "affine", "degrees": 25, "translate": 0.1, "scale": [0.8, 1.2]},
    {"kind": "resized_crop", "size": [19, 21]},
    {"kind": "center_crop", "size": [17, 19]},
    {"kind": "color", "brightness": 0.4, "contrast": 0.4, "saturation": 0.4},
    {"kind": "grayscale", "probability": 0.5},
    {"kind": "noise", "std": 0.1},
    {"kind": "normalize", "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25]},
    {"kind": "erase", "probability": 0.5},
)


def augmentation(*operations, part="train", seed=SEED, epoch=EPOCH, **more):
    config = AugmentConfig.model_validate({part: operations, "validation": [], **more})
    return Augmentation(config, "train", seed=seed, epoch=epoch)


def batch(count=64, size=(23, 31), dtype=torch.uint8):
    """Images, masks and boxes around the pixels of a rectangle in each."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (count, 3, *size), generator=generator, dtype=torch.uint8)
    mask = torch.randint(0, 5, (count, *size), generator=generator)
    corner = torch.rand(count, 2, 2, generator=generator) * 10
    boxes = torch.cat([corner, corner + 2 + corner.flip(0)], dim=-1)
    image = image if dtype == torch.uint8 else image.to(dtype) / 255
    return {"image": image, "mask": mask, "boxes": boxes, "label": torch.arange(count)}


def ids_of(count):
    return np.arange(count, dtype=np.int64) * 7 + 3


def sliced(data, rows):
    return {name: part[rows] for name, part in data.items()}


def same_bytes(first, second):
    return all(
        first[name].dtype == second[name].dtype
        and first[name].numpy().tobytes() == second[name].numpy().tobytes()
        for name in first
    )


@pytest.fixture
def torch_threads():
    """Their number is as before after the test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_sample_is_the_same_to_the_last_bit_in_batches_of_any_size_on_any_threads(
    dtype, torch_threads
):
    data, ids, change = batch(dtype=dtype), ids_of(64), augmentation(*ALL)
    whole = None
    for threads in (2, 1):
        torch.set_num_threads(threads)
        for size in (64, 1, 2, 3, 7):
            parts = [
                change(sliced(data, slice(at, at + size)), ids[at : at + size])
                for at in range(0, 64, size)
            ]
            found = {name: torch.cat([part[name] for part in parts]) for name in data}
            whole = found if whole is None else whole
            assert same_bytes(found, whole), (threads, size)


@settings(max_examples=25, deadline=None)
@given(
    order=st.permutations(range(12)),
    picked=st.lists(st.sampled_from(ALL), min_size=1, max_size=4),
    height=st.integers(20, 40),
    width=st.integers(20, 40),
)
def test_a_sample_does_not_depend_on_its_neighbours(order, picked, height, width):
    kinds = [one["kind"] for one in picked]
    in_order = sorted(picked, key=lambda one: one["kind"] == "normalize")
    if kinds.count("normalize") > 1:
        in_order = [one for one in in_order if one["kind"] != "normalize"]
    in_order = [one for one in in_order if one["kind"] != "center_crop"] or [{"kind": "flip"}]
    change, ids = augmentation(*in_order), ids_of(12)
    data, rows = batch(12, (height, width), torch.float32), np.array(order)
    whole = change(data, ids)
    shuffled = change(sliced(data, rows), ids[rows])
    assert same_bytes(shuffled, sliced(whole, rows))
    assert same_bytes(change(sliced(data, rows[:5]), ids[rows[:5]]), sliced(whole, rows[:5]))


def test_batches_that_are_worked_on_in_pieces_are_the_same(monkeypatch):
    data, ids = batch(), ids_of(64)
    repeats = np.arange(64, dtype=np.int64) % 2
    whole = augmentation(*ALL)(data, ids, repeats)
    monkeypatch.setattr(pipeline, "CHUNK_BYTES", 5 * 3 * 23 * 31 * 4)
    assert same_bytes(augmentation(*ALL)(data, ids, repeats), whole)


def test_another_seed_epoch_sample_or_repeat_is_augmented_otherwise():
    data, ids = batch(8), ids_of(8)
    first = augmentation(*ALL)(data, ids)["image"]
    assert torch.equal(augmentation(*ALL)(data, ids)["image"], first)
    for other in (
        augmentation(*ALL, seed=6)(data, ids),
        augmentation(*ALL, epoch=3)(data, ids),
        augmentation(*ALL)(data, ids + 1),
        augmentation(*ALL)(data, ids, np.ones(8, dtype=np.int64)),
    ):
        assert not torch.equal(other["image"], first)


def test_two_operations_of_a_kind_draw_numbers_of_their_own():
    half = {"kind": "noise", "std": 1.0}
    image = torch.zeros(2, 1, 8, 8)
    once, twice = (augmentation(*[half] * times)((image,), ids_of(2))[0] for times in (1, 2))
    assert not torch.allclose(twice, 2 * once)


def test_an_operation_draws_the_same_whatever_stands_before_it():
    data, ids = batch(8), ids_of(8)
    flipped = augmentation({"kind": "flip"})(data, ids)
    after = augmentation({"kind": "color", "contrast": 0.2}, {"kind": "flip"})(data, ids)
    assert torch.equal(flipped["mask"], after["mask"])


def test_the_batch_that_was_given_is_left_as_it_is():
    data = batch(4, dtype=torch.float32)
    kept = {name: part.clone() for name, part in data.items()}
    augmentation(*ALL)(data, ids_of(4))
    assert same_bytes(data, kept)


def draws(*use, kind, count=64):
    return Draws(ids_of(count), None, (SEED, EPOCH, kind, 0)).uniform(*use)


def test_a_flip_mirrors_the_samples_drawn_for_it_with_masks_and_boxes():
    data = batch()
    found = augmentation({"kind": "flip"})(data, ids_of(64))
    chosen = draws("whether", kind="flip") < 0.5
    assert 20 < chosen.sum() < 44
    for row, flips in enumerate(chosen):
        x0, y0, x1, y1 = data["boxes"][row].unbind(-1)
        boxes = torch.stack([31 - x1, y0, 31 - x0, y1], -1) if flips else data["boxes"][row]
        expected = {name: data[name][row].flip(-1) if flips else data[name][row] for name in data}
        assert torch.equal(found["image"][row], expected["image"])
        assert torch.equal(found["mask"][row], expected["mask"])
        assert torch.equal(found["boxes"][row], boxes)


@pytest.mark.parametrize(
    ("border", "mode"), [("fill", "constant"), ("edge", "replicate"), ("reflect", "reflect")]
)
def test_a_crop_is_a_piece_of_the_padded_image(border, mode):
    data = batch(dtype=torch.float32)
    change = augmentation({"kind": "crop", "padding": 4, "border": border}, mask_fill=9)
    found = change(data, ids_of(64))
    padded = functional.pad(data["image"], (4,) * 4, mode=mode)
    mask = functional.pad(data["mask"][:, None].double(), (4,) * 4, mode=mode, **(
        {"value": 9} if border == "fill" else {}
    )).long()[:, 0]  # fmt: skip
    tops = (draws("row", kind="crop") * 9).astype(int)
    lefts = (draws("column", kind="crop") * 9).astype(int)
    assert {*tops} == {*lefts} == {*range(9)}
    for row, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        assert torch.equal(found["image"][row], padded[row, :, top : top + 23, left : left + 31])
        assert torch.equal(found["mask"][row], mask[row, top : top + 23, left : left + 31])
        moved = data["boxes"][row] + 4 - torch.tensor([left, top, left, top])
        limit = torch.tensor([31.0, 23, 31, 23])
        assert torch.equal(found["boxes"][row], moved.clamp(min=0).minimum(limit))


def test_a_resized_crop_is_torchs_interpolation_of_the_piece_that_is_drawn():
    data = batch(dtype=torch.float32)
    found = augmentation({"kind": "resized_crop", "size": 16})(data, ids_of(64))
    windows = draw_windows(
        (23, 31),
        area=(0.08, 1),
        ratio=(3 / 4, 4 / 3),
        draws=Draws(ids_of(64), None, (SEED, EPOCH, "resized_crop", 0)),
    )
    for row, (top, left, height, width) in enumerate(windows):
        piece = data["image"][row, :, top : top + height, left : left + width]
        resized = functional.interpolate(piece[None], (16, 16), mode="bilinear", antialias=True)
        assert torch.equal(found["image"][row], resized[0])


def test_pieces_have_areas_and_proportions_as_asked_and_lie_anywhere():
    own = Draws(np.arange(3000), None, ("pieces",))
    windows = np.array(draw_windows((100, 200), area=(0.1, 0.4), ratio=(0.5, 2), draws=own))
    tops, lefts, heights, widths = windows.T
    areas, ratios = heights * widths / 20000, widths / heights
    assert 0.098 < areas.min() < 0.11
    assert 0.38 < areas.max() < 0.405
    assert abs(areas.mean() - 0.25) < 0.02
    assert 0.48 < ratios.min() < 0.53
    assert 1.9 < ratios.max() < 2.05
    assert abs(np.log(ratios).mean()) < 0.1
    assert abs(((tops + 0.5) / (100 - heights + 1)).mean() - 0.5) < 0.02
    assert abs(((lefts + 0.5) / (200 - widths + 1)).mean() - 0.5) < 0.02


def test_an_image_into_which_no_piece_fits_gives_its_middle():
    image = torch.arange(400.0).reshape(1, 1, 2, 200)
    change = augmentation({"kind": "resized_crop", "size": 2, "area": [0.9, 1]})
    (found,) = change((image,), ids_of(1))
    middle = image[..., 98:101]  # 2 x 4/3 pixels wide, rounded
    resized = functional.interpolate(middle, (2, 2), mode="bilinear", antialias=True)
    assert torch.equal(found, resized)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_resize_is_torchs_and_masks_take_the_nearest_pixel(dtype):
    data = batch(dtype=dtype)
    found = augmentation({"kind": "resize", "size": [12, 40]})(data, ids_of(64))
    expected = functional.interpolate(data["image"], (12, 40), mode="bilinear", antialias=True)
    assert torch.equal(found["image"], expected)
    mask = functional.interpolate(data["mask"][:, None].double(), (12, 40), mode="nearest-exact")
    assert torch.equal(found["mask"], mask.long()[:, 0])
    factor = torch.tensor([40 / 31, 12 / 23, 40 / 31, 12 / 23])
    limit = torch.tensor([40.0, 12, 40, 12])
    assert torch.allclose(found["boxes"], (data["boxes"] * factor).minimum(limit))


def test_a_resize_by_the_shorter_side_keeps_proportions():
    found = augmentation({"kind": "resize", "shorter": 46})(batch(2), ids_of(2))
    assert found["image"].shape == (2, 3, 46, 62)


def test_an_affine_map_of_nothing_is_the_image_and_a_quarter_turn_turns_all_parts():
    data = batch(4, (20, 20), torch.float32)
    still = augmentation({"kind": "affine", "degrees": 1e-9})(data, ids_of(4))
    assert torch.allclose(still["image"], data["image"], atol=1e-4)
    assert torch.equal(still["mask"], data["mask"])
    quarter = augmentation({"kind": "affine", "degrees": 180, "scale": [0.5, 0.5]})
    found = quarter(data, ids_of(4))
    side = found["boxes"][..., 2:] - found["boxes"][..., :2]
    assert (side >= 0).all()
    assert (side <= 20).all()


@pytest.mark.parametrize("kind", ["flip", "vertical", "crop", "resized_crop", "affine"])
def test_a_mask_and_a_box_stay_on_what_they_mark(kind):
    operation = {
        "flip": {"kind": "flip", "probability": 1},
        "vertical": {"kind": "flip", "vertical": True, "probability": 1},
        "crop": {"kind": "crop", "padding": 6},
        "resized_crop": {"kind": "resized_crop", "size": 48, "area": [0.6, 1]},
        "affine": {"kind": "affine", "degrees": 40, "translate": 0.05, "scale": [0.8, 1.2]},
    }[kind]
    mask = torch.zeros(16, 64, 64, dtype=torch.int64)
    mask[:, 20:40, 24:34] = 1
    data = {
        "image": mask[:, None].float(),
        "mask": mask,
        "boxes": torch.tensor([[[24.0, 20, 34, 40]]]).repeat(16, 1, 1),
    }
    found = augmentation(operation)(data, ids_of(16))
    for row in range(16):
        marked = found["mask"][row] == 1
        assert (found["image"][row, 0][marked] > 0.4).float().mean() > 0.95
        assert (found["image"][row, 0][~marked] < 0.6).float().mean() > 0.98
        y, x = torch.nonzero(marked, as_tuple=True)
        tight = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()
        assert (found["boxes"][row, 0] - tight).abs().max() <= (2.5 if kind == "affine" else 1.01)


def test_values_are_changed_by_the_formulas_that_they_are_documented_with():
    data = batch(dtype=torch.uint8)
    image = data["image"].float() / 255
    grey = 0.2989 * image[:, :1] + 0.587 * image[:, 1:2] + 0.114 * image[:, 2:]

    def of(operation):
        return augmentation(operation)(data, ids_of(64))["image"]

    def factors(name):
        drawn = 1 + 0.4 * (2 * draws(name, kind="color") - 1)
        return torch.tensor(drawn, dtype=torch.float32).reshape(-1, 1, 1, 1)

    bright, contrast, saturation = map(factors, ("brightness", "contrast", "saturation"))
    assert torch.equal(of({"kind": "to_float"}), image)
    found = of({"kind": "color", "brightness": 0.4})
    assert torch.equal(found, (image * bright).clamp(0, 1))
    found = of({"kind": "color", "contrast": 0.4})
    mean = grey.mean((1, 2, 3), keepdim=True)
    expected = (contrast * image + (1 - contrast) * mean).clamp(0, 1)
    assert torch.allclose(found, expected, atol=1e-5)
    found = of({"kind": "color", "saturation": 0.4})
    expected = (saturation * image + (1 - saturation) * grey).clamp(0, 1)
    assert torch.allclose(found, expected, atol=1e-6)
    found = of({"kind": "grayscale", "probability": 1})
    assert torch.allclose(found, grey.expand_as(image), atol=1e-6)
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.25])
    normalized = of({"kind": "normalize", "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25]})
    assert torch.equal(normalized, (image - mean[:, None, None]) / std[:, None, None])


def test_what_is_erased_is_one_rectangle_of_a_size_within_the_bounds():
    image = torch.ones(200, 1, 40, 40)
    change = augmentation({"kind": "erase", "probability": 0.5, "area": [0.1, 0.2]})
    (found,) = change((image,), ids_of(200))
    shares = []
    for one in found[:, 0]:
        y, x = torch.nonzero(one == 0, as_tuple=True)
        if len(y):
            assert (one[y.min() : y.max() + 1, x.min() : x.max() + 1] == 0).all()
            shares.append(len(y) / 1600)
    assert 70 < len(shares) < 130
    assert 0.08 < min(shares) < max(shares) < 0.22


def test_noise_is_normal_and_no_two_values_have_the_same():
    (found,) = augmentation({"kind": "noise", "std": 0.5})((torch.zeros(8, 3, 50, 50),), ids_of(8))
    assert abs(float(found.mean())) < 0.01
    assert abs(float(found.std()) - 0.5) < 0.01
    flat = found.reshape(8, -1)
    assert (torch.corrcoef(flat) - torch.eye(8)).abs().max() < 0.05
    beside = torch.stack([flat[:, 1:].flatten(), flat[:, :-1].flatten()])
    assert abs(float(torch.corrcoef(beside)[0, 1])) < 0.02


def test_what_is_kept_and_what_has_another_size_is_left_alone():
    data = batch(4) | {"depth": torch.ones(4, 23, 31), "text": ["a"] * 4, "row": torch.ones(4, 31)}
    change = augmentation({"kind": "crop", "size": 8}, keep=["depth"])
    found = change(data, ids_of(4))
    assert found["image"].shape == (4, 3, 8, 8)
    assert found["mask"].shape == (4, 8, 8)
    assert found["depth"] is data["depth"]
    assert found["text"] is not None
    assert found["row"] is data["row"]


def test_pairs_and_nested_targets_keep_their_form():
    data = batch(4)
    given = [
        data["image"],
        {"masks": data["mask"], "boxes": data["boxes"], "labels": torch.ones(4)},
    ]
    image, target = augmentation({"kind": "crop", "size": 8})(given, ids_of(4))
    assert image.shape == (4, 3, 8, 8)
    assert target["masks"].shape == (4, 8, 8)
    assert float(target["boxes"].max()) <= 8


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ((torch.zeros(4, 6), torch.zeros(4)), r"torch.float32 of shape \(4, 6\)"),
        ((torch.zeros(4, 3, 8, 8).long(), torch.zeros(4)), "torch.int64"),
        ({"x": torch.zeros(4, 3, 8, 8)}, "a dict of x"),
    ],
)
def test_a_batch_without_images_is_an_error(data, found):
    with pytest.raises(DataError, match=found):
        augmentation({"kind": "flip"})(data, ids_of(4))


@pytest.mark.parametrize(
    ("operation", "problem"),
    [
        ({"kind": "crop", "size": 40}, "images are 23 x 31"),
        ({"kind": "center_crop", "size": 40}, "a resize before it"),
        ({"kind": "crop", "padding": 23, "border": "reflect"}, "to reflect"),
        ({"kind": "normalize", "mean": [1, 2], "std": [1, 1]}, "3 channels"),
    ],
)
def test_an_operation_that_does_not_fit_the_images_is_an_error(operation, problem):
    with pytest.raises(DataError, match=problem):
        augmentation(operation)(batch(4), ids_of(4))


def test_values_that_color_is_not_meant_for_are_refused_where_it_is_asked():
    config = AugmentConfig.model_validate({"train": [{"kind": "color", "brightness": 0.2}]})
    checking = Augmentation(config, "train", seed=1, epoch=0, checks=True)
    with pytest.raises(DataError, match="from 0 to 255"):
        checking((torch.linspace(0, 255, 4 * 3 * 64).reshape(4, 3, 8, 8),), ids_of(4))
    checking((torch.full((4, 3, 8, 8), 255, dtype=torch.uint8),), ids_of(4))
