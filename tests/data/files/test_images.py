"""Decoding: Pillow's pixels, upright, in the mode and size that were asked for; else an error."""

import io
import sys
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.images import encoded, picture

from epochal.data.errors import DataError
from epochal.data.files.images import Decoding

KINDS = ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM", "GIF"]


def decoded(data, **options):
    decoding = Decoding(**options)
    return decoding.tensor(decoding.image(data, "a/b.png"))


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_those_of_pillow(kind):
    data = encoded(picture(1), kind)
    image = decoded(data)
    wanted = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).transpose(2, 0, 1)
    assert (image.dtype, tuple(image.shape)) == (torch.uint8, (3, 12, 16))
    assert image.is_contiguous()
    assert np.array_equal(image.numpy(), wanted)


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1), ("RGBA", 4)])
@pytest.mark.parametrize("stored", ["RGB", "L", "RGBA", "P", "1", "LA"])
def test_every_stored_mode_becomes_the_one_asked_for(mode, channels, stored):
    data = encoded(picture(2).convert(stored))
    image = decoded(data, mode=mode)
    wanted = np.asarray(Image.open(io.BytesIO(data)).convert(mode)).reshape(12, 16, channels)
    assert np.array_equal(image.permute(1, 2, 0).numpy(), wanted)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_an_image_is_turned_as_its_exif_says(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = decoded(encoded(picture(3), "PNG", exif=exif))
    upright = decoded(encoded(picture(3)))
    as_drawn = {
        2: upright.flip(2),
        3: upright.flip(1, 2),
        4: upright.flip(1),
        5: upright.transpose(1, 2),
        6: upright.rot90(-1, (1, 2)),
        7: upright.flip(1, 2).transpose(1, 2),
        8: upright.rot90(1, (1, 2)),
    }
    assert turned.equal(as_drawn[orientation])


def test_resize_gives_every_image_that_height_and_width():
    for height, width in ((5, 40), (33, 7)):
        data = encoded(picture(4, height, width))
        image = decoded(data, resize=(20, 10), interpolation="bicubic")
        wanted = picture(4, height, width).resize((10, 20), Image.Resampling.BICUBIC)
        assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(wanted))


def test_float32_is_from_0_to_1():
    data = encoded(picture(5))
    assert decoded(data, dtype="float32").equal(decoded(data).to(torch.float32) / 255)


def test_sixteen_bits_stay_sixteen_bits():
    deep = np.arange(0, 60_000, 2500, dtype=np.uint16).reshape(4, 6)
    data = encoded(Image.fromarray(deep))
    image = decoded(data, mode="I")
    assert (image.dtype, image.tolist()) == (torch.int32, [deep.tolist()])
    assert decoded(data, mode="I", dtype="float32").max() == pytest.approx(57_500 / 65_535)
    with pytest.raises(DataError, match="mode: I"):
        decoded(data, mode="RGB")


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_image_is_an_error_that_names_the_file(kind):
    data = encoded(picture(6, 40, 50), kind)
    for length in (0, 1, 10, len(data) // 2):
        with pytest.raises(DataError, match=r"a/b\.png.*bytes"):
            decoded(data[:length])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no image at all",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"\x89PNG\r\n\x1a\n",
    ],
)
def test_what_is_no_image_is_an_error_that_names_the_file(data):
    with pytest.raises(DataError, match=r"a/b\.png"):
        decoded(data)


def test_formats_that_start_programs_or_are_rare_are_not_read():
    for kind in ("EPS", "PDF", "TGA", "ICO"):
        with pytest.raises(DataError, match="no known format"):
            decoded(encoded(picture(1), kind))


@given(st.data())
def test_damaged_bytes_are_an_error_or_an_image(data):
    kind = data.draw(st.sampled_from(KINDS))
    damaged = bytearray(encoded(picture(7), kind))
    for _ in range(data.draw(st.integers(1, 5))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with suppress(DataError):
        assert decoded(bytes(damaged), resize=(4, 4)).shape == (3, 4, 4)


def test_a_mask_is_the_number_of_each_pixels_class():
    classes = np.arange(12, dtype=np.uint8).reshape(3, 4)
    indexed = Image.fromarray(classes).convert("P")
    indexed.putdata(classes.flatten().tolist())
    for image in (Image.fromarray(classes), indexed, Image.fromarray(classes.astype(np.uint16))):
        mask = Decoding().mask(encoded(image), "a/b.png")
        assert (mask.dtype, mask.tolist()) == (torch.int64, classes.tolist())


def test_a_mask_is_resized_to_its_nearest_pixels():
    classes = np.array([[0, 7], [200, 255]], dtype=np.uint8)
    mask = Decoding(resize=(4, 4)).mask(encoded(Image.fromarray(classes)), "a/b.png")
    assert mask.tolist() == classes.repeat(2, 0).repeat(2, 1).tolist()


def test_a_mask_in_colours_is_refused():
    with pytest.raises(DataError, match="one channel"):
        Decoding().mask(encoded(picture(8)), "a/b.png")


@pytest.mark.parametrize(
    ("given_", "text"),
    [
        ({"mode": "CMYK"}, "mode: found 'CMYK'"),
        ({"interpolation": "area"}, "interpolation"),
        ({"dtype": "float16"}, "dtype"),
        ({"resize": 224}, r"\[height, width\]"),
        ({"resize": [224]}, "resize"),
        ({"resize": [0, 4]}, "resize"),
        ({"resize": [4.0, 4]}, "resize"),
        ({"resize": [True, True]}, "resize"),
    ],
)
def test_an_argument_that_is_wrong_is_named(given_, text):
    arguments = {"mode": "RGB", "resize": None, "interpolation": "bilinear", "dtype": "uint8"}
    with pytest.raises(DataError, match=text):
        Decoding.checked(name="set", **(arguments | given_))


def test_memory_that_runs_out_is_no_damage(monkeypatch):
    def empty(*_, **__):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "load", empty)
    monkeypatch.setattr(sys.modules["PIL.ImageFile"].ImageFile, "load", empty)
    with pytest.raises(MemoryError):
        decoded(encoded(picture(9)))
