"""The audit chain: whoever edits, deletes, swaps, inserts or cuts off one row is found, and a power cut is not called tampering."""

from __future__ import annotations

import multiprocessing
import re
import shutil
import stat
from pathlib import Path

import pytest
import sqlalchemy as sa

from storage import audit_log
from storage.audit_log import AuditLog, canonical
from storage.database import open_engine
from tests.support.audit import TAMPERING, N, fill, raw


@pytest.mark.parametrize("name", TAMPERING)
def test_tampering_is_found_and_named(engine: sa.Engine, log: AuditLog, name: str) -> None:
    statements, bad = TAMPERING[name]
    fill(engine, log)
    assert log.verify() == audit_log.VerifyReport(True, N)
    raw(engine, *statements)
    report = log.verify()
    assert not report.ok and report.first_bad_seq == bad
    assert re.search(rf"\brecords? {bad}\b", report.problem), report.problem
    assert report.records == max(bad - 1, 0)


def test_a_cut_tail_stays_found_when_the_node_goes_on(engine: sa.Engine, log: AuditLog) -> None:
    fill(engine, log)
    raw(engine, "delete from audit_record where seq > 6")
    fill(engine, log, 4)
    report = log.verify()
    assert not report.ok and report.first_bad_seq == 8 and "8" in report.problem


def test_an_old_database_put_back_is_found(engine: sa.Engine, log: AuditLog, tmp_path: Path) -> None:
    fill(engine, log)
    database = Path(str(engine.url.database))
    raw(engine, "pragma wal_checkpoint(truncate)")
    shutil.copy(database, tmp_path / "old.db")
    fill(engine, log, 5)
    engine.dispose()
    for left in database.parent.glob("node.db*"):
        left.unlink()
    shutil.copy(tmp_path / "old.db", database)
    report = log.verify()
    assert not report.ok and report.first_bad_seq == N + 1 and "cut off" in report.problem


class PowerCut:
    """What is on the disk at a moment, as after a power cut: copies of the files whose content was synced by then."""

    def __init__(self, engine: sa.Engine, folder: Path) -> None:
        self._engine, self._folder, self._database = engine, folder, Path(str(engine.url.database))

    def remember(self) -> None:
        self._folder.mkdir()
        for name in ("node.db", "node.db-wal"):
            shutil.copy(self._database.with_name(name), self._folder / name)

    def strike(self) -> None:
        self._engine.dispose()
        for left in self._database.parent.glob("node.db*"):
            left.unlink()
        for file in self._folder.iterdir():
            shutil.copy(file, self._database.parent)


def test_a_power_cut_is_no_tampering(engine: sa.Engine, log: AuditLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows after the last sync are gone; the node goes on with their numbers; the anchor names only what survived."""
    cut = PowerCut(engine, tmp_path / "disk")
    fill(engine, log, 5, anchor=False)
    real = AuditLog._write_anchor

    def anchor_of_a_busy_node(self: AuditLog, head: tuple[int, str], known: int) -> None:
        cut.remember()  # the head is about to be anchored: it must be on the disk now
        fill(engine, self, 3, anchor=False)  # another process appends meanwhile, without a sync
        real(self, head, known)

    monkeypatch.setattr(AuditLog, "_write_anchor", anchor_of_a_busy_node)
    assert log.anchor()[0] == 5
    monkeypatch.undo()
    assert log.verify() == audit_log.VerifyReport(True, 8)
    cut.strike()
    assert log.verify() == audit_log.VerifyReport(True, 5)
    fill(engine, log, 6)
    assert log.verify() == audit_log.VerifyReport(True, 11)


def test_what_is_anchored_was_committed_with_a_sync(engine: sa.Engine, log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit before the anchor runs with synchronous FULL (2), and the connection goes back to what it was (1, NORMAL)."""
    fill(engine, log, 3, anchor=False)
    seen: list[int] = []

    @sa.event.listens_for(engine, "commit")
    def at_commit(conn: sa.Connection) -> None:
        seen.append(conn.connection.driver_connection.execute("pragma synchronous").fetchone()[0])

    log.anchor()
    assert 2 in seen
    with engine.connect() as conn:
        assert conn.exec_driver_sql("pragma synchronous").scalar() == 1


def test_anchors(engine: sa.Engine, log: AuditLog, tmp_path: Path) -> None:
    file = tmp_path / "data" / "audit.anchor"
    assert log.anchor() is None and not file.exists()
    fill(engine, log, 3)
    log.anchor()
    lines = file.read_text().splitlines()
    assert len(lines) == 1 and stat.S_IMODE(file.stat().st_mode) == 0o600
    seq, mac, at = lines[0].split()
    assert seq == "3" and re.fullmatch("[0-9a-f]{64}", mac) and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", at)
    fill(engine, log, 2)
    assert [line.split()[0] for line in file.read_text().splitlines()] == ["3", "5"]


@pytest.mark.parametrize("torn", ["1", "4 abc", "4 " + "a" * 64 + " 2026", "garbage \xff\n"])
def test_a_torn_anchor_line_is_no_tampering(engine: sa.Engine, log: AuditLog, tmp_path: Path, torn: str) -> None:
    """The power failed while an anchor was written: the line does not count, and it does not swallow the next one."""
    file = tmp_path / "data" / "audit.anchor"
    fill(engine, log, 3)
    with file.open("ab") as out:
        out.write(torn.encode("latin-1"))
    if len(torn) < 60:
        assert log.verify().ok
    fill(engine, log, 2)
    anchors = [line.split()[0] for line in file.read_text("latin-1").splitlines() if line.split()[1:] and len(line.split()[1]) == 64]
    assert anchors[0] == "3" and anchors[-1] == "5"
    if len(torn) < 60:
        assert log.verify().ok
        raw(engine, "delete from audit_record where seq = 5")
        assert log.verify().first_bad_seq == 5


def test_the_anchor_file_does_not_grow_for_ever(engine: sa.Engine, log: AuditLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_log, "MAX_ANCHORS", 6)
    for _ in range(20):
        fill(engine, log, 1)
    lines = (tmp_path / "data" / "audit.anchor").read_text().splitlines()
    assert len(lines) <= 7 and lines[-1].startswith("20 ") and log.verify().ok
    raw(engine, "delete from audit_record where seq = 20")
    assert log.verify().first_bad_seq == 20


def test_a_missing_anchor_file_is_said(engine: sa.Engine, log: AuditLog, tmp_path: Path) -> None:
    file = tmp_path / "data" / "audit.anchor"
    fill(engine, log, 3, anchor=False)
    assert log.verify().ok  # a young log that was never anchored
    log.anchor()
    file.unlink()
    report = log.verify()
    assert not report.ok and str(file) in report.problem and "cut off" in report.problem
    log.anchor()
    assert log.verify().ok


def test_contradicting_anchors_are_found(engine: sa.Engine, log: AuditLog, tmp_path: Path) -> None:
    fill(engine, log, 3)
    with (tmp_path / "data" / "audit.anchor").open("a") as out:
        out.write(f"3 {'0' * 64} 2026-01-01T00:00:00.000000Z\n")
    assert log.verify().first_bad_seq == 3


def append_many(database: str, key: str, anchor: str, name: str, count: int) -> None:
    """A process of its own: appends, anchors now and then."""
    engine = open_engine(Path(database))
    log = AuditLog(engine, Path(key), Path(anchor))
    for k in range(count):
        with engine.begin() as conn:
            log.append(conn, "test", name, number=k)
        if k % 10 == 0:
            log.anchor()


def test_two_processes_append_to_one_chain(engine: sa.Engine, log: AuditLog, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    data = tmp_path / "data"
    workers = [context.Process(target=append_many, args=(str(data / "node.db"), str(data / "audit.key"), str(data / "audit.anchor"), name, 60))
               for name in ("receiver", "worker")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert log.verify() == audit_log.VerifyReport(True, 120)
    records = log.records(limit=None)
    assert [r["seq"] for r in records] == list(range(1, 121))
    for name in ("receiver", "worker"):
        assert [r["details"]["number"] for r in records if r["actor"] == name] == list(range(60))


def test_a_record_belongs_to_its_transaction(engine: sa.Engine, log: AuditLog) -> None:
    def fail() -> None:
        with engine.begin() as conn:
            log.append(conn, "test", "x")
            raise RuntimeError("rolled back")

    fill(engine, log, 2)
    with pytest.raises(RuntimeError):
        fail()
    fill(engine, log, 1)
    assert log.verify() == audit_log.VerifyReport(True, 3)


def test_details_are_canonical_json(engine: sa.Engine, log: AuditLog) -> None:
    assert canonical({"b": 1, "a": {"d": None, "c": "ü\n"}}) == b'{"a":{"c":"\\u00fc\\n","d":null},"b":1}'
    with engine.begin() as conn:
        log.append(conn, "test", "x", zebra=1, ant="Å", nothing=None, path=Path("a/b"))
        text = conn.execute(sa.text("select details from audit")).scalar_one()
    assert text == '{"ant":"\\u00c5","path":"a/b","zebra":1}'
    assert log.verify().ok and log.records()[0]["details"] == {"ant": "Å", "path": "a/b", "zebra": 1}


def test_hostile_details_are_bounded(engine: sa.Engine, log: AuditLog) -> None:
    with engine.begin() as conn:
        log.append(conn, "store-refused", "receiver", sop_uid="'; drop table audit_record; --\0\x1b[31m", text="x" * 100_000, other=1)
    record = log.records()[0]
    assert record["details"] == {"cut": ["other", "text"]} and record["sop_uid"].startswith("'; drop") and log.verify().ok


def test_filters(engine: sa.Engine, log: AuditLog) -> None:
    fill(engine, log, 5)
    with engine.begin() as conn:
        log.append(conn, "delivered", "worker", series_uid="1.2.3")
    assert [r["seq"] for r in log.records(series_uid="1.2.3")] == [4, 6]
    assert [r["seq"] for r in log.records(event="delivered")] == [6]
    assert [r["seq"] for r in log.records(limit=2)] == [5, 6]
    assert log.records(since="2999") == [] and len(log.records(since="2000-01-01")) == 6
    assert log.records(series_uid="' or 1=1 --") == []
