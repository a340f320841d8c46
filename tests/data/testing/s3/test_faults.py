"""Which requests a plan fails: counted, again and again, or a share under a seed."""

import pytest

from epochal.data.testing.s3.faults import RequestFault, RequestPlan


def failing(fault, requests):
    """The numbers, from 1, of the requests (kind, key) that fail."""
    plan = RequestPlan([fault])
    return [number for number, one in enumerate(requests, 1) if plan.next(*one) is not None]


PUTS = [("put", f"a/{number}") for number in range(1, 11)]


@pytest.mark.parametrize(
    ("fault", "numbers"),
    [
        (RequestFault("lost"), [1]),
        (RequestFault("lost", at=3, count=2), [3, 4]),
        (RequestFault("lost", at=2, every=4, count=2), [2, 3, 6, 7, 10]),
        (RequestFault("lost", of="write", at=9), [9]),
        (RequestFault("lost", of="get"), []),
        (RequestFault("lost", key="a/7"), [7]),
        (RequestFault("flip"), []),  # a put reads nothing
        (RequestFault("lost", share=1.0, at=4, count=3), [4, 5, 6]),
    ],
)
def test_the_requests_that_are_meant_fail(fault, numbers):
    assert failing(fault, PUTS) == numbers


def test_a_share_is_drawn_from_its_seed():
    many = [("put", "a")] * 400
    first = failing(RequestFault("lost", share=0.2, seed=1), many)
    assert first == failing(RequestFault("lost", share=0.2, seed=1), many)
    assert first != failing(RequestFault("lost", share=0.2, seed=2), many)
    assert 50 < len(first) < 110


def test_requests_of_other_kinds_are_not_counted():
    requests = [("create", "a"), ("part", "a"), ("part", "a"), ("complete", "a")]
    assert failing(RequestFault("reset", of="part", at=2), requests) == [3]


def test_of_two_faults_at_one_request_the_first_acts_and_both_have_counted_it():
    plan = RequestPlan([RequestFault("lost", of="put"), RequestFault("reset", count=2)])
    assert [plan.next("put", "a").how for _ in range(2)] == ["lost", "reset"]
    told = plan.document()
    assert told["requests"] == {"put": 2}
    assert [(one["counted"], one["failed"]) for one in told["faults"]] == [(2, 1), (2, 1)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"how": "broken"}, {"how": "503"}, {"how": "lost", "of": "nothing"},
        {"how": "flip", "of": "put"}, {"how": "lost", "at": 0}, {"how": "lost", "share": 2.0},
        {"how": "lost", "count": 0}, {"how": "lost", "share": 0.5, "every": 2},
    ],
)  # fmt: skip
def test_a_fault_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError):
        RequestFault(**wrong)
