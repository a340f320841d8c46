"""A run as a deployment of Prefect: its UI can schedule it, start it, change it and retry it.

Decides what a deployment holds, and puts it on the server. Starts no server and no worker.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from epochal.data.errors import InputError
from epochal.flows.deployment.cron import Schedule
from epochal.flows.deployment.form import form_schema, form_values
from epochal.flows.environment import DEFAULTS, importing
from epochal.flows.servers import WORK_POOL
from epochal.tasks.config.run import RunConfig
from epochal.tasks.printable import markdown_code

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.responses import DeploymentResponse

# By module name: a run imports the package that is installed where it starts, no copy of a file.
ENTRYPOINT = "epochal.flows.train.train"
TAG = "epochal"
_POOL_TYPE = "process"
_REFUSED_IN_NAMES = re.compile(r"[/%&<>]")


@dataclass(frozen=True)
class Deployed:
    """A deployment that the server has now.

    name: as Prefect writes it, `flow/deployment`. created: not there before.
    removed_schedules: cron lines that it had and has no more. workers: names of those that asked
    for its work in the last minutes, on whatever machine.
    """

    deployment_id: UUID
    name: str
    created: bool
    removed_schedules: tuple[str, ...]
    workers: tuple[str, ...]


def check_name(name: str) -> str:
    """The deployment's name, if Prefect takes it. Raises InputError."""
    if not name.strip() or _REFUSED_IN_NAMES.search(name):
        raise InputError(f"--name: found {name!r}; expected a text without / % & < >")
    return name


def put_deployment(
    config: RunConfig,
    *,
    name: str,
    source: Path,
    schedule: Schedule | None,
    paused: bool,
    pool: str = WORK_POOL,
    at_once: int = 1,
) -> Deployed:
    """Creates the deployment of `config`, or makes the one of this name like it.

    Call it inside `talking_to`. source: the config's file. paused: its schedule waits until
    somebody resumes it. pool: whose workers run it; another than ours must be there.
    at_once: how many of its runs may be at work; more than one are of different configs.
    """
    with importing():
        from prefect.client.orchestration import get_client
        from prefect.exceptions import ObjectNotFound
        from prefect.utilities.callables import parameter_schema

        from epochal.flows.train import train
    full_name = f"{train.name}/{name}"
    with get_client(sync_client=True) as client:
        _ensure_work_pool(client, pool)
        try:
            before = client.read_deployment_by_name(full_name)
        except ObjectNotFound:
            before = None
        deployment_id = client.create_deployment(
            flow_id=client.create_flow_from_name(train.name),
            name=name,
            description=_description(config, source),
            tags=[TAG],
            entrypoint=ENTRYPOINT,
            pull_steps=[],
            work_pool_name=pool,
            job_variables=_job_variables(),
            parameters={"config": form_values(config)},
            parameter_openapi_schema=form_schema(
                parameter_schema(train).model_dump(exclude_unset=True), config
            ),
            enforce_parameter_schema=True,
            paused=paused,
            schedules=_schedules(schedule),
            **_at_once(at_once),
        )
        return Deployed(
            deployment_id=deployment_id,
            name=full_name,
            created=before is None,
            removed_schedules=_removed(before, schedule),
            workers=_online_workers(client, pool),
        )


def _ensure_work_pool(client: SyncPrefectClient, name: str) -> None:
    """The pool that `epochal up` works for; a deployment may come before the first worker."""
    if name != WORK_POOL:
        _check_pool(client, name)
        return
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
    from prefect.workers.process import ProcessWorker

    try:
        pool = client.read_work_pool(WORK_POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        wanted = WorkPoolCreate(name=WORK_POOL, type=_POOL_TYPE, base_job_template=template)
        try:
            pool = client.create_work_pool(wanted)
        except ObjectAlreadyExists:  # another command has just made it
            pool = client.read_work_pool(WORK_POOL)
    if pool.type != _POOL_TYPE:
        raise InputError(
            f"work pool {WORK_POOL!r}: found type {pool.type!r}; expected {_POOL_TYPE!r}: rename "
            "or delete that pool in Prefect's UI"
        )


def _check_pool(client: SyncPrefectClient, name: str) -> None:
    from prefect.exceptions import ObjectNotFound

    try:
        client.read_work_pool(name)
    except ObjectNotFound as error:
        raise InputError(
            f"work pool {name!r}: Prefect has none of this name; `prefect work-pool create` makes "
            f"one, and {WORK_POOL!r} is the one that `epochal up` works for"
        ) from error


def _job_variables() -> dict[str, Any]:
    """Settings of the process that a worker starts for each run."""
    settings = {name: os.environ.get(name, value) for name, value in DEFAULTS.items()}
    return {"env": {**settings, "PYTHONSAFEPATH": "1"}}  # import nothing from where it starts


def _at_once(count: int) -> dict[str, Any]:
    """One run of a deployment at a time: a second would compute the same stages, so it waits."""
    from prefect.client.schemas.objects import (
        ConcurrencyLimitStrategy,
        ConcurrencyOptions,
    )

    waits = ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.ENQUEUE)
    return {"concurrency_limit": count, "concurrency_options": waits}


def _schedules(schedule: Schedule | None) -> list[DeploymentScheduleCreate]:
    from prefect.client.schemas.actions import DeploymentScheduleCreate

    if schedule is None:
        return []
    return [DeploymentScheduleCreate(schedule=schedule.for_prefect(), active=True)]


def _removed(before: DeploymentResponse | None, schedule: Schedule | None) -> tuple[str, ...]:
    kept = None if schedule is None else (schedule.cron, schedule.timezone)
    held = [entry.schedule for entry in before.schedules] if before is not None else []
    return tuple(
        " ".join(str(getattr(old, name, "")) for name in ("cron", "timezone")).strip() or str(old)
        for old in held
        if (getattr(old, "cron", None), getattr(old, "timezone", None)) != kept
    )


def _online_workers(client: SyncPrefectClient, pool: str) -> tuple[str, ...]:
    workers = client.read_workers_for_work_pool(pool)
    return tuple(worker.name for worker in workers if worker.status == "ONLINE")


def _length(config: RunConfig) -> str:
    if config.max_updates is not None:
        return f"{config.max_updates} updates"
    return f"{config.epochs} epochs"


def _description(config: RunConfig, source: Path) -> str:
    return (
        f"Trains `{config.name}` for {_length(config)}: `{config.model.target}` on "
        f"`{config.train_data.target}`.\n\nDeployed from {markdown_code(source.name)} in "
        f"{markdown_code(config.folder)}. "
        "Epochs that the store already has are not computed again."
    )
