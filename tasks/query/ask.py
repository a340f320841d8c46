"""A question in SQL to a store's views: DuckDB in memory, which can reach no file and no network.

What it reads comes through Arrow, which is given the store's own tables; so a query cannot name
another file, write one, load an extension, or change these settings.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from epochal.data.errors import CorruptObject, InputError
from epochal.data.store.store import Store
from epochal.tasks.runs.find_run import stored_runs

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_OF_FILES = re.compile("reading the stream registered as")
"""In an error of DuckDB's that came out of Arrow, which reads the files."""
_ROWS = 4096  # that are taken at once
_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "python_enable_replacements": False,
    "temp_directory": "",
}
"""Nothing but memory and what is registered: no files, no extensions, no variables of Python."""


@dataclass(frozen=True)
class Answer:
    """Columns by name, each once, and the rows, which are computed as they are taken."""

    columns: Sequence[str]
    rows: Iterator[list[Any]]

    def objects(self) -> Iterator[dict[str, Any]]:
        """Each row as column → value, plain JSON."""
        return (dict(zip(self.columns, row, strict=True)) for row in self.rows)


@dataclass(frozen=True)
class OpenViews:
    """The views of one store, to be asked."""

    store: Store
    views: Mapping[str, Any]

    @classmethod
    def of_store(cls, store: Store, *, notice: Callable[[str], None]) -> OpenViews:
        """Reads the store's records. notice: told of runs that cannot be read."""
        from epochal.tasks.query.views import store_views

        return cls(store, store_views(stored_runs(store, notice=notice)))

    def ask(self, sql: str) -> Answer:
        """What one statement gives, its values plain JSON: numbers that are not finite are None.

        Raises InputError for what is wrong with the SQL, CorruptObject or StoreUnavailable where a
        table that it reads cannot be read.
        """
        import duckdb

        connection = duckdb.connect(":memory:", config=dict(_SETTINGS))
        connection.execute("SET lock_configuration = true")
        for name, view in self.views.items():
            connection.register(name, view)
        with ExitStack() as stack, _told(self.store):
            stack.callback(connection.close)
            self._check(connection, sql)
            connection.execute(sql)
            columns = _told_apart([column[0] for column in connection.description or ()])
            stack.pop_all()
        return Answer(columns, self._rows(connection))

    def _check(self, connection: DuckDBPyConnection, sql: str) -> None:
        import duckdb

        statements = connection.extract_statements(sql)
        asks = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}
        if len(statements) != 1 or statements[0].type not in asks:
            found = (
                f"{len(statements)} statements"
                if len(statements) != 1
                else f"a statement of type {str(statements[0].type).rpartition('.')[2]}"
            )
            raise InputError(
                f"query: found {found}; expected one that asks: SELECT, WITH, FROM, DESCRIBE, "
                "SUMMARIZE, SHOW TABLES or EXPLAIN. A query reads a store and changes nothing"
            )

    def _rows(self, connection: DuckDBPyConnection) -> Iterator[list[Any]]:
        try:
            while True:
                with _told(self.store):
                    rows = connection.fetchmany(_ROWS)
                if not rows:
                    return
                for row in rows:
                    yield [plain(value) for value in row]
        finally:
            connection.close()


@contextmanager
def _told(store: Store) -> Iterator[None]:
    """Turns what DuckDB raises, of a question or of the files behind it, into Epochal's errors."""
    import duckdb
    import pyarrow as pa

    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise InputError(
            f"query: it needs more memory than there is ({_first_lines(error)}): ask of fewer "
            "runs, epochs or columns"
        ) from error
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        if isinstance(error, duckdb.Error) and not _OF_FILES.search(str(error)):
            raise InputError(f"query: {error}") from error
        raise CorruptObject(
            f"query: a table of {store.url} cannot be read: {_first_lines(error)}; `epochal "
            "verify` names what is damaged, and `epochal train` computes it again"
        ) from error


def _first_lines(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def _told_apart(names: Sequence[str]) -> list[str]:
    """Names of columns, each once: a second `run` becomes `run_2`."""
    found: list[str] = []
    for name in names:
        number, own = 2, name
        while own in found:
            own, number = f"{name}_{number}", number + 1
        found.append(own)
    return found


def plain(value: Any) -> Any:
    """A value of DuckDB's as plain JSON."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        return value.hex()
    return value if isinstance(value, str | int | None) else str(value)  # dates, intervals, UUIDs
