"""Totals: they add up, go through JSON as they are, and are damage where they are none."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal.data.documents import dump_document, load_document
from epochal.data.errors import CorruptObject
from epochal.tasks.goodput.stopwatch import CAUSES
from epochal.tasks.goodput.totals import (
    Totals,
    checked_totals,
    of_nanoseconds,
    total,
    with_lost,
)

seconds = st.floats(1e-6, 1e6).map(lambda value: round(value, 6))
counts = st.integers(0, 1 << 40)
peaks = st.none() | counts


@st.composite
def totals(draw):
    flops = draw(st.none() | st.tuples(st.floats(0, 1e20), st.floats(1, 1e20)))
    return Totals(
        draw(st.dictionaries(st.sampled_from(CAUSES), seconds)),
        samples=draw(counts),
        resumed=draw(counts),
        unknown_losses=draw(counts),
        peak_host_bytes=draw(peaks),
        peak_child_bytes=draw(peaks),
        peak_device_bytes=draw(peaks),
        flops=flops and flops[0],
        possible_flops=flops and flops[1],
    )


@given(totals())
def test_totals_are_the_same_after_the_way_through_a_file(one):
    body = load_document(dump_document(one.body()), name="goodput.json")
    assert checked_totals(body) == one


@given(totals(), totals())
def test_sums_keep_every_second_and_count_and_the_highest_peak(one, other):
    both = one + other
    assert math.isclose(both.wall_seconds, one.wall_seconds + other.wall_seconds)
    assert both.samples == one.samples + other.samples
    assert both.resumed == one.resumed + other.resumed
    known = [peak for peak in (one.peak_host_bytes, other.peak_host_bytes) if peak is not None]
    assert both.peak_host_bytes == max(known, default=None)
    assert total([one, other]) == both
    assert one + Totals() == one


@given(st.dictionaries(st.sampled_from(CAUSES), st.integers(0, 10**18)))
def test_nanoseconds_become_seconds_to_the_microsecond(spent_ns):
    made = of_nanoseconds(spent_ns)
    assert math.isclose(
        made.wall_seconds, sum(spent_ns.values()) / 1e9, abs_tol=1e-5, rel_tol=1e-12
    )
    assert all(made.seconds.values())


def test_the_share_is_of_what_moved_the_weights_and_the_speed_is_of_the_loop():
    one = Totals(
        {"data": 1.0, "forward_backward": 5.0, "optimizer": 2.0, "commit": 1.5, "lost": 0.5},
        samples=80,
        flops=3e12,
        possible_flops=12e12,
    )
    assert one.wall_seconds == 10.0
    assert one.share == 0.7
    assert one.samples_per_second == 10.0
    assert one.flops_utilisation == 0.25


def test_where_nothing_is_known_nothing_is_said():
    nothing = Totals()
    assert nothing.share is None
    assert nothing.samples_per_second is None
    assert nothing.flops_utilisation is None
    assert nothing.body() == {"seconds": {}}


def test_what_was_lost_is_added_where_it_is_known_and_counted_where_not():
    before = Totals({"data": 4.0, "lost": 1.0}, resumed=1)
    known = with_lost(before, 2.5)
    assert known.seconds == {"data": 4.0, "lost": 3.5}
    assert (known.resumed, known.unknown_losses) == (2, 0)
    unknown = with_lost(before, None)
    assert unknown.seconds == before.seconds
    assert (unknown.resumed, unknown.unknown_losses) == (2, 1)
    assert with_lost(before, -3.0).seconds == before.seconds
    left = with_lost(before, 2.0, commit_seconds=0.5)
    assert left.seconds == {"data": 4.0, "commit": 0.5, "lost": 3.0}


def test_causes_of_a_later_version_count_for_orchestration_so_that_the_sum_stands():
    found = checked_totals({"seconds": {"data": 1.0, "tea": 2.0}, "cups": 3})
    assert found.seconds == {"data": 1.0, "orchestration": 2.0}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (None, "seconds by cause"),
        ({}, "seconds by cause"),
        ({"seconds": [1.0]}, "seconds by cause"),
        ({"seconds": {"data": -1}}, "seconds by cause"),
        ({"seconds": {"data": True}}, "seconds by cause"),
        ({"seconds": {"data": float("nan")}}, "seconds by cause"),
        ({"seconds": {"data": 1e300}}, "seconds by cause"),
        ({"seconds": {}, "samples": 1.5}, "samples is 1.5"),
        ({"seconds": {}, "peak_host_bytes": -1}, "peak_host_bytes is -1"),
        ({"seconds": {}, "flops": 1.0}, "flops stands alone"),
        ({"seconds": {}, "flops": "1", "possible_flops": 1.0}, "flops is '1'"),
    ],
)
def test_what_is_no_goodput_is_damage_and_named(body, told):
    with pytest.raises(CorruptObject, match=f"goodput.json: .*{told}"):
        checked_totals(body)
