"""The parameters' schema of a deployment, as Prefect's run form shows it. Talks to no server."""

from __future__ import annotations

from typing import Any

from epochal.flows.flow_run.deployed_code import allowed_targets
from epochal.tasks.config.run import RunConfig


def form_schema(schema: dict[str, Any], deployed: RunConfig) -> dict[str, Any]:
    """The schema where each target is a choice among those that runs of the deployment may name.

    The server refuses others before a run exists; those in `args` are found when it starts.
    """
    names = allowed_targets(deployed)
    parts = {name: _with_choices(part, names) for name, part in schema["definitions"].items()}
    return {**schema, "definitions": parts}


def _with_choices(part: dict[str, Any], names: list[str]) -> dict[str, Any]:
    fields = part.get("properties", {})
    if "target" not in fields:
        return part
    return {**part, "properties": {**fields, "target": _choice(fields["target"], names)}}


def _choice(field: dict[str, Any], names: list[str]) -> dict[str, Any]:
    if "anyOf" in field:  # a text or none
        return {**field, "anyOf": [_choice(one, names) for one in field["anyOf"]]}
    return {**field, "enum": names} if field.get("type") == "string" else field
