"""The config as the flow's parameter: Prefect takes nothing in it for a reference of its own."""

import json
import math

from prefect.utilities.schema_tools.hydration import HydrationContext, hydrate
from support.runs.project import Project

from epochal.flows.train import train
from epochal.tasks.config.load import load_config

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
    for parameters in (given, sent, made):
        received = train.validate_parameters(parameters)["config"]
        assert as_text(received.model.args) == as_text(HARD)
        assert received.model_dump() == config.model_dump()
