"""A run of a deployment names no code but what was deployed; real servers: `flows/deployment`."""

import sys

import pytest
from support.runs.project import CONFIG

from epochal.data.errors import InputError
from epochal.flows.flow_run.deployed_code import allowed_targets, check_deployed
from epochal.tasks.config.run import RunConfig

BASE = {**CONFIG, "folder": "/somewhere/project"}
EVIL = {"target": "os:system", "args": {"command": "touch /tmp/evil"}}


def config(**changes):
    return RunConfig.model_validate({**BASE, **changes})


def test_targets_of_the_deployed_config_and_those_it_allows_are_taken():
    deployed = config(targets_allowed=["torch.nn:L1Loss"])
    assert allowed_targets(deployed) == [
        "blobs:blobs", "model:Net", "torch.nn:CrossEntropyLoss", "torch.nn:L1Loss",
        "torch.optim:AdamW",
    ]  # fmt: skip
    check_deployed(deployed, deployed)
    check_deployed(config(loss={"target": "torch.nn:L1Loss"}, epochs=9, store="./other"), deployed)


@pytest.mark.parametrize(
    "changes",
    [
        {"train_data": EVIL},
        {"validation_data": EVIL},
        {"model": EVIL},
        {"loss": EVIL},
        {"step": EVIL},
        {"optimizer": {**EVIL, "args": {"lr": 1.0}}},
        {"schedule": {**EVIL, "kind": "custom"}},
        {"metrics": {"validation": [{**EVIL, "name": "m"}]}},
        {"tracking": {"also": [EVIL]}},
        {"model": {"target": "model:Net", "args": {"body": EVIL}}},
        {"model": {"target": "model:Net", "args": {"a": [{"b": [EVIL]}]}}},
        {"model": {"target": "model:Net.forward"}},
        {"model": EVIL, "targets_allowed": ["os:system"]},
    ],
    ids=str,
)
def test_any_other_target_is_refused_wherever_it_stands_and_nothing_is_imported(changes):
    before = set(sys.modules)
    with pytest.raises(InputError, match="is not deployed; allowed are"):
        check_deployed(config(**changes), config())
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"folder": "/data/Downloads"}, "folder"),
        ({"tracking": {"uri": "http://evil.example"}}, "tracking.uri"),
    ],
)
def test_nor_where_its_modules_are_and_where_it_delivers_to(changes, field):
    with pytest.raises(InputError, match=rf"^{field}: found .*epochal deploy"):
        check_deployed(config(**changes), config())
