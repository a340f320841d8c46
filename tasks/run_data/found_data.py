"""The data sets of a run in a store, built again from its config, for commands that only look."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from epochal.data.errors import InputError
from epochal.tasks.config.run import RunConfig
from epochal.tasks.reporting import SilentReporter
from epochal.tasks.runs.facts import DataField
from epochal.tasks.runs.find_run import FoundRun

if TYPE_CHECKING:
    from epochal.tasks.run_data.run_data import RunData


class _Told(SilentReporter):
    """A reporter of notices only."""

    def __init__(self, notice: Callable[[str], None]) -> None:
        self._notice = notice

    def notice(self, text: str) -> None:
        """Passes it on."""
        self._notice(text)


def own_config(found: FoundRun, what: str) -> RunConfig:
    """The config by whose path the run was named: what is called comes from there alone.

    what: comes out of such code, for the error. Raises InputError for a run named otherwise.
    """
    if found.own is None:
        raise InputError(
            f"{what} built by a config of yours, never by what a store says: name the run by its "
            f"config's path instead of {found.plan.run!r}"
        )
    return found.own


def found_data(
    found: FoundRun,
    field: DataField,
    *,
    config: RunConfig,
    notice: Callable[[str], None],
    changed: str,
) -> RunData:
    """The data set of that field, as `train` opens it.

    config: names its target, which is called. changed: what to tell if its content is no longer the
    run's. Raises as `open_data`.
    """
    from epochal.tasks.run_data.run_data import open_data
    from epochal.tasks.runs.facts import source_facts

    data = open_data(
        config,
        field,
        found.store,
        sources=source_facts(config).get(field, {}),
        notice=_Told(notice),
        before_write=lambda: None,
    )
    planned = getattr(found.plan, field)
    if data.fingerprint != planned:
        notice(f"{field}: its content has changed since the run; {changed}")
    return data
