"""A contact sheet, by what is drawn: order of the images, their orientation, what is below each."""

import io

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image
from support.drawn import Drawn

from epochal.tasks.report.contact_sheet import captions, sheet_figure, sheet_png
from epochal.tasks.report.figures import DARK, LIGHT
from epochal.tasks.report.samples import SampleView

COLOURS = [(0.1 * number, 0.2, 1 - 0.1 * number) for number in range(8)]


def plain(colour, high=4, wide=4):
    return np.full((high, wide, 3), colour, dtype=np.float32)


def test_images_are_in_reading_order_and_each_has_its_own_text_below():
    texts = [f"text {number}" for number in range(8)]
    drawn = Drawn(sheet_figure([plain(colour) for colour in COLOURS], texts, columns=3))
    (panel,) = drawn.figure.axes
    by_text = {text.get_text(): drawn.box_of_text(text) for text in panel.texts}
    boxes = [drawn.box(colour) for colour in COLOURS]
    for number, (left, top, right, bottom) in enumerate(boxes):
        row, column = divmod(number, 3)
        assert left == pytest.approx(boxes[column][0], abs=1.5)
        assert top == pytest.approx(boxes[3 * row][1], abs=1.5)
        text_left, text_top, text_right, text_bottom = by_text[texts[number]]
        assert (text_left + text_right) / 2 == pytest.approx((left + right) / 2, abs=2)
        assert 0 < text_top - bottom < 12
        if row < 2 and number + 3 < 8:
            assert text_bottom < boxes[number + 3][1]
    assert boxes[0][0] < boxes[1][0] < boxes[2][0]
    assert boxes[0][1] < boxes[3][1] < boxes[6][1]


def test_an_image_stands_upright():
    image = plain(COLOURS[0], high=4, wide=4)
    image[:2, 2:], image[2:, :2], image[2:, 2:] = COLOURS[2], COLOURS[4], COLOURS[6]
    drawn = Drawn(sheet_figure([image], [""]))
    top_left, top_right, bottom_left, bottom_right = (
        drawn.box(COLOURS[number]) for number in (0, 2, 4, 6)
    )
    assert top_left[2] <= top_right[0] + 1
    assert top_left[3] <= bottom_left[1] + 1
    assert bottom_right[:2] == pytest.approx((top_right[0], bottom_left[1]), abs=1.5)


@pytest.mark.parametrize(("high", "wide"), [(2, 6), (6, 2), (5, 5), (300, 100)])
def test_an_image_keeps_its_proportions(high, wide):
    drawn = Drawn(sheet_figure([plain(COLOURS[3], high, wide)], [""]))
    left, top, right, bottom = drawn.box(COLOURS[3])
    assert (right - left) / (bottom - top) == pytest.approx(wide / high, rel=0.05)


@pytest.mark.parametrize(("count", "columns"), [(1, 2), (8, 4), (24, 7), (200, 10)])
def test_without_a_number_of_columns_a_sheet_is_a_little_wider_than_high(count, columns):
    figure = sheet_figure([plain(COLOURS[0])] * count, ["x"] * count)
    places = {round(text.get_position()[0], 3) for text in figure.axes[0].texts}
    assert len(places) == min(count, columns)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_a_title_stands_above_all_images_in_the_themes_colours(theme):
    figure = sheet_figure([plain(COLOURS[1])], ["a $ price"], title="a $ title", theme=theme)
    drawn = Drawn(figure)
    caption, title = drawn.figure.axes[0].texts
    assert (caption.get_text(), title.get_text()) == ("a $ price", "a $ title")
    assert drawn.box_of_text(title)[3] < drawn.box(COLOURS[1])[1]
    assert {to_hex(text.get_color()) for text in (caption, title)} == {theme.ink}
    assert to_hex(drawn.pixels_HWC[0, 0]) == theme.paper


SAMPLE = {
    "sample_id": 17, "label": 4, "loss": 1.23456, "p_true": 0.5, "mean_margin": -0.25,
    "forget_count": 3, "never_right": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("order", "changes", "text"),
    [
        ("hardest", {}, "17\nlabel 4\nloss 1.23"),
        (None, {}, "17\nlabel 4\nloss 1.23"),
        ("easiest", {}, "17\nlabel 4\np_true 0.5"),
        ("suspects", {}, "17\nlabel 4\nAUM -0.25"),
        ("forgotten", {}, "17\nlabel 4\nforgotten 3×"),
        ("forgotten", {"never_right": True}, "17\nlabel 4\nnever right"),
        ("hardest", {"label": -1, "loss": None}, "17\nlabel not known\nloss –"),
    ],
)
def test_a_caption_says_id_label_and_what_the_samples_are_sorted_by(order, changes, text):
    other = {**SAMPLE, "sample_id": 5, "label": 0}
    view = SampleView("run", 3, order, "", [], [], [{**SAMPLE, **changes}, other], [])
    first, second = captions(view)
    assert first == text
    assert second.startswith("5\nlabel 0\n")


def test_a_sheet_is_the_same_file_each_time():
    images, texts = [plain(colour) for colour in COLOURS], ["label $\\frac 1"] * 8
    data = sheet_png(images, texts, title="a $ title")
    assert data == sheet_png(images, texts, title="a $ title")
    few = Image.open(io.BytesIO(sheet_png(images[:1], texts[:1])))
    assert few.width < Image.open(io.BytesIO(data)).width


@pytest.mark.parametrize("text", ["$x$", "cost$1$.png", "a_$\\frac{}$", "$", "猫 \x1b[0m", "[/x]"])
def test_a_text_below_an_image_is_drawn_as_it_is_and_no_formula(text):
    figure = sheet_figure([plain(COLOURS[1])], [text], title=text)
    caption, title = figure.axes[0].texts
    assert not caption.get_parse_math()
    assert not title.get_parse_math()
    assert (
        caption.get_text() == title.get_text() == text.replace("猫", "□").replace("\x1b", "\\x1b")
    )
    assert sheet_png([plain(COLOURS[1])], [text], title=text).startswith(b"\x89PNG")
