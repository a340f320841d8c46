"""The parameters of a deployment as Prefect's run form shows them. Talks to no server.

The form draws a heading for each field, a button for each variant and all fields of an object, one
below the other; so headings and buttons are short words, and a section that is as usual is one row.
"""

from __future__ import annotations

import re
from typing import Any

from epochal.data.config.sampling import SamplingConfig
from epochal.data.policies import POLICIES
from epochal.flows.flow_run.deployed_code import allowed_targets
from epochal.tasks.config.run import SECTIONS, RunConfig

_VARIANTS = {
    "null": "none",
    "integer": "number",
    "number": "number",
    "string": "text",
    "array": "list",
    "boolean": "yes or no",
}
"""Names of the buttons that say what a value is; the form would show `int`, `None`."""
_AS_USUAL = {"type": "null", "title": "as usual"}
_WORDS = {"ema": "EMA", "uri": "URI", "lr": "LR", "jit": "JIT"}
"""Of names, as people write them."""
_FIRST = (
    "name", "epochs", "seed", "optimizer", "schedule", "loader", "sampling", "gradients",
    "model", "loss", "train_data", "validation_data", "metrics",
)  # fmt: skip
"""What is changed from run to run stands above what stays; then all else in the config's order."""
_CAPITALS = re.compile(r"(?<=[a-z])(?=[A-Z])")


def form_values(config: RunConfig) -> dict[str, Any]:
    """The deployed parameter `config`: sections that are as usual are null."""
    values = config.model_dump(mode="json")
    usual = {name for name, default in SECTIONS.items() if getattr(config, name) == default}
    return {name: None if name in usual else value for name, value in values.items()}


def form_schema(schema: dict[str, Any], deployed: RunConfig) -> dict[str, Any]:
    """The schema with titles, sections and, for targets, those that the deployment's runs may name.

    What only a sweep gives is checked as ever, and not drawn.

    The server refuses other targets before a run exists; those in `args` are found when it starts.
    """
    names = allowed_targets(deployed)
    parts = {name: _part(name, part, names) for name, part in schema["definitions"].items()}
    parts["SamplingConfig"] = _of_policy(parts["SamplingConfig"], deployed.sampling)
    arguments = parts["OptimizerConfig"]["properties"]["args"]
    arguments["required"] = ["lr"]
    fields = parts["RunConfig"]["properties"]
    for position, name in enumerate(dict.fromkeys([*_FIRST, *fields])):
        section = _section(fields[name]) if name in SECTIONS else fields[name]
        fields[name] = {**section, "position": position}
    shown = {"config": {**schema["properties"]["config"], "title": "Run"}}
    hidden = {
        f"^{name}$": field for name, field in schema["properties"].items() if name != "config"
    }
    # The deployment gives `config`: where the schema requires it, a quick run asks for all of it
    # again, and the newer UI refuses to save a schedule without it.
    return {
        **schema,
        "properties": shown,
        **({"patternProperties": hidden} if hidden else {}),
        "required": [],
        "definitions": parts,
    }


def _part(name: str, part: dict[str, Any], names: list[str]) -> dict[str, Any]:
    fields = part.get("properties", {})
    kind = fields.get("kind", {}).get("const")
    words = _CAPITALS.sub(" ", name.removesuffix("Config")).lower()
    titled = {**part, "title": kind or words}
    if fields:
        titled["properties"] = {
            field: _titled(field, _choice(holds, names) if field == "target" else holds)
            for field, holds in fields.items()
        }
    return titled


def _titled(name: str, field: dict[str, Any]) -> dict[str, Any]:
    words = " ".join(_WORDS.get(word, word) for word in name.split("_"))
    field = {**field, "title": words[:1].upper() + words[1:]}
    if "oneOf" in field:  # variants by their `kind`: the form knows no oneOf
        field["anyOf"] = field.pop("oneOf")
        field.pop("discriminator", None)
    if "anyOf" in field:
        field["anyOf"] = [_variant(one) for one in field["anyOf"]]
    return field


def _variant(variant: dict[str, Any]) -> dict[str, Any]:
    title = _VARIANTS.get(variant.get("type", ""))
    return variant if title is None else {**variant, "title": title}


def _section(field: dict[str, Any]) -> dict[str, Any]:
    """A section that may be as usual: the first of its variants, and the default."""
    rest = {name: value for name, value in field.items() if name not in {"$ref", "anyOf"}}
    own = [{"$ref": field["$ref"]}] if "$ref" in field else field["anyOf"]
    return {**rest, "anyOf": [_AS_USUAL, *own], "default": None}


def _of_policy(part: dict[str, Any], sampling: SamplingConfig) -> dict[str, Any]:
    """Without the fields of other policies, which the deployed one would refuse.

    They are checked as before, by their names as patterns, which the form does not draw.
    """
    if sampling.policy == "none":
        return part
    others = {name for policy in POLICIES.values() for name in policy.takes}
    hidden = others.difference(sampling.declaration.takes)
    fields = part["properties"]
    return {
        **part,
        "properties": {name: field for name, field in fields.items() if name not in hidden},
        "patternProperties": {f"^{name}$": fields[name] for name in fields if name in hidden},
    }


def _choice(field: dict[str, Any], names: list[str]) -> dict[str, Any]:
    if "anyOf" in field:  # a text or none
        return {**field, "anyOf": [_choice(one, names) for one in field["anyOf"]]}
    return {**field, "enum": names} if field.get("type") == "string" else field
