"""What a flow's process imports of other libraries while its trainer begins and checks.

That takes two seconds, in which this process would only wait; beside the first epochs they would
take the processors from the trainer.
"""

from __future__ import annotations

import importlib
import threading
from contextlib import suppress

from epochal.flows.environment import importing
from epochal.tasks.config.run import RunConfig
from epochal.tasks.tracking.connection import is_sqlite, tracking_uri

_OF_PREFECT = (
    *("prefect.main", "prefect.client.orchestration", "prefect.flow_engine", "prefect.task_engine"),
    "fastapi.encoders",  # by which it writes down a flow's parameters
)
"""What Prefect's own lazy imports bring by the time the first task runs."""
_OF_MLFLOW = "mlflow"
_OF_SQLITE = "mlflow.store.tracking.sqlalchemy_store"
"""What MLflow's client imports by the first request to a database."""


def import_prefect() -> None:
    """Imports all that a flow needs of Prefect."""
    _import_all(_OF_PREFECT)


def import_mlflow_beside(config: RunConfig, *, local_mlflow: str | None) -> None:
    """Imports MLflow in a thread, and returns at once.

    Not where this process computes as well: one that it forks for the loader would hang at the
    locks of half an import.
    """
    if config.launch.kind == "inline":
        return
    database = is_sqlite(tracking_uri(config.tracking, local_server=local_mlflow))
    names = (_OF_MLFLOW, _OF_SQLITE) if database else (_OF_MLFLOW,)
    threading.Thread(
        target=_import_mlflow, args=(names,), name="epochal-imports", daemon=True
    ).start()


def _import_mlflow(names: tuple[str, ...]) -> None:
    with suppress(Exception):  # whoever delivers imports it again, and tells
        _import_all(names)


def _import_all(names: tuple[str, ...]) -> None:
    with importing():
        for name in names:
            importlib.import_module(name)
