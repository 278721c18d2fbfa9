"""A prepared statement says what the engine says, in the caller's transaction, with the engine's errors and without the values in them."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from storage.database import Readers
from storage.prepared import Prepared, plainly
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
    assert order({"name": 1}) == {"name": 1} and "%(name)s" in text and set(given.values()) == {"a", "A", "other"}


def test_readers_see_what_is_committed_and_block_nobody(engine: sa.Engine) -> None:
    insert, select, readers = Prepared(INSERT), Prepared(SELECT), Readers(engine)
    with readers.connection() as one:
        assert select.rows(one, name="a") == []
        with engine.begin() as conn:
            insert.rows(conn, name="a")
            with readers.connection() as other:
                assert other is not one and select.rows(other, name="a") == []
        assert select.rows(one, name="a") == [("a", "A")]  # no older state is held
    with readers.connection() as conn:
        assert conn in (one, other)  # they are kept
    with pytest.raises(sa.exc.OperationalError), readers.connection() as broken:
        plainly(broken, "select * from nothing")
    with readers.connection() as conn:
        assert conn is not broken
    readers.close()


def test_a_statement_that_fails_to_begin_says_so_as_the_engine_does(engine: sa.Engine) -> None:
    other = sa.create_engine(engine.url, connect_args={"timeout": 0})
    sa.event.listen(other, "begin", lambda conn: plainly(conn, "BEGIN IMMEDIATE"))
    with engine.begin(), pytest.raises(sa.exc.OperationalError, match="locked"), other.begin():
        pass
    other.dispose()
