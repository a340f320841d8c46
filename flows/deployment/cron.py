"""When a deployment runs by itself: a cron line in a time zone, checked. Talks to no server."""

from __future__ import annotations

import asyncio
import difflib
import os
import zoneinfo
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from epochal.data.errors import InputError
from epochal.flows.environment import importing

if TYPE_CHECKING:
    from prefect.client.schemas.schedules import CronSchedule

_EXAMPLE = 'expected minute, hour, day, month and weekday: "0 2 * * *" is every night at two'
_FIELDS = 5


@dataclass(frozen=True)
class Schedule:
    """A cron line that has a next time. timezone: IANA name. next_run: with its time zone."""

    cron: str
    timezone: str
    next_run: datetime

    @property
    def text(self) -> str:
        """As people read it."""
        return f"{self.cron} {self.timezone}, next {self.next_run:%Y-%m-%d %H:%M}"

    def for_prefect(self) -> CronSchedule:
        """As Prefect's client sends it."""
        from prefect.client.schemas.schedules import CronSchedule

        return CronSchedule(cron=self.cron, timezone=self.timezone)


def check_schedule(cron: str, timezone: str | None) -> Schedule:
    """The schedule of `--cron` and `--timezone`; without one the time zone of this machine.

    Raises InputError for a line that is no cron or never comes, and for an unknown time zone.
    """
    zone = local_timezone() if timezone is None else timezone
    if zone not in zoneinfo.available_timezones():
        near = difflib.get_close_matches(zone, zoneinfo.available_timezones(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "expected a name such as Europe/Berlin"
        raise InputError(f"--timezone: found {zone!r}; {hint}")
    # Prefect reads a sixth field as seconds; other tools do not, and 60 runs a minute could start.
    if len(cron.split()) != _FIELDS and not cron.startswith("@"):
        raise InputError(f"--cron: found {cron!r}; {_EXAMPLE}")
    return Schedule(cron=cron, timezone=zone, next_run=_next_run(cron, zone))


def local_timezone() -> str:
    """The IANA name of this machine's time zone; UTC where it has none."""
    known = zoneinfo.available_timezones()
    link = str(Path("/etc/localtime").resolve()).partition("zoneinfo/")[2]
    named = (os.environ.get("TZ", "").removeprefix(":"), link.removeprefix("posix/"))
    zone = next((name for name in named if name in known), "UTC")
    return "UTC" if zone in {"Etc/UTC", "Etc/UCT", "UCT", "Zulu"} else zone


def _next_run(cron: str, zone: str) -> datetime:
    with importing():
        from prefect._vendor.croniter.croniter import CroniterBadDateError
        from prefect.server.schemas.schedules import CronSchedule
        from pydantic import ValidationError
    try:
        schedule = CronSchedule(cron=cron, timezone=zone)
    except ValidationError as error:
        raise InputError(f"--cron: found {cron!r}; {_EXAMPLE}") from error
    try:
        dates = asyncio.run(schedule.get_dates(n=1))
    except CroniterBadDateError:
        dates = []
    if not dates:
        raise InputError(f"--cron: found {cron!r}, which never comes; {_EXAMPLE}")
    return dates[0]
