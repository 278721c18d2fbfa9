"""Statements of the hot path: compiled once per dialect and run on the driver's own cursor, inside the caller's transaction.

The engine makes a context, a result and events of every execution, three times the cost of a simple statement itself; reception runs seven
of them for an instance before it answers. Here none of that is made. Only for statements whose parameters are plain numbers and texts: no types convert them.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa


class Prepared:
    """`rows(conn, name=value, ...)`: the rows as tuples, none for a statement that returns none. Errors are SQLAlchemy's."""

    def __init__(self, statement: Any) -> None:
        self._statement = statement
        self._compiled: dict[str, tuple[str, tuple[str, ...] | None, dict[str, Any]]] = {}

    def rows(self, conn: sa.Connection, **values: Any) -> list[Any]:
        """KeyError for a parameter that the statement does not know or that has no value."""
        dialect = conn.dialect
        text, order, given = self._compiled.get(dialect.name) or self._compile(dialect)
        parameters = {**given, **values}
        cursor = conn.connection.cursor()
        try:
            cursor.execute(text, parameters if order is None else tuple([parameters[name] for name in order]))
            return cursor.fetchall() if cursor.description else []
        except dialect.loaded_dbapi.Error as error:
            raise sa.exc.DBAPIError.instance(text, None, error, dialect.loaded_dbapi.Error, dialect=dialect) from error  # type: ignore[arg-type]
        finally:
            cursor.close()

    def _compile(self, dialect: sa.Dialect) -> tuple[str, tuple[str, ...] | None, dict[str, Any]]:
        compiled: Any = self._statement.compile(dialect=dialect)
        given = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}
        made = str(compiled), tuple(compiled.positiontup) if compiled.positional else None, given
        self._compiled[dialect.name] = made
        return made
