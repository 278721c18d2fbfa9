"""Copies of the database while it is written to, and what a restore refuses."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from storage import backup
from storage.audit_log import AuditLog, read_anchors
from storage.backup import BackupError, back_up
from storage.database import node_id, open_engine
from storage.restore import restore

NOW = "2026-03-01T01:17:00.000000Z"
LATER = "2026-03-02T08:00:00.000000Z"


@pytest.fixture
def place(tmp_path: Path, engine: sa.Engine, log: AuditLog) -> Path:
    """Folder of a database with ten audit records, anchored."""
    node_id(engine)
    write(engine, log, 10)
    log.anchor()
    return tmp_path / "data"


def write(engine: sa.Engine, log: AuditLog, count: int) -> None:
    for k in range(count):
        with engine.begin() as conn:
            log.append(conn, "received", "receiver", series_uid=f"1.2.{k}")


def again(place: Path, copy: Path) -> tuple[object, AuditLog]:
    done = restore(copy, place / "node.db", place / "audit.key", place / "audit.anchor", LATER)
    log = AuditLog(open_engine(place / "node.db"), place / "audit.key", place / "audit.anchor", make_key=False)
    return done, log


def test_a_copy_is_whole_while_others_write(place: Path, engine: sa.Engine, log: AuditLog, tmp_path: Path) -> None:
    stop = threading.Event()

    def traffic() -> None:
        while not stop.is_set():
            write(engine, log, 1)

    writer = threading.Thread(target=traffic)
    writer.start()
    try:
        copies = [back_up(place / "node.db", tmp_path / "copies" / f"{k}.db", NOW) for k in range(5)]
    finally:
        stop.set()
        writer.join()
    heads = [copy.head for copy in copies]
    assert all(head is not None and head[0] >= 10 for head in heads) and heads == sorted(heads) and heads[0] != heads[-1]
    for copy in copies:
        assert sorted(p.name for p in copy.path.parent.glob(copy.path.name + "*")) == [copy.path.name, copy.path.name + ".anchor"]
        assert read_anchors(Path(f"{copy.path}.anchor")) == [(*copy.head, NOW)] and copy.path.stat().st_mode & 0o777 == 0o600
        own = open_engine(copy.path)
        assert AuditLog(own, place / "audit.key", Path(f"{copy.path}.anchor")).verify().records == copy.head[0]
        own.dispose()


def test_a_restored_log_tells_so(place: Path, engine: sa.Engine, log: AuditLog, tmp_path: Path) -> None:
    copy = back_up(place / "node.db", tmp_path / "copy.db", NOW).path
    write(engine, log, 5)
    log.anchor()
    write(engine, log, 2)
    engine.dispose()
    done, log = again(place, copy)
    assert (done.records, done.replaced, done.anchored) == (10, 7, True) and done.aside.name == "node.db.replaced-20260302080000"
    report = log.verify()
    assert report.ok and report.records == 11 and [(r.seq, r.missing) for r in report.restored] == [(11, 7)]
    [record] = log.records(event="restored")
    assert record["actor"] == "operator" and record["details"]["records"] == 10 and record["details"]["replaced"] == done.aside.name
    log.anchor()
    assert [seq for seq, _, _ in read_anchors(place / "audit.anchor")] == [10, 11]
    assert len(read_anchors(place / "audit.anchor.replaced-20260302080000")) == 2
    # the replaced database is whole, and the log as vouched for as ever: its tail cannot be cut
    assert sqlite3.connect(done.aside).execute("select count(*) from audit_record").fetchone() == (17,)
    with log._engine.begin() as conn:
        conn.exec_driver_sql("delete from audit_record where seq = 11")
    assert not log.verify().ok
    assert not list(place.glob("*.restoring*")) and not list(place.glob("*.part"))


def test_an_old_copy_put_back_by_hand_is_found(place: Path, engine: sa.Engine, log: AuditLog, tmp_path: Path) -> None:
    copy = back_up(place / "node.db", tmp_path / "copy.db", NOW).path
    write(engine, log, 5)
    log.anchor()
    engine.dispose()
    for left in place.glob("node.db*"):
        left.unlink()
    (place / "node.db").write_bytes(copy.read_bytes())
    report = AuditLog(open_engine(place / "node.db"), place / "audit.key", place / "audit.anchor").verify()
    assert not report.ok and "cut off" in report.problem


def test_restored_twice_and_onto_nothing(place: Path, engine: sa.Engine, log: AuditLog, tmp_path: Path) -> None:
    first = back_up(place / "node.db", tmp_path / "1.db", NOW).path
    write(engine, log, 3)
    second = back_up(place / "node.db", tmp_path / "2.db", NOW).path
    engine.dispose()
    _, log = again(place, first)
    log.anchor()
    log._engine.dispose()
    (place / "node.db").rename(place / "elsewhere.db")
    done, log = again(place, second)
    assert done.aside is None and log.verify().ok and [r.seq for r in log.verify().restored] == [14]
    log._engine.dispose()
    # the anchor of the copy is gone, the chain still holds by its key
    Path(f"{second}.anchor").unlink()
    (place / "node.db").unlink()
    assert again(place, second)[0].anchored is False


def test_a_database_that_cannot_be_opened_is_replaced_and_kept(place: Path, engine: sa.Engine, tmp_path: Path) -> None:
    copy = back_up(place / "node.db", tmp_path / "copy.db", NOW).path
    engine.dispose()
    (place / "node.db").write_bytes(b"what a bad disk left" * 1000)
    (place / "node.db-wal").write_bytes(b"and of its log")
    done, log = again(place, copy)
    assert log.verify().ok and done.aside.read_bytes().startswith(b"what a bad") and Path(f"{done.aside}-wal").exists()


@pytest.mark.parametrize("what, words", [
    ("twice", "exists already"), ("none", "there is no file"), ("text", "no database of this program"), ("torn", "damaged"),
    ("edited", "record 4 does not hold"), ("cut", "were cut off"), ("newer", "newer version"), ("foreign", "of another node")])
def test_what_is_refused_is_one_line(place: Path, engine: sa.Engine, tmp_path: Path, what: str, words: str) -> None:
    copy = back_up(place / "node.db", tmp_path / "copy.db", NOW).path
    before = (place / "node.db").read_bytes()

    def run(sql: str) -> None:
        with sqlite3.connect(copy) as con:
            con.execute(sql)
        con.close()

    if what == "none":
        copy = tmp_path / "nothing.db"
    elif what == "text":
        copy.write_text("no database")
    elif what == "torn":
        copy.write_bytes(copy.read_bytes()[:-8192])
    elif what == "edited":
        run("update audit_record set event = 'ended' where seq = 4")
    elif what == "cut":
        run("delete from audit_record where seq > 8")
    elif what == "newer":
        run("update alembic_version set version_num = '9999'")
    elif what == "foreign":
        run("update node_fact set value = 'somebody' where name = 'node_id'")
    with pytest.raises(BackupError) as caught:
        back_up(place / "node.db", copy, NOW) if what == "twice" else again(place, copy)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert (place / "node.db").read_bytes() == before and not list(place.glob("*.restoring*"))


def test_which_scheduled_copies_go() -> None:
    names = ["node-20260103T011700Z.db", "node-20260101T011700Z.db", "node-20260102T011700Z.db"]
    assert backup.expired(names, 2) == ["node-20260101T011700Z.db"]
    assert backup.expired(names, 3) == backup.expired([], 1) == []
