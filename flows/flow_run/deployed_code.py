"""What a run of a deployment may not change: which code it runs, and where it delivers to.

Whoever reaches the run form, or the API behind it, gives a run's parameters. Its targets are
imported and called by the worker, so they must be among those that were deployed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from epochal.data.errors import InputError
from epochal.flows.flow_run.client import current_flow_run
from epochal.tasks.config.run import RunConfig

_MOST_SHOWN = 12


def allowed_targets(deployed: RunConfig) -> list[str]:
    """The targets that runs of a deployment of this config may name, sorted."""
    own = {name for _, name in _targets(deployed.model_dump(mode="json"))}
    return sorted(own.union(deployed.targets_allowed))


def check_deployed(config: RunConfig, deployed: RunConfig) -> None:
    """Raises InputError if a run with `config` would run other code than what is deployed.

    Imports nothing. Targets in `args` count too, at any depth.
    """
    allowed = allowed_targets(deployed)
    shown = ", ".join(allowed[:_MOST_SHOWN]) + " …" * (len(allowed) > _MOST_SHOWN)
    problems = [
        f"{place}.target: {name!r:.200} is not deployed; allowed are {shown}: name it in "
        "`targets_allowed` of the config, and run `epochal deploy` again"
        for place, name in _targets(config.model_dump(mode="json"))
        if name not in allowed
    ]
    for field, given, expected in (
        ("folder", config.folder, deployed.folder),
        ("tracking.uri", config.tracking.uri, deployed.tracking.uri),
    ):
        if given != expected:
            problems.append(
                f"{field}: found {given!r:.200}; deployed is {expected!r}: change the config, and "
                "run `epochal deploy` again"
            )
    if problems:
        raise InputError("\n".join(problems))


def check_against_deployment(config: RunConfig) -> None:
    """Inside a flow: `check_deployed` if its run has a deployment; a command's run has none.

    What is deployed is asked of the server: the run's own parameters are what is in doubt.
    """
    run = current_flow_run()
    if run is None or run.deployment_id is None:
        return
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        deployment = client.read_deployment(run.deployment_id)
    try:
        deployed = RunConfig.model_validate(deployment.parameters.get("config"))
    except ValidationError as error:
        raise InputError(
            f"deployment {deployment.name!r} holds no config of this version, so it is not known "
            "what its runs may do: run `epochal deploy` again"
        ) from error
    check_deployed(config, deployed)


def _targets(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """(place, name) of each target below `value`, which is plain JSON."""
    if isinstance(value, dict):
        if isinstance(value.get("target"), str):
            yield place, value["target"]
        for key, item in value.items():
            yield from _targets(item, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _targets(item, f"{place}[{index}]")
