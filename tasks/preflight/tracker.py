"""Whether MLflow will take what a run delivers: asked before the run starts, without MLflow.

An MLflow that is away is no mistake: what it misses is delivered later. One that answers but can
never take the run is: another schema, a server that is not MLflow, a deleted experiment.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
from functools import cache
from http import HTTPStatus
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from epochal.data.errors import PreflightFailed
from epochal.data.secrets import masked
from epochal.tasks.http import ask
from epochal.tasks.tracking.connection import (
    DATABASES,
    PROBE_S,
    deleted_experiment,
    is_sqlite,
    opened_to_read,
    sqlite_path,
    tracker_lock,
    tracking_home,
    unreachable,
)

if TYPE_CHECKING:
    from sqlalchemy import Engine

MAX_ANSWER_BYTES = 1 << 20
_NOT_ASKED = frozenset({401, 403, 407, 408, 429})
"""Statuses that do not show what is there: MLflow's client may have other credentials."""


def check_tracker(uri: str, *, experiment: str) -> None:
    """Raises PreflightFailed if MLflow is at `uri` and cannot take the run; takes 3 s at most.

    Says nothing of a tracker that is away, and of addresses of which nothing can be known.
    """
    try:
        scheme, _ = urlsplit(uri).scheme, urlsplit(uri).port
    except ValueError as error:
        raise PreflightFailed(f"tracking.uri: is no address: {error}; correct it") from error
    if is_sqlite(uri):
        _check_sqlite(uri, experiment)
    elif scheme in {"http", "https"}:
        if unreachable(uri) is None:
            _check_server(uri, experiment)
    elif scheme.partition("+")[0] in DATABASES and unreachable(uri) is None:
        _check_database(uri, experiment)


def _check_server(uri: str, experiment: str) -> None:
    parts = urlsplit(uri)
    plain = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
    query = f"experiment_name={quote(experiment, safe='')}"
    try:
        answer = ask(
            f"{plain}/api/2.0/mlflow/experiments/get-by-name?{query}",
            headers=_credentials(uri),
            timeout_s=PROBE_S,
            most_bytes=MAX_ANSWER_BYTES,
        )
    except OSError:
        return  # away, or gone in the middle of its answer
    redirected = HTTPStatus.MULTIPLE_CHOICES <= answer.status < HTTPStatus.BAD_REQUEST
    has_own_problem = answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    if redirected or has_own_problem or answer.status in _NOT_ASKED:
        return
    said = _object(answer.body)
    if said is None or not {"experiment", "error_code"} & said.keys():
        shown = " ".join(answer.body[:80].decode(errors="replace").split())
        raise PreflightFailed(
            f"tracking.uri: {plain} answers, but it is no MLflow server: expected JSON of MLflow's "
            f"API, found status {answer.status} and {shown!r}; correct the address or its port"
        )
    known = said.get("experiment")
    if isinstance(known, dict) and known.get("lifecycle_stage") == "deleted":
        raise PreflightFailed(deleted_experiment(experiment, known.get("experiment_id")))


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        said = json.loads(body)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def _credentials(uri: str) -> dict[str, str]:
    parts, given = urlsplit(uri), os.environ
    if token := given.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    user = given.get("MLFLOW_TRACKING_USERNAME") or parts.username
    word = given.get("MLFLOW_TRACKING_PASSWORD") or parts.password
    if not user or not word:
        return {}
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{word}".encode()).decode()}


def _check_can_be_made(path: Path) -> None:
    if path.exists():
        return
    there = next(folder for folder in path.parents if folder.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return
    name = "HOME" if path.parent == tracking_home() else "tracking.uri"
    raise PreflightFailed(
        f"{name}: {path} cannot be made: {there} is no folder that can be written; name another"
    )


def _check_sqlite(uri: str, experiment: str) -> None:
    path = sqlite_path(uri)
    _check_can_be_made(path)
    if not path.exists() or not path.stat().st_size:
        return  # it will be made
    try:
        _check_database(uri, experiment)
    except PreflightFailed:
        with tracker_lock():  # another run may just be making the tables: look once it has
            _check_database(uri, experiment)


def _check_database(uri: str, experiment: str) -> None:
    import sqlalchemy
    from sqlalchemy.exc import (
        ArgumentError,
        DatabaseError,
        NoSuchModuleError,
        OperationalError,
        SQLAlchemyError,
    )

    try:
        engine = _read_only(uri) if is_sqlite(uri) else sqlalchemy.create_engine(uri)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise PreflightFailed(
            f"tracking.uri: {masked(uri)} cannot be opened: {masked(str(error))}; is the "
            "database's driver installed?"
        ) from error
    revision_of = sqlalchemy.text("SELECT version_num FROM alembic_version")
    deleted_of = sqlalchemy.text(
        "SELECT experiment_id FROM experiments WHERE name = :name AND lifecycle_stage = 'deleted'"
    )
    revision, deleted = None, None
    try:
        with engine.connect() as connection:
            tables = set(sqlalchemy.inspect(connection).get_table_names())
            if "alembic_version" in tables:
                revision = connection.execute(revision_of).scalar()
            _check_schema(uri, tables, revision)
            if "experiments" in tables:
                deleted = connection.execute(deleted_of, {"name": experiment}).scalar()
    except DatabaseError as error:
        if not is_sqlite(uri) or isinstance(error, OperationalError):
            return  # away, locked, or no access at the moment
        raise PreflightFailed(
            f"tracking.uri: {sqlite_path(uri)} is no MLflow database: {error.orig}; name another "
            "file"
        ) from error
    except SQLAlchemyError:
        return
    finally:
        engine.dispose()
    if deleted is not None:
        raise PreflightFailed(deleted_experiment(experiment, deleted))


def _read_only(uri: str) -> Engine:
    """Opens the SQLite file so that looking into it neither changes nor makes one."""
    import sqlalchemy

    path = sqlite_path(uri)
    return sqlalchemy.create_engine(
        "sqlite://",
        creator=lambda: opened_to_read(path),
        poolclass=sqlalchemy.NullPool,
    )


def _check_schema(uri: str, tables: set[str], revision: str | None) -> None:
    """Raises PreflightFailed for a schema that is not that of the MLflow that is installed."""
    head, known = schema_revisions()
    version = metadata.version("mlflow")
    if not tables or head is None or revision == head:
        return
    if revision is None:
        shown = ", ".join(sorted(tables)[:5])
        raise PreflightFailed(
            f"tracking.uri: {masked(uri)} is no MLflow database: it has the tables {shown} and no "
            "alembic_version; name another database"
        )
    if revision in known:
        raise PreflightFailed(
            f"tracking.uri: {masked(uri)} has the schema {revision} of an older MLflow; MLflow "
            f"{version}, which is installed, wants {head}. Copy the database, then run `mlflow db "
            "upgrade` on it, or name another one"
        )
    raise PreflightFailed(
        f"tracking.uri: {masked(uri)} has the schema {revision}, which MLflow {version} does not "
        f"know (it wants {head}): a newer MLflow made it; install that one, or name another "
        "database"
    )


@cache
def schema_revisions() -> tuple[str | None, frozenset[str]]:
    """The newest schema of the installed MLflow, if it is one, and all that it has had.

    Read from the text of its migrations, in 5 ms. alembic's ScriptDirectory runs them, and they
    import MLflow: 2.4 s before every run.
    """
    spec = importlib.util.find_spec("mlflow")
    assert spec is not None  # a dependency of ours
    assert spec.origin is not None
    migrations = Path(spec.origin).parent / "store" / "db_migrations" / "versions"
    texts = [path.read_text(errors="replace") for path in migrations.glob("*.py")]
    revisions = {revision for text in texts for revision in _assigned("revision", text)}
    heads = revisions - {
        revision for text in texts for revision in _assigned("down_revision", text)
    }
    return (heads.pop() if len(heads) == 1 else None), frozenset(revisions)


def _assigned(name: str, text: str) -> list[str]:
    line = re.search(rf"^{name}\b[^=\n]*=(.*)$", text, re.MULTILINE)
    return [] if line is None else re.findall(r"[\"']([0-9a-z_]+)[\"']", line.group(1))
