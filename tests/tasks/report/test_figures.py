"""The data map and the kept fraction, by what is drawn: positions, shares, axes, colours."""

import io

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image
from support.drawn import Drawn, share_of_map

from epochal.data.samples.scores import DataMap
from epochal.tasks.report.figures import (
    DARK,
    LIGHT,
    MAX_LINES,
    MAX_POINTS,
    data_map_figure,
    data_map_png,
    kept_figure,
    kept_png,
)
from epochal.tasks.report.tables import KeptShares

FIVE = DataMap(
    variability_M=np.array([0.05, 0.06, 0.40, 0.30, 0.20]),
    mean_p_true_M=np.array([0.95, 0.90, 0.50, 0.20, 0.80]),
    state_M=np.array([0, 0, 1, 3, 0]),
    lot_M=np.array([4, 0, 3, 1, 2], dtype=np.uint64),
    row_M=np.arange(5),
    left_out=7,
)


def random_places(count):
    random = np.random.default_rng(0)
    return DataMap(
        variability_M=random.uniform(0, 0.5, count),
        mean_p_true_M=random.uniform(0, 1, count),
        state_M=random.integers(0, 4, count),
        lot_M=random.permutation(count).astype(np.uint64),
        row_M=np.arange(count),
        left_out=3,
    )


def points(figure):
    (scatter,) = Drawn(figure).panel("map").collections
    return scatter


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_a_sample_lies_at_its_variability_across_and_its_mean_p_true_upwards(theme):
    figure = data_map_figure(FIVE, theme=theme)
    panel, scatter = Drawn(figure).panel("map"), points(figure)
    colours = [to_hex(colour) for colour in scatter.get_facecolors()]
    places = [tuple(place) for place in scatter.get_offsets().data]
    blue, green, _, red = theme.states
    assert dict(zip(places, colours, strict=True)) == {
        (0.05, 0.95): blue, (0.06, 0.9): blue, (0.2, 0.8): blue, (0.4, 0.5): green, (0.3, 0.2): red
    }  # fmt: skip
    assert panel.get_xlabel() == "variability of p_true over the epochs"
    assert panel.get_ylabel() == "mean p_true"
    assert panel.get_xlim() == (-0.01, 0.51)
    assert panel.get_ylim() == (-0.02, 1.02)


def test_a_sample_is_easy_at_the_top_hard_at_the_bottom_and_ambiguous_where_it_varies():
    drawn = Drawn(data_map_figure(FIVE))
    panel = drawn.panel("map")
    place = {
        text.get_text(): panel.transData.inverted().transform(
            text.get_transform().transform(text.get_position())
        )
        for text in panel.texts
    }
    assert {name: round(y, 1) for name, (_, y) in place.items()} == {
        "easy": 1.0, "ambiguous": 0.5, "hard": 0.0
    }  # fmt: skip
    assert place["ambiguous"][0] > 0.45


@pytest.mark.parametrize(
    ("margin", "orientation", "values_M", "span"),
    [
        ("top", "vertical", FIVE.variability_M, (-0.01, 0.51)),
        ("right", "horizontal", FIVE.mean_p_true_M, (-0.02, 1.02)),
    ],
)
def test_a_margin_counts_each_state_along_its_axis_of_the_map_one_upon_the_other(
    margin, orientation, values_M, span
):
    drawn = Drawn(data_map_figure(FIVE))
    panel = drawn.panel(margin)
    below = np.zeros(60)
    for state, steps in enumerate(panel.patches):
        counts = steps.get_data()
        expected, edges = np.histogram(values_M[FIVE.state_M == state], bins=60, range=span)
        assert np.array_equal(counts.edges, edges)
        assert np.array_equal(counts.baseline, below)
        assert np.array_equal(counts.values - counts.baseline, expected)
        assert to_hex(steps.get_facecolor()) == LIGHT.states[state]
        assert steps.orientation == orientation
        below = counts.values
    assert below.sum() == len(FIVE)
    along = (panel.get_xlim(), panel.get_ylim())[margin == "right"]
    assert along == span
    beside_map = panel.get_position(), drawn.panel("map").get_position()
    if margin == "top":
        assert [box.x0 for box in beside_map] == pytest.approx([beside_map[0].x0] * 2)
        assert beside_map[0].y0 > beside_map[1].y1
    else:
        assert [box.y0 for box in beside_map] == pytest.approx([beside_map[0].y0] * 2)
        assert beside_map[0].x0 > beside_map[1].x1


def test_the_legend_says_how_many_samples_are_in_each_state_and_their_share_of_all():
    figure = data_map_figure(FIVE)
    legend = Drawn(figure).panel("legend").get_legend()
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == [
        "never forgotten\n3 · 60.0%",
        "forgotten, right again\n1 · 20.0%",
        "forgotten, wrong now\n0 · 0.0%",
        "never right\n1 · 20.0%",
    ]
    assert [to_hex(handle.get_color()) for handle in legend.legend_handles] == list(LIGHT.states)
    assert figure.get_suptitle() == "Data map of 5 samples; 7 seen less than twice"


def test_of_many_samples_those_of_the_smallest_hash_are_drawn_and_all_are_counted():
    places = random_places(MAX_POINTS + 10)
    figure = data_map_figure(places)
    is_drawn = places.lot_M < MAX_POINTS
    wanted = {*zip(places.variability_M[is_drawn], places.mean_p_true_M[is_drawn], strict=True)}
    assert {tuple(place) for place in points(figure).get_offsets().data} == wanted
    for margin in ("top", "right"):
        *_, upper = Drawn(figure).panel(margin).patches
        assert upper.get_data().values.sum() == MAX_POINTS + 10
    said = "Data map of 12,010 samples, 12,000 of them drawn; 3 seen less than twice"
    assert figure.get_suptitle() == said


@pytest.mark.parametrize("count", [1, 40, MAX_POINTS + 500])
def test_a_data_map_is_the_same_file_whatever_the_order_of_the_rows(count):
    places = random_places(count)
    order = np.random.default_rng(5).permutation(count)
    columns = (
        places.variability_M, places.mean_p_true_M, places.state_M, places.lot_M, places.row_M
    )  # fmt: skip
    shuffled = DataMap(*(column[order] for column in columns), left_out=places.left_out)
    data = data_map_png(places)
    assert data == data_map_png(shuffled)
    assert b"Software" not in data
    assert Image.open(io.BytesIO(data)).convert("RGB").getpixel((0, 0)) == (255, 255, 255)


SHARES_KC = np.array([[np.nan, 1.0, 0.9], [0.5, 0.75, 0.2], [0.5, 0.25, 0.1]])
FEW = KeptShares([1, 2, 3, 4], [1.0, 0.6, 0.5, 0.3], [1, 2, 4], [-1, 3, 7], SHARES_KC)


def lines_of(panel):
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in panel.lines
    }


def test_each_class_and_all_samples_have_a_line_of_their_shares_by_epoch():
    figure = kept_figure(FEW)
    (panel,) = figure.axes
    assert lines_of(panel) == {
        "class 3": ([1, 2, 4], [1.0, 0.75, 0.25]),
        "class 7": ([1, 2, 4], [0.9, 0.2, 0.1]),
        "all": ([1, 2, 3, 4], [1.0, 0.6, 0.5, 0.3]),
    }
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("for epoch", "kept")
    assert panel.get_ylim() == (0, 1.04)
    assert panel.yaxis.get_major_formatter()(0.4) == "40%"
    Drawn(figure)
    ticks = [label.get_text() for label in panel.get_xticklabels()]
    assert {"1", "2", "3", "4"} <= set(ticks)
    assert not any("." in tick for tick in ticks)  # there is no half an epoch
    assert figure.get_suptitle() == (
        "Share of the samples kept for each of 4 epochs; classes at 3 of them"
    )


def test_the_legend_has_the_colour_of_each_line():
    figure = kept_figure(FEW)
    (panel,), (legend,) = figure.axes, figure.legends
    colours = {line.get_label(): line.get_color() for line in panel.lines}
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["class 3", "class 7", "all"]
    assert [handle.get_color() for handle in legend.legend_handles] == [*map(colours.get, names)]
    assert len(set(colours.values())) == 3
    assert colours["all"] == LIGHT.all_samples


def test_samples_of_no_known_class_and_a_single_class_are_in_the_line_of_all_alone():
    for labels in ([-1], [7]):
        shares = KeptShares([1, 2], [0.5, 0.4], [1, 2], labels, np.array([[0.5], [0.4]]))
        (panel,) = kept_figure(shares).axes
        assert list(lines_of(panel)) == ["all"]


def test_without_classes_the_line_of_all_is_drawn_and_the_reason_is_said():
    figure = kept_figure(KeptShares([1, 2], [0.5, 0.4], [], [], np.empty((0, 0))))
    assert lines_of(figure.axes[0]) == {"all": ([1, 2], [0.5, 0.4])}
    assert figure.get_suptitle().endswith("each of 2 epochs; too many classes")


def many_classes(classes, epochs=3):
    """Shares that all differ; the class with the highest number is kept most."""
    of_class = 0.2 + 0.7 * np.arange(classes) / classes
    share_KC = of_class[None, :] + 0.03 * np.arange(epochs)[:, None]
    numbers = list(range(5, 5 + epochs))
    labels = [10 * number for number in range(classes)]
    return KeptShares(numbers, share_KC.mean(axis=1).tolist(), numbers, labels, share_KC)


def test_of_many_classes_each_is_a_row_with_those_that_are_kept_most_at_the_top():
    shares = many_classes(MAX_LINES + 5)
    shares.share_KC[0, 3] = np.nan  # that table lacks the class
    drawn = Drawn(kept_figure(shares))
    above, below, _ = drawn.figure.axes
    names = [label.get_text() for label in below.get_yticklabels()]
    assert names == [str(label) for label in reversed(shares.labels_C)]
    heights = [below.transData.transform((5, y))[1] for y in below.get_yticks()]
    assert heights == sorted(heights, reverse=True)
    for name, y in zip(names, below.get_yticks(), strict=True):
        place = shares.labels_C.index(int(name))
        for epoch, share in zip(shares.class_epochs_K, shares.share_KC[:, place], strict=True):
            colour = LIGHT.paper if np.isnan(share) else mpl.colormaps["viridis"](share)
            beside_grid = (epoch + 0.2, y + 0.2)
            assert drawn.shows(below, *beside_grid, colour), (name, epoch)
    assert lines_of(above) == {"all": ([5, 6, 7], shares.share_E)}
    assert (below.get_xlabel(), below.get_ylabel()) == ("for epoch", "class")
    assert above.get_xlim() == below.get_xlim()


def test_the_colours_of_a_heat_map_go_from_nothing_kept_to_all_kept():
    drawn = Drawn(kept_figure(many_classes(30)))
    *_, bar = drawn.figure.axes
    ticks = {label.get_text(): label.get_position()[1] for label in bar.get_yticklabels()}
    assert (ticks["0%"], ticks["100%"]) == (0.0, 1.0)
    for share in (0.1, 0.5, 0.9):
        assert share_of_map(drawn.colour(bar, 0.5, share)) == pytest.approx(share, abs=0.02)


def test_of_very_many_classes_several_share_a_row_by_their_mean():
    shares = many_classes(700)
    shares.share_KC[1, 699] = np.nan  # the row's mean is that of its other two
    _, below, _ = kept_figure(shares).axes
    (cells,) = below.collections
    rows = np.ma.filled(cells.get_array(), np.nan).reshape(-1, 3)
    assert len(rows) == 234
    upper = shares.share_KC[:, [699, 698, 697]]
    assert np.allclose(rows[0], np.nanmean(upper, axis=1))
    assert np.allclose(rows[-1], shares.share_KC[:, 0])  # 233 rows of three, and one left
    assert below.get_ylabel() == "700 classes, 3 in a row"


@pytest.mark.parametrize("classes", [1, 20, 60, 700])
@pytest.mark.parametrize("epochs", [1, 4])
def test_kept_shares_are_the_same_file_each_time(classes, epochs):
    shares = many_classes(classes, epochs)
    data = kept_png(shares)
    assert data == kept_png(shares)
    assert min(Image.open(io.BytesIO(data)).size) > 500
