"""`epochal deploy` behind the command: check, server, deployment, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epochal.data.errors import InputError
from epochal.flows.deployment.cron import Schedule, check_schedule
from epochal.flows.deployment.deployment import Deployed, check_name, put_deployment
from epochal.flows.servers import WORK_POOL, begin_prefect_server, worker_name, worker_runs
from epochal.tasks.config.load import load_config
from epochal.tasks.config.run import RunConfig
from epochal.tasks.runs.plan import make_plan


@dataclass(frozen=True)
class DeployResult:
    """What the command prints.

    has_worker: whether anybody runs what the UI starts. server_started: by this command.
    """

    deployed: Deployed
    config: RunConfig
    schedule: Schedule | None
    paused: bool
    has_worker: bool
    server_started: bool
    api_url: str
    ui_url: str

    @property
    def url(self) -> str:
        """The deployment's page in Prefect's UI."""
        return f"{self.ui_url}/deployments/deployment/{self.deployed.deployment_id}"

    def as_object(self) -> dict[str, Any]:
        """What `--json` prints."""
        schedule = None
        if self.schedule is not None:
            schedule = {
                "cron": self.schedule.cron,
                "timezone": self.schedule.timezone,
                "next_run": self.schedule.next_run.isoformat(),
                "paused": self.paused,
            }
        return {
            "run": self.config.name,
            "deployment": self.deployed.name,
            "deployment_id": str(self.deployed.deployment_id),
            "created": self.deployed.created,
            "schedule": schedule,
            "work_pool": WORK_POOL,
            "worker": self.has_worker,
            "prefect_api": self.api_url,
            "url": self.url,
        }

    def lines(self) -> list[tuple[str, str]]:
        """(title, text) of each line for people."""
        verb = "created" if self.deployed.created else "updated"
        name = shlex.quote(self.deployed.name)
        asking = f"PREFECT_API_URL={self.api_url} prefect deployment run {name}"
        return [
            ("deployment", f"{self.deployed.name}, {verb}"),
            ("schedule", self._schedule_line()),
            ("worker", "runs" if self.has_worker else "none; runs wait for one"),
            ("UI", self.url),
            ("", ""),
            ("Next:", f"{'' if self.has_worker else '`epochal up`; then '}Run, in the UI, or"),
            ("", asking),
        ]

    def _schedule_line(self) -> str:
        if self.schedule is None:
            removed = ", ".join(self.deployed.removed_schedules)
            gone = f" ({removed} is removed)" if removed else ""
            return f'none{gone}; with one: --cron "0 2 * * *"'
        return f"{self.schedule.text}{', paused' if self.paused else ''}"


def deploy_config(
    path: Path,
    *,
    overrides: Sequence[str],
    cron: str | None,
    timezone: str | None,
    name: str | None,
    paused: bool,
) -> DeployResult:
    """Checks everything, starts a Prefect server if there is none, and deploys.

    Raises InputError before anything has started if something that was given is wrong.
    """
    config = load_config(path, overrides=overrides)
    for option, given in (("--timezone", timezone is not None), ("--paused", paused)):
        if given and cron is None:
            raise InputError(f"{option}: it is for a schedule, and there is none; give --cron too")
    schedule = None if cron is None else check_schedule(cron, timezone)
    title = check_name(config.name if name is None else name)
    make_plan(config)  # checks that store and source files can be read

    from epochal.flows.flow_run.client import quiet_console, talking_to

    server = begin_prefect_server().wait()
    with talking_to(server.api_url), quiet_console():
        deployed = put_deployment(config, name=title, source=path, schedule=schedule, paused=paused)
    ours = worker_runs(server.api_url)
    return DeployResult(
        deployed=deployed,
        config=config,
        schedule=schedule,
        paused=paused,
        # For minutes the server still lists a worker that we have stopped as running.
        has_worker=ours or any(worker != worker_name() for worker in deployed.workers),
        server_started=server.started,
        api_url=server.api_url,
        ui_url=server.ui_url,
    )
