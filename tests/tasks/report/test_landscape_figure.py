"""The picture of a landscape, by what is drawn: which direction is which axis, colours, gaps."""

import numpy as np
import pytest
from mpl_toolkits.mplot3d import proj3d
from support.drawn import Drawn, share_of_map

from epochal.engine.landscape import Landscape, axis_of
from epochal.tasks.report.landscape import Asked, Computed
from epochal.tasks.report.landscape_figure import landscape_figure

AXIS = axis_of(9, 2.0)
BY_SECOND, BY_FIRST = np.meshgrid(AXIS, AXIS, indexing="ij")
"""A row of losses for each place along the second direction."""


def computed(losses_PP, **asked):
    settings = {"epoch": 4, "artifact": "model", "points": 9, "extent": 2.0, "samples": 50}
    return Computed("digits", Asked(**settings | asked, seed=0), Landscape(AXIS, losses_PP, 50))


def drawn(losses_PP, **asked):
    return Drawn(landscape_figure(computed(losses_PP, **asked)))


def from_above(picture, first, second):
    """The share of the colours there: the middle of several places, as lines cross some."""
    panel = picture.panel("above")
    around = np.linspace(-0.02, 0.02, 5)
    return np.median(
        [share_of_map(picture.colour(panel, first + x, second + y)) for x in around for y in around]
    )


def on_surface(picture, first, second, loss):
    """The share of the colours of the surface at that place of the three dimensions."""
    panel = picture.panel("surface")
    x, y, _ = proj3d.proj_transform(first, second, loss, panel.get_proj())
    return share_of_map(picture.colour(panel, x, y))


@pytest.mark.parametrize(
    ("losses_PP", "loss_at"),
    [
        (5 + BY_FIRST, lambda first, _: 5 + first),
        (5 + BY_SECOND, lambda _, second: 5 + second),
        (5 + BY_FIRST - 0.5 * BY_SECOND, lambda first, second: 5 + first - 0.5 * second),
    ],
)
def test_the_first_direction_goes_to_the_right_and_the_second_upwards(losses_PP, loss_at):
    picture = drawn(losses_PP)
    low, high = losses_PP.min(), losses_PP.max()
    middles = (-1.75, -0.75, 0.25, 1.25)  # of squares of the surface
    for first in middles:
        for second in middles:
            loss = loss_at(first, second)
            share = pytest.approx((loss - low) / (high - low), abs=0.06)
            assert from_above(picture, first, second) == share
            assert on_surface(picture, first, second, loss) == share
    above, surface = picture.panel("above"), picture.panel("surface")
    for panel in (above, surface):
        assert panel.get_xlabel() == "first direction"
        assert panel.get_ylabel() == "second direction"
        assert panel.get_xlim() == panel.get_ylim() == (-2, 2)
    assert above.get_aspect() == 1
    assert surface.get_zlabel() == "validation loss"
    assert surface.get_zlim() == (low, high)


def test_the_checkpoint_is_marked_in_the_middle():
    panel = drawn(5 + BY_FIRST).panel("above")
    (marker,) = panel.lines
    assert (list(marker.get_xdata()), list(marker.get_ydata())) == ([0], [0])
    (label,) = [text for text in panel.texts if text.get_text() == "checkpoint"]
    assert label.xy == (0, 0)


@pytest.mark.parametrize(
    ("losses_PP", "losses_of", "label"),
    [
        (5 + BY_FIRST, lambda height: height, "validation loss"),
        (10.0**BY_FIRST, lambda height: 10**height, "validation loss, logarithmic"),
    ],
)
def test_ticks_say_the_loss_at_their_height_also_where_heights_are_logarithms(
    losses_PP, losses_of, label
):
    picture = drawn(losses_PP)
    *_, bar = picture.figure.axes
    assert bar.get_ylabel() == label
    for axis in (bar.yaxis, picture.panel("surface").zaxis):
        texts = [float(text.get_text()) for text in axis.get_ticklabels()]
        losses = [losses_of(height) for height in axis.get_ticklocs()]
        assert texts == pytest.approx(losses, rel=0.01)
        assert (texts[0], texts[-1]) == pytest.approx((losses_PP.min(), losses_PP.max()), rel=0.01)


def test_losses_that_differ_by_much_have_their_colour_by_the_logarithm():
    picture = drawn(10.0**BY_FIRST)  # from 0.01 to 100
    assert from_above(picture, 1.0, 0.3) == pytest.approx(0.75, abs=0.05)


def test_what_is_not_finite_is_left_out_and_counted():
    losses_PP = 5 + BY_FIRST
    losses_PP[8, 0], losses_PP[8, 1] = np.nan, np.inf  # second direction up, first to the left
    picture = drawn(losses_PP)
    assert picture.shows(picture.panel("above"), -1.9, 1.9, "0.85")
    assert from_above(picture, -1.75, -1.75) < 0.15
    (squares,) = picture.panel("surface").collections
    assert len(squares.get_facecolor()) == 8 * 8 - 2
    assert "2 points not finite, left out" in picture.figure.get_suptitle()


def test_a_plain_without_slopes_is_drawn():
    picture = drawn(np.full((9, 9), 3.0))
    assert from_above(picture, 1.0, 1.0) == pytest.approx(0.5, abs=0.05)


def test_the_title_says_what_the_landscape_is_of():
    losses_PP = 5 + BY_FIRST + 0.5 * BY_SECOND
    losses_PP[4, 4] = 5.25
    said = "digits · epoch 4 · validation loss of 50 samples · 5.25 at the checkpoint"
    assert drawn(losses_PP).figure.get_suptitle() == said
    of_average = drawn(losses_PP, artifact="ema").figure.get_suptitle()
    assert "epoch 4, average of the weights ·" in of_average
