"""Names of flow runs: a person's is kept, one that Prefect has made up gives way."""

import pytest
from prefect.utilities.names import generate_slug

from epochal.flows.flow_run.naming import is_made_up


def test_what_a_server_makes_up_is_known_by_its_words():
    assert all(is_made_up(generate_slug(2)) for _ in range(300))


@pytest.mark.parametrize(
    "name", ["delta-cerberus", "nu113-kayal-cloud", "alpha2-canis-majoris", "omega6-ceti"]
)
def test_what_the_page_fills_into_its_form_is_known(name):
    assert is_made_up(name)


@pytest.mark.parametrize(
    "name",
    [
        "my-run",
        "retried-in-the-ui",
        "digits",
        "blue-whale-2",
        "alpha",
        "nightly",
        "beta_test",
        "x-y",
    ],
)
def test_what_a_person_writes_is_not_taken_for_made_up(name):
    assert not is_made_up(name)
