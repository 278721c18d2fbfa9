"""Tables and views from nothing, again without harm, and the public views exactly as docs/sql-views.md says."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from storage import results, senders
from storage.audit_log import AuditLog
from storage.database import DatabaseTooNew, alembic_config, foreign_tables_aside, migrate, newest_version, node_id, open_engine, readonly
from storage.index import ReceivedInstance, admit, freeze_revision
from storage.schema import metadata

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "sql-views.md"
VIEWS = ("results", "deliveries", "audit", "waits")
UTC_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def documented(view: str) -> list[str]:
    """Columns of the table under the heading of the view."""
    section = DOCUMENT.read_text(encoding="utf-8").split(f"\n## {view}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


def columns(conn: sa.Connection, name: str) -> list[str]:
    return [row[1] for row in conn.exec_driver_sql(f"pragma table_info({name})")]


def test_migrations_make_the_tables_that_the_program_uses(engine: sa.Engine) -> None:
    with readonly(engine).connect() as conn:
        assert compare_metadata(MigrationContext.configure(conn, opts={"include_object": foreign_tables_aside}), metadata) == []
        for name, table in metadata.tables.items():
            assert columns(conn, name) == [c.name for c in table.columns]


def test_the_newest_version_is_told_without_alembic() -> None:
    assert newest_version() == ScriptDirectory.from_config(alembic_config()).get_current_head()


def test_a_migration_does_not_follow_later_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first version is frozen: a column that a later version adds must come by its own migration."""
    later = sa.Column("later", sa.String)
    metadata.tables["node_fact"].append_column(later)
    try:
        engine = open_engine(tmp_path / "node.db")
        migrate(engine)
        with readonly(engine).connect() as conn:
            assert columns(conn, "node_fact") == ["name", "value"]
    finally:
        metadata.tables["node_fact"]._columns.remove(later)


def test_again_is_harmless(engine: sa.Engine) -> None:
    identity = node_id(engine)
    with readonly(engine).connect() as conn:
        before = conn.exec_driver_sql("select sql from sqlite_master order by name").all()
    migrate(engine)
    with readonly(engine).connect() as conn:
        assert conn.exec_driver_sql("select sql from sqlite_master order by name").all() == before
    assert node_id(engine) == identity and re.fullmatch("[0-9a-f]{32}", identity)


def test_two_processes_that_start_at_once(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def start() -> None:
        try:
            migrate(open_engine(tmp_path / "node.db"))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_the_first_version_is_brought_up_with_its_rows(tmp_path: Path) -> None:
    engine = open_engine(tmp_path / "node.db")
    config = alembic_config()
    with engine.begin() as conn:
        config.attributes["connection"] = conn
        command.upgrade(config, "0001")
        assert not columns(conn, "sender_habit")
        conn.exec_driver_sql("insert into node_fact values ('node_id', 'kept')")
    migrate(engine)
    assert node_id(engine) == "kept"
    with readonly(engine).connect() as conn:
        assert columns(conn, "waits") and compare_metadata(MigrationContext.configure(conn, opts={
            "include_object": foreign_tables_aside}), metadata) == []


def test_a_database_of_a_newer_program_is_left_alone(engine: sa.Engine) -> None:
    with engine.begin() as conn:
        conn.exec_driver_sql("update alembic_version set version_num = '9999'")
    with pytest.raises(DatabaseTooNew, match="newer version") as caught:
        migrate(engine)
    assert "\n" not in str(caught.value)


def test_tables_of_the_workflow_engine_are_none_of_ours(engine: sa.Engine) -> None:
    with engine.begin() as conn:
        conn.exec_driver_sql("create table workflow_status (id integer)")
    migrate(engine)
    with readonly(engine).connect() as conn:
        assert compare_metadata(MigrationContext.configure(conn, opts={"include_object": foreign_tables_aside}), metadata) == []


@pytest.mark.parametrize("view", VIEWS)
def test_the_public_views_are_as_documented(engine: sa.Engine, view: str) -> None:
    with readonly(engine).connect() as conn:
        assert columns(conn, view) == documented(view) != []
        kinds = dict(conn.exec_driver_sql("select name, type from sqlite_master").all())
    assert kinds[view] == "view"


def test_the_results_table_prints_documented_columns() -> None:
    assert set(results.RESULT_COLUMNS) <= set(documented("results"))


def fill(engine: sa.Engine, log: AuditLog) -> None:
    with engine.begin() as conn:
        row = admit(conn, ReceivedInstance("1.2", "1.2.3", "1.2.3.4", "1", "2", "a" * 64, 10, "p", "SENDER", facts={"modality": "CT"}))
        revision_id = freeze_revision(conn, row.series_id, "quiet")
        object_id = results.add_object(conn, revision_id=revision_id, kind="sr", sop_class_uid="1.88", sop_uid="2.25.1", series_uid="2.25.2",
                                       study_uid="1.2", path="r", digest="b" * 64, bytes=1)
        conn.execute(metadata.tables["delivery"].insert().values(revision_id=revision_id, kind="sr", destination="pacs", object_id=object_id,
                                                                 made_at="2026-01-01T00:00:00.000000Z"))
        senders.keep_habit(conn, "SENDER", "CT", wait=None, contiguous=5.0, longest=1.5, between=0.5, seen=1, split=0, history="[]")
        log.append(conn, "received", "receiver", series_uid="1.2.3", instances=1)
        log.append(conn, "completed", "worker", series_uid="1.2.3", reason="quiet")


def test_every_time_of_a_view_is_utc(engine: sa.Engine, log: AuditLog) -> None:
    fill(engine, log)
    with readonly(engine).connect() as conn:
        for view in VIEWS:
            rows = [dict(r._mapping) for r in conn.execute(sa.text(f"select * from {view}"))]
            assert rows
            times = [v for row in rows for name, v in row.items() if name == "at" or name.endswith("_at")]
            assert {bool(UTC_TIME.fullmatch(v)) for v in times if v is not None} == {True}, view


def test_the_audit_log_reads_well_in_sqlite3(engine: sa.Engine, log: AuditLog) -> None:
    """What the manual says: the command line tool alone tells the story of a series."""
    fill(engine, log)
    done = subprocess.run(["sqlite3", "-readonly", str(engine.url.database), "select * from audit"], capture_output=True, text=True, check=True)
    lines = [line.split("|") for line in done.stdout.splitlines()]
    assert [(line[0], line[2], line[3], line[5], line[7]) for line in lines] == [
        ("1", "received", "receiver", "1.2.3", '{"instances":1}'), ("2", "completed", "worker", "1.2.3", '{"reason":"quiet"}')]
    assert all(UTC_TIME.fullmatch(line[1]) and re.fullmatch("[0-9a-f]{64}", line[8]) for line in lines)


def test_a_reader_of_a_view_waits_for_no_writer(engine: sa.Engine, log: AuditLog) -> None:
    fill(engine, log)
    with engine.begin() as conn:
        log.append(conn, "test", "x")
        con = sqlite3.connect(f"file:{engine.url.database}?mode=ro", uri=True, timeout=0)
        assert con.execute("select count(*) from audit").fetchone() == (2,)
        con.close()
