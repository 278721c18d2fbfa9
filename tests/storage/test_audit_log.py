"""The audit chain: whoever edits, deletes, swaps, inserts or cuts off one row is found, and a power cut is not called tampering."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import Result
from typer.testing import CliRunner

from node.cli import app
from storage import audit_log
from storage.audit_log import AuditKeyError, AuditLog, canonical, load_key
from storage.database import open_engine

ROOT = Path(__file__).resolve().parents[2]
N = 8


def fill(engine: sa.Engine, log: AuditLog, count: int = N, anchor: bool = True) -> None:
    for k in range(count):
        with engine.begin() as conn:
            log.append(conn, "received", "receiver", study_uid="1.2", series_uid=f"1.2.{k}", instances=k, peer="127.0.0.1", left_out=None)
    if anchor:
        log.anchor()


def raw(engine: sa.Engine, *statements: str) -> None:
    """What somebody does with the sqlite3 command."""
    con = sqlite3.connect(str(engine.url.database), timeout=20)
    for statement in statements:
        con.execute(statement)
    con.commit()
    con.close()


SWAP = ("update audit_record set seq = -1 where seq = 3", "update audit_record set seq = 3 where seq = 5",
        "update audit_record set seq = 5 where seq = -1")
COPY = "insert into audit_record select {}, at, event, actor, study_uid, series_uid, sop_uid, details, mac from audit_record where seq = 4"
SHIFT = "update audit_record set seq = seq + 100 where seq >= 4", "update audit_record set seq = seq - 99 where seq >= 104"
TAMPERING: dict[str, tuple[tuple[str, ...], int]] = {
    "edit details": (("update audit_record set details = '{\"instances\":99}' where seq = 4",), 4),
    "edit one character": (("update audit_record set details = replace(details, '127.0.0.1', '127.0.0.2') where seq = 4",), 4),
    "edit time": (("update audit_record set at = '2020-01-01T00:00:00.000000Z' where seq = 1",), 1),
    "edit event": (("update audit_record set event = 'delivered' where seq = 8",), 8),
    "edit actor": (("update audit_record set actor = 'operator' where seq = 2",), 2),
    "edit study": (("update audit_record set study_uid = '1.3' where seq = 5",), 5),
    "empty series": (("update audit_record set series_uid = null where seq = 5",), 5),
    "fill instance": (("update audit_record set sop_uid = '1.9' where seq = 5",), 5),
    "edit mac": (("update audit_record set mac = '00' || substr(mac, 3) where seq = 6",), 6),
    "details as blob": (("update audit_record set details = x'00ff' where seq = 4",), 4),
    "details no UTF-8": (("update audit_record set details = cast(x'7bff7d' as text) where seq = 4",), 4),
    "mac as blob": (("update audit_record set mac = cast(mac as blob) where seq = 4",), 4),
    "mac no UTF-8": (("update audit_record set mac = cast(x'ff' as text) where seq = 8",), 8),
    "delete first": (("delete from audit_record where seq = 1",), 1),
    "delete middle": (("delete from audit_record where seq = 4",), 4),
    "delete and close the gap": (("delete from audit_record where seq = 4", "update audit_record set seq = seq - 1 where seq > 4"), 4),
    "swap": (SWAP, 3),
    "insert before": ((COPY.format(0),), 0),
    "insert in between": ((*SHIFT, COPY.format(4).replace("seq = 4", "seq = 3")), 4),
    "insert at the end": ((COPY.format(9),), 9),
    "cut off one": (("delete from audit_record where seq = 8",), 8),
    "cut off three": (("delete from audit_record where seq > 5",), 6),
    "cut off all": (("delete from audit_record",), 1),
}


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


def test_another_key_is_called_that(engine: sa.Engine, log: AuditLog, tmp_path: Path) -> None:
    fill(engine, log)
    report = AuditLog(engine, tmp_path / "other.key", tmp_path / "data" / "audit.anchor").verify()
    assert not report.ok and report.first_bad_seq == 1 and "another key" in report.problem
    raw(engine, "update audit_record set actor = 'x' where seq = 1")
    assert "another key" not in log.verify().problem


def test_the_key_is_made_once_and_for_this_user_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys" / "audit.key"
    before = os.umask(0)
    try:
        key = load_key(file)
    finally:
        os.umask(before)
    assert len(key) == 32 and load_key(file) == key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [p.name for p in file.parent.iterdir()] == ["audit.key"]


def test_two_processes_that_make_the_key_at_once_have_one(tmp_path: Path) -> None:
    """Receiver and worker start together: neither may see half a key."""
    file, keys, errors = tmp_path / "audit.key", set(), []
    start = threading.Barrier(8)

    def make() -> None:
        start.wait()
        try:
            keys.add(load_key(file))
        except AuditKeyError as error:
            errors.append(error)

    for _ in range(20):
        file.unlink(missing_ok=True)
        keys.clear()
        threads = [threading.Thread(target=make) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(keys) == 1 and errors == []
    assert [p.name for p in tmp_path.iterdir()] == ["audit.key"]


@pytest.mark.parametrize("content", ["", "abcd", "not hexadecimal", "\xff"])
def test_a_spoiled_key_is_one_line(tmp_path: Path, content: str) -> None:
    file = tmp_path / "audit.key"
    file.write_text(content, encoding="latin-1")
    with pytest.raises(AuditKeyError, match=r"audit\.key.*restore it") as caught:
        load_key(file)
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_not_made_by_those_who_only_look(engine: sa.Engine, tmp_path: Path) -> None:
    with pytest.raises(AuditKeyError, match="restore it"):
        AuditLog(engine, tmp_path / "gone.key", tmp_path / "anchor", make_key=False)
    assert not (tmp_path / "gone.key").exists()


def test_a_key_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AuditKeyError, match=r"storage\.audit_key"):
        load_key(tmp_path / "file" / "audit.key")


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


# The command, as the operator has it.

Mediqa = Callable[..., Result]


@pytest.fixture
def config(engine: sa.Engine, log: AuditLog, tmp_path: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text("node: {data: data}\n", encoding="ascii")
    return file


@pytest.fixture
def mediqa(config: Path) -> Mediqa:
    return lambda *args: CliRunner().invoke(app, ["audit", *args, "-c", str(config)])


def test_the_command_finds_and_names_one_row(engine: sa.Engine, log: AuditLog, config: Path, tmp_path: Path) -> None:
    """As a process, on a database that somebody worked on with sqlite3."""
    command = [sys.executable, "-m", "node", "audit", "verify", "-c", str(config)]
    fill(engine, log)
    raw(engine, "pragma wal_checkpoint(truncate)")
    shutil.copy(tmp_path / "data" / "node.db", tmp_path / "whole.db")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"audit log: {N} records, the chain holds\n", "")
    for name in ("edit details", "delete middle", "swap", "cut off one"):
        statements, bad = TAMPERING[name]
        raw(engine, *statements)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and re.search(rf"\brecord {bad}\b", done.stdout) and done.stderr == "", name
        engine.dispose()
        for left in (tmp_path / "data").glob("node.db*"):
            left.unlink()
        shutil.copy(tmp_path / "whole.db", tmp_path / "data" / "node.db")


def test_the_command_says_so_in_json(engine: sa.Engine, log: AuditLog, mediqa: Mediqa) -> None:
    fill(engine, log)
    assert json.loads(mediqa("verify", "--json").stdout) == {"ok": True, "records": N, "first_bad_seq": None, "problem": ""}
    raw(engine, *TAMPERING["insert in between"][0])
    done = mediqa("verify", "--json")
    said = json.loads(done.stdout)
    assert done.exit_code == 1 and (said["ok"], said["first_bad_seq"], said["records"]) == (False, 4, 3)


def test_the_command_shows_a_tampered_log(engine: sa.Engine, log: AuditLog, mediqa: Mediqa) -> None:
    """What somebody wrote into the table stops neither list nor export, and drives no terminal."""
    fill(engine, log, 3)
    raw(engine, "update audit_record set details = cast(x'ff' as text) where seq = 1", "update audit_record set details = x'00' where seq = 2",
        "update audit_record set series_uid = char(27) || '[31m' where seq = 3")
    for args in (("list",), ("list", "--json"), ("export",), ("export", "--csv")):
        done = mediqa(*args)
        assert done.exit_code == 0 and done.stderr == "" and "receiver" in done.stdout, args
        assert "\x1b" not in done.stdout or args == ("export", "--csv"), args


def test_the_command_without_log_key_or_database_is_one_line(engine: sa.Engine, log: AuditLog, mediqa: Mediqa, tmp_path: Path) -> None:
    fill(engine, log, 2)
    data = tmp_path / "data"
    (data / "audit.key").rename(tmp_path / "key")
    done = mediqa("verify")
    assert done.exit_code == 1 and done.stderr.count("\n") == 1 and "audit.key" in done.stderr and not (data / "audit.key").exists()
    (tmp_path / "key").rename(data / "audit.key")
    engine.dispose()
    raw(engine, "drop view audit", "drop table audit_record")
    done = mediqa("verify")
    assert done.exit_code == 1 and done.stderr.count("\n") == 1 and "no audit log" in done.stderr
    for left in data.glob("node.db-*"):
        left.unlink()
    (data / "node.db").write_bytes(b"this is no database, " * 100)
    done = mediqa("list")
    assert done.exit_code == 1 and done.stderr.count("\n") == 1 and "cannot be read" in done.stderr
    (data / "node.db").unlink()
    done = mediqa("verify")
    assert done.exit_code == 1 and "no audit log" in done.stderr and not (data / "node.db").exists()


def test_the_command_lists_and_exports(engine: sa.Engine, log: AuditLog, mediqa: Mediqa) -> None:
    fill(engine, log, 3)
    rows = json.loads(mediqa("list", "--json", "--series", "1.2.1").stdout)["records"]
    assert [(r["seq"], r["event"], r["details"]) for r in rows] == [(2, "received", {"instances": 1, "peer": "127.0.0.1"})]
    lines = [json.loads(line) for line in mediqa("export").stdout.splitlines()]
    assert [r["seq"] for r in lines] == [1, 2, 3] and all(len(r["mac"]) == 64 for r in lines)
    table = mediqa("export", "--csv", "--event", "received").stdout.splitlines()
    assert table[0] == "seq,at,event,actor,study_uid,series_uid,sop_uid,details,mac" and len(table) == 4
