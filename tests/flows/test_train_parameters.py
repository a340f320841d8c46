"""The config as the flow's parameter: Prefect takes nothing in it for a reference of its own."""

import json
import math
from copy import deepcopy

import pytest
from prefect.utilities.schema_tools.hydration import HydrationContext, hydrate
from support.runs.bare_run import BareRun
from support.runs.project import Project

from epochal.data.errors import NotFound
from epochal.flows.train import train
from epochal.tasks.config.load import load_config
from epochal.tasks.running.tracked_run import parameters
from epochal.tasks.runs.find_run import find_run

HARD = {
    "spec": {"$ref": "#/$defs/x", "$defs": {"x": 1}},
    "kind": {"__prefect_kind": "jinja", "template": "{{ a }}"},
    "text": "{{ prefect.variables.x }} {% raw %}",
    "numbers": [math.nan, math.inf, -math.inf],
    "kinds": [{"__prefect_kind": "json"}, {"__prefect_kind": "workspace_variable"}],
}


def as_text(args):
    return json.dumps(args, sort_keys=True)


def test_every_argument_comes_through_prefect_as_it_was_written(tmp_path):
    project = Project(tmp_path, model={"target": "model:Net", "args": HARD})
    config = load_config(project.config)
    assert as_text(config.model.args) == as_text(HARD)
    given = {"config": config.model_dump(mode="json")}
    # As the API keeps it, and as the server makes it anew for a deployment.
    sent = json.loads(json.dumps(train.serialize_parameters(given), allow_nan=False))
    context = HydrationContext(render_jinja=True, render_workspace_variables=True)
    made = hydrate(sent, context)
    for received_as in (given, sent, made):
        received = train.validate_parameters(received_as)["config"]
        assert as_text(received.model.args) == as_text(HARD)
        assert received.model_dump() == config.model_dump()


ODD = """
    import math
    import numpy as np
    from blobs import blobs
    from model import Net

    def check(hard):
        assert math.isnan(hard["numbers"][0]) and hard["numbers"][1:] == [math.inf, -math.inf]
        assert hard["spec"]["$ref"] == "#/$defs/x" and "__prefect_kind" in hard["kind"]

    def net(hard):
        check(hard)
        return Net()

    def data(split, hard):
        check(hard)
        return blobs(split)

    def rate(t, hard):
        check(hard)
        return 1.0

    def keep(table, context, hard):
        check(hard)
        return np.ones(len(table["loss"]), dtype=bool), np.ones(len(table["loss"]))
"""


def test_every_target_gets_them_and_keys_records_and_plans_hold_them(tmp_path, home):
    def target(name, **more):
        return {"target": f"odd:{name}", "args": {"hard": deepcopy(HARD), **more}}

    project = Project(
        tmp_path / "project",
        epochs=2,
        model=target("net"),
        train_data=target("data", split="train"),
        validation_data={**target("data", split="validation"), "version": "1"},
        schedule={"kind": "custom", **target("rate")},
        sampling={"policy": "custom", **target("keep"), "warm_up": 0, "final_full": 0},
    )
    project.write("odd.py", ODD)
    run = BareRun(project.config)()
    again = BareRun(project.config)()
    assert all(outcome.cached for outcome in again.outcomes)
    assert again.weights == run.weights
    found = find_run(str(project.config))
    assert as_text(found.plan.run_config().model.args) == as_text({"hard": HARD})
    params = parameters(found.config)
    assert params["model.args.hard.numbers"] == "['.nan', '.inf', '-.inf']"
    assert params["model.args.hard.spec.$ref"] == "#/$defs/x"
    with pytest.raises(NotFound, match=r"model.args.hard.numbers: .*nan.* → \[1\]"):
        find_run(str(project.config), overrides=["model.args.hard.numbers=[1]"])
