"""Statements of the hot path: compiled once per dialect and run on the driver's own cursor, inside the caller's transaction.

The engine makes a context, a result and events of every execution, three times the cost of a simple statement itself; reception runs seven
of them for an instance before it answers. Here none of that is made. Only for statements whose parameters are plain numbers and texts: no types convert them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import sqlalchemy as sa

_Compiled = tuple[str, Callable[[dict[str, Any]], Any], dict[str, Any]]


def plainly(conn: sa.Connection, text: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> list[Any]:
    """Runs `text` on the driver's cursor; its rows. SQLAlchemy begins no transaction for it, and its errors are SQLAlchemy's."""
    cursor = conn.connection.cursor()
    try:
        cursor.execute(text, parameters)
        return cursor.fetchall() if cursor.description else []
    except conn.dialect.loaded_dbapi.Error as error:
        raise sa.exc.DBAPIError.instance(text, None, error, conn.dialect.loaded_dbapi.Error, dialect=conn.dialect) from error  # type: ignore[arg-type]
    finally:
        cursor.close()


class Prepared:
    """`rows(conn, name=value, ...)`: the rows as tuples, none for a statement that returns none. Errors are SQLAlchemy's."""

    def __init__(self, statement: Any) -> None:
        self._statement = statement
        self._compiled: dict[str, _Compiled] = {}

    def rows(self, conn: sa.Connection, **values: Any) -> list[Any]:
        """KeyError for a parameter that the statement does not know or that has no value."""
        text, ordered, given = self._compiled.get(conn.dialect.name) or self._compile(conn.dialect)
        return plainly(conn, text, ordered({**given, **values} if given else values))

    def _compile(self, dialect: sa.Dialect) -> _Compiled:
        compiled: Any = self._statement.compile(dialect=dialect)
        given = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}
        made = str(compiled), _ordering(compiled.positiontup if compiled.positional else None), given
        self._compiled[dialect.name] = made
        return made


def _ordering(names: Sequence[str] | None) -> Callable[[dict[str, Any]], Any]:
    """How a driver wants its parameters: by name, or as a tuple in the order of `names`."""
    if names is None:
        return lambda values: values
    if len(names) > 1:
        return itemgetter(*names)
    return lambda values: tuple(values[name] for name in names)
