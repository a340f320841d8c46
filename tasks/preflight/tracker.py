"""Whether MLflow will take what a run delivers: asked before the run starts, without MLflow.

A tracker that is away is no mistake: what it misses is delivered later. One that is there and can
never take the run is one: another schema, a server that is no MLflow, a deleted experiment.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import sqlite3
from contextlib import closing
from functools import cache
from http.client import HTTPException
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from epochal.data.errors import PreflightFailed
from epochal.tasks.tracking.connection import (
    DATABASES,
    PROBE_S,
    is_sqlite,
    sqlite_path,
    tracker_lock,
    unreachable,
)

MAX_ANSWER_BYTES = 1 << 20
_BUSY = 500  # and above: the server has a problem of its own
_NOT_ASKED = frozenset({401, 403, 407, 408, 429})
"""Statuses that say nothing of what is there: MLflow's client may have other credentials."""


def check_tracker(uri: str, *, experiment: str) -> None:
    """Raises PreflightFailed if MLflow is at `uri` and cannot take the run; takes 3 s at most.

    Says nothing of a tracker that is away, and of addresses of which nothing can be known.
    """
    scheme = urlsplit(uri).scheme
    if scheme in {"http", "https"}:
        if unreachable(uri) is None:
            _check_server(uri, experiment)
    elif is_sqlite(uri):
        _check_sqlite(uri, experiment)
    elif scheme.partition("+")[0] in DATABASES and unreachable(uri) is None:
        _check_database(uri, experiment)


class _NoRedirect(HTTPRedirectHandler):
    """A redirect leads to a login more often than to MLflow."""

    def redirect_request(self, *_: Any) -> None:
        """Follows none."""


def _check_server(uri: str, experiment: str) -> None:
    query = f"experiment_name={quote(experiment, safe='')}"
    path = f"/api/2.0/mlflow/experiments/get-by-name?{query}"
    parts = urlsplit(uri)
    plain = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
    request = Request(plain + path, headers=_credentials(uri))  # noqa: S310 - http or https
    try:
        with build_opener(_NoRedirect).open(request, timeout=PROBE_S) as answer:
            status, body = answer.status, answer.read(MAX_ANSWER_BYTES)
    except HTTPError as error:
        with error:
            status, body = error.code, error.read(MAX_ANSWER_BYTES)
    except (URLError, HTTPException, OSError):
        return  # away, or gone in the middle of its answer
    if status >= _BUSY or status in _NOT_ASKED or 300 <= status < 400:  # noqa: PLR2004 - redirects
        return
    found = _object(body)
    if found is None or not {"experiment", "error_code"} & found.keys():
        shown = " ".join(body[:80].decode(errors="replace").split())
        raise PreflightFailed(
            f"tracking.uri: {plain} answers, but it is no MLflow server: expected JSON of MLflow's "
            f"API, found status {status} and {shown!r}; correct the address or its port"
        )
    known = found.get("experiment")
    if isinstance(known, dict) and known.get("lifecycle_stage") == "deleted":
        raise deleted_experiment(experiment, str(known.get("experiment_id")))


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _credentials(uri: str) -> dict[str, str]:
    parts, given = urlsplit(uri), os.environ
    if token := given.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    user = given.get("MLFLOW_TRACKING_USERNAME") or parts.username
    word = given.get("MLFLOW_TRACKING_PASSWORD") or parts.password
    if not user or not word:
        return {}
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{word}".encode()).decode()}


def _check_sqlite(uri: str, experiment: str) -> None:
    path = sqlite_path(uri)
    if not path.exists() or not path.stat().st_size:
        return  # it will be made
    try:
        _look_into_sqlite(uri, experiment)
    except PreflightFailed:
        with tracker_lock():  # another run may just be making the tables: look once it has
            _look_into_sqlite(uri, experiment)


def _look_into_sqlite(uri: str, experiment: str) -> None:
    path = sqlite_path(uri)
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            tables = {name for (name,) in rows}
            _check_schema(uri, tables, _one(database, "SELECT version_num FROM alembic_version"))
            found = _one(
                database,
                "SELECT experiment_id FROM experiments WHERE name = ? "
                "AND lifecycle_stage = 'deleted'",
                experiment,
            )
    except sqlite3.OperationalError:
        return  # locked, or unreadable at the moment
    except sqlite3.DatabaseError as error:
        raise PreflightFailed(
            f"tracking.uri: {path} is no MLflow database: {error}; name another file"
        ) from error
    if found is not None:
        raise deleted_experiment(experiment, found)


def _one(database: sqlite3.Connection, query: str, *values: str) -> str | None:
    try:
        row = database.execute(query, values).fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return None
        raise
    return None if row is None else str(row[0])


def _check_database(uri: str, experiment: str) -> None:
    import sqlalchemy
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

    try:
        engine = sqlalchemy.create_engine(uri)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise PreflightFailed(
            f"tracking.uri: {_shown(uri)} cannot be opened: {error}; is the database's driver "
            "installed?"
        ) from error
    try:
        with engine.connect() as connection:
            tables = set(sqlalchemy.inspect(connection).get_table_names())
            revision, found = None, None
            if "alembic_version" in tables:
                query = sqlalchemy.text("SELECT version_num FROM alembic_version")
                revision = connection.execute(query).scalar()
            if "experiments" in tables:
                query = sqlalchemy.text(
                    "SELECT experiment_id FROM experiments WHERE name = :name "
                    "AND lifecycle_stage = 'deleted'"
                )
                found = connection.execute(query, {"name": experiment}).scalar()
    except SQLAlchemyError:
        return  # away, or no access at the moment
    finally:
        engine.dispose()
    _check_schema(uri, tables, revision)
    if found is not None:
        raise deleted_experiment(experiment, str(found))


def _check_schema(uri: str, tables: set[str], revision: str | None) -> None:
    """Raises PreflightFailed for a schema that is not that of the MLflow that is installed."""
    head, known = schema_revisions()
    version = metadata.version("mlflow")
    if not tables or head is None or revision == head:
        return
    if revision is None:
        shown = ", ".join(sorted(tables)[:5])
        raise PreflightFailed(
            f"tracking.uri: {_shown(uri)} is no MLflow database: it has the tables {shown} and no "
            "alembic_version; name another database"
        )
    if revision in known:
        raise PreflightFailed(
            f"tracking.uri: {_shown(uri)} has the schema {revision} of an older MLflow; MLflow "
            f"{version}, which is installed, wants {head}. Copy the database, then run `mlflow db "
            "upgrade` on it, or name another one"
        )
    raise PreflightFailed(
        f"tracking.uri: {_shown(uri)} has the schema {revision}, which MLflow {version} does not "
        f"know (it wants {head}): a newer MLflow made it; install that one, or name another "
        "database"
    )


@cache
def schema_revisions() -> tuple[str | None, frozenset[str]]:
    """The newest schema of the installed MLflow, if it is one, and all that it has had.

    Read from the text of its migrations: importing MLflow takes a second.
    """
    spec = importlib.util.find_spec("mlflow")
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    revisions: set[str] = set()
    earlier: set[str] = set()
    for place in places:
        for path in (Path(place) / "store" / "db_migrations" / "versions").glob("*.py"):
            text = path.read_text(errors="replace")
            revisions.update(_assigned("revision", text))
            earlier.update(_assigned("down_revision", text))
    heads = revisions - earlier
    return (heads.pop() if len(heads) == 1 else None), frozenset(revisions)


def _assigned(name: str, text: str) -> list[str]:
    line = re.search(rf"^{name}\b[^=\n]*=(.*)$", text, re.MULTILINE)
    return [] if line is None else re.findall(r"[\"']([0-9a-z_]+)[\"']", line.group(1))


def deleted_experiment(name: str, experiment_id: str) -> PreflightFailed:
    """The error for an experiment that somebody has deleted."""
    return PreflightFailed(
        f"tracking.experiment: {name!r} was deleted in MLflow; restore it (`mlflow experiments "
        f"restore -x {experiment_id}`) or name another one"
    )


def _shown(uri: str) -> str:
    """The address without a password."""
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    return parts._replace(netloc=f"…@{parts.netloc.rpartition('@')[2]}").geturl()
