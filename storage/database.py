"""The only place that opens node.db: engine settings, migrations, the node's identity.

SQLite: WAL, every writing transaction BEGIN IMMEDIATE (a read lock cannot be raised to a write lock without an error), plain BEGIN for
connections with the execution option `readonly`. Transactions are short: no file and no network inside.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from storage.prepared import plainly
from storage.schema import metadata, node_fact

BUSY_MILLISECONDS = 30_000
MIGRATIONS = Path(__file__).with_name("migrations")


class DatabaseTooNew(Exception):
    """The database was made by a newer program; one line that says so."""


def database_url(target: Path | str) -> sa.URL:
    """SQLAlchemy URL of a SQLite file, or of a `postgresql+psycopg://` text."""
    if isinstance(target, Path) or "://" not in str(target):
        return sa.URL.create("sqlite", database=str(target))
    return sa.make_url(str(target))


def open_engine(target: Path | str, synchronous: str = "NORMAL") -> sa.Engine:
    """An engine with the settings above. synchronous: NORMAL, or FULL for what must not be lost once it left the node."""
    if synchronous not in ("NORMAL", "FULL"):
        raise ValueError("synchronous is NORMAL or FULL")
    url = database_url(target)
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(url, pool_pre_ping=True)
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # last in, first out: the connection that was used last has the newest pages in its cache
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_MILLISECONDS / 1000}, pool_use_lifo=True)

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        cursor = connection.cursor()
        for pragma in (f"busy_timeout={BUSY_MILLISECONDS}", "journal_mode=WAL", f"synchronous={synchronous}", "foreign_keys=ON",
                       "temp_store=MEMORY"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        readonly = connection.get_execution_options().get("readonly", False)
        plainly(connection, "BEGIN" if readonly else "BEGIN IMMEDIATE")

    return engine


class Readers:
    """Connections for one reading statement at a time, kept open between them. Safe for many threads; `close` when nothing more is read."""

    def __init__(self, engine: sa.Engine) -> None:
        sqlite = engine.url.get_backend_name() == "sqlite"  # whose connections commit each statement by themselves, see `_connect`
        self._engine = engine if sqlite else engine.execution_options(isolation_level="AUTOCOMMIT")
        self._idle: list[sa.Connection] = []

    @contextmanager
    def connection(self) -> Iterator[sa.Connection]:
        """For statements of `storage.prepared`, each of which sees what is committed when it begins."""
        try:
            conn = self._idle.pop()
        except IndexError:
            conn = self._engine.connect()
        try:
            yield conn
        except BaseException:
            conn.close()
            raise
        self._idle.append(conn)

    def close(self) -> None:
        """Gives the connections back."""
        while self._idle:
            self._idle.pop().close()


def readonly(engine: sa.Engine) -> sa.Engine:
    """The same engine for reports and lists: a reader that never waits for a writer."""
    return engine.execution_options(readonly=True)


def alembic_config() -> Any:
    """Configuration of the migrations inside the package."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


def migrate(engine: sa.Engine) -> None:
    """Bring tables and views to this program's version; DatabaseTooNew when a newer program made them."""
    head = newest_version()
    with readonly(engine).connect() as conn:
        if _revision(conn) == head:
            return  # as at nearly every start: alembic, 11 MB and a fifth of a second, is not even imported
    from alembic import command
    from alembic.util.exc import CommandError

    config = alembic_config()
    with engine.begin() as conn:
        if _revision(conn) == head:
            return  # another process of this node was faster
        config.attributes["connection"] = conn
        try:
            command.upgrade(config, "head")
        except CommandError:
            raise DatabaseTooNew("the database was made by a newer version of the node; install that version or restore a backup") from None


def newest_version() -> str:
    """This program's version of the tables, from the names of the migrations (vNNNN_what.py)."""
    return max(file.name[1:5] for file in (MIGRATIONS / "versions").glob("v[0-9][0-9][0-9][0-9]_*.py"))


def _revision(conn: sa.Connection) -> str | None:
    if not sa.inspect(conn).has_table("alembic_version"):
        return None
    return conn.execute(sa.text("select version_num from alembic_version")).scalar()


def foreign_tables_aside(_object: Any, name: str | None, kind: str, _reflected: bool, _other: Any) -> bool:
    """For alembic: tables of the workflow engine in the same file are not ours."""
    return kind != "table" or name in metadata.tables


def node_id(engine: sa.Engine) -> str:
    """The random identity of this node, made at first use and kept: result UIDs derive from it."""
    with engine.begin() as conn:
        found = conn.execute(sa.select(node_fact.c.value).where(node_fact.c.name == "node_id")).scalar()
        if found is None:
            found = uuid.uuid4().hex
            conn.execute(node_fact.insert().values(name="node_id", value=found))
        return str(found)
