"""What does not go together of `launch` is refused, with what to write instead."""

import pytest
from support.runs.project import Project

from epochal.data.errors import ConfigError
from epochal.tasks.config.load import load_config
from epochal.tasks.config.parts import split_address

ELASTIC = ("launch.kind=elastic", "gradients.shards=8")


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        ((*ELASTIC, "launch.processes=9"), "give gradients.shards: 16"),
        ((*ELASTIC, "launch.processes=4", "launch.nodes=3"), "expected a number that divides it"),
        ((*ELASTIC, "launch.processes=4", "launch.nodes=2"), "leads no other machine to this one"),
        (("launch.cluster=auto",), "is of launch.kind: ray; found kind: local"),
        (("launch.nodes=2", "gradients.shards=8", "launch.processes=2"), "of launch.kind: elastic"),
        ((*ELASTIC, "launch.address=http://x"), "launch.address"),
        ((*ELASTIC, "launch.address=10.0.0.1:99999"), "expected a port from 1 to 65535"),
    ],
)
def test_what_does_not_go_together_is_refused(sets, told, tmp_path):
    config = Project(tmp_path / "project", launch={"kind": "local"}).config
    with pytest.raises(ConfigError, match=told):
        load_config(config, overrides=list(sets))


def test_processes_are_dealt_to_the_machines_in_equal_numbers(tmp_path):
    config = Project(tmp_path / "project").config
    sets = [*ELASTIC, "launch.processes=6", "launch.nodes=3", "launch.address=10.0.0.1"]
    launch = load_config(config, overrides=sets).launch
    assert launch.processes_here == 2
    assert launch.listening == ("10.0.0.1", 29431)


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("host", ("host", None)),
        ("10.0.0.1:80", ("10.0.0.1", 80)),
        ("[::1]", ("::1", None)),
        ("[::1]:80", ("::1", 80)),
    ],
)
def test_an_address_has_a_host_and_maybe_a_port(address, parts):
    assert split_address(address) == parts
