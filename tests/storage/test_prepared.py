"""A prepared statement says what the engine says, in the caller's transaction, with the engine's errors and without the values in them."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from storage.prepared import Prepared
from storage.schema import node_fact

SELECT = sa.select(node_fact.c.name, node_fact.c.value).where(node_fact.c.name == sa.bindparam("name"))
INSERT = node_fact.insert().values(name=sa.bindparam("name"), value=sa.case((sa.bindparam("name") == "a", "A"), else_="other"))


def test_rows_and_literals(engine: sa.Engine) -> None:
    insert, select = Prepared(INSERT), Prepared(SELECT)
    with engine.begin() as conn:
        assert insert.rows(conn, name="a") == insert.rows(conn, name="b") == []
        assert select.rows(conn, name="b") == [("b", "other")] and select.rows(conn, name="x") == []
        assert [tuple(row) for row in conn.execute(SELECT, {"name": "a"})] == select.rows(conn, name="a") == [("a", "A")]
    with pytest.raises(ZeroDivisionError), engine.begin() as conn:
        insert.rows(conn, name="gone")
        raise ZeroDivisionError
    with engine.begin() as conn:
        assert select.rows(conn, name="gone") == []


def test_errors(engine: sa.Engine) -> None:
    insert = Prepared(INSERT)
    with pytest.raises(sa.exc.IntegrityError) as error, engine.begin() as conn:
        insert.rows(conn, name="planted")
        insert.rows(conn, name="planted")
    assert "planted" not in str(error.value)
    with pytest.raises(KeyError), engine.begin() as conn:
        insert.rows(conn)


def test_other_dialects_get_their_own_parameters() -> None:
    text, order, given = Prepared(INSERT)._compile(postgresql.psycopg.dialect())
    assert order is None and "%(name)s" in text and set(given.values()) == {"a", "A", "other"}
