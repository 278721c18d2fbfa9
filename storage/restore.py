"""A backup takes the place of the database (docs/decisions/0019): prepared beside it, told in its own audit chain, then named in one step.

What came after the backup is not lost: received files without rows are adopted at the next start, rendered results lie under names that their
content derives, and the replaced database, with the lines of the anchor file that name its records alone, is kept aside.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from storage.audit_log import RESTORED, AuditLog, read_anchors
from storage.backup import ANCHOR, BackupError, Copy, copy_database, inspect, write_synced
from storage.database import migrate, open_engine
from storage.objects import sync_directory
from storage.schema import audit_record, revision

LOG = "-wal"
"""Suffix of SQLite's write-ahead log."""
NEW, ASIDE = ".restoring", ".replaced-"
"""Suffixes of the copy that is prepared, and (with a time) of what it replaces."""


@dataclass(frozen=True)
class Restored:
    """records: of the audit chain of the backup. replaced: those of the replaced database after it, as far as known. aside: that database, None
    where there was none. anchored: the backup's anchor was there. newest_revision: id of the newest revision that it knows."""

    records: int
    replaced: int
    aside: Path | None
    anchored: bool
    newest_revision: int


def restore(file: Path, database: Path, key_file: Path, anchor_file: Path, at: str) -> Restored:
    """Put the copy `file` in the place of `database`; nobody may use that. `at` is UTC text. BackupError, AuditKeyError."""
    found = inspect(file)
    new = database.with_name(database.name + NEW)
    stamp = "".join(c for c in at if c.isdigit())[:14]
    aside = database.with_name(f"{database.name}{ASIDE}{stamp}")
    database.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    readable = _readable(database, aside)
    try:
        _same_node(found, database)
        copy_database(file, new)
        engine = open_engine(new, "FULL")
        try:
            anchored = _verify(engine, file, key_file)
            migrate(engine)
            carry_marks(database, new)
            replaced = _tell(engine, found, database, key_file, anchor_file, at, aside.name if database.exists() else None)
            rewind(engine, anchor_file, anchor_file.with_name(f"{anchor_file.name}{ASIDE}{stamp}"))
            with engine.connect() as conn:
                newest = conn.execute(sa.select(sa.func.coalesce(sa.func.max(revision.c.id), 0))).scalar_one()
        finally:
            engine.dispose()
        there = database.exists()
        put_in_place(new, database, aside)
    except OSError as error:
        raise BackupError(f"{error.filename or database} cannot be written ({error.strerror}), make room or mend its rights") from None
    finally:
        if readable:
            aside.with_name(aside.name + LOG).unlink(missing_ok=True)
        for suffix in ("", LOG, "-shm"):
            new.with_name(new.name + suffix).unlink(missing_ok=True)
    return Restored(found.head[0] if found.head else 0, replaced, aside if there else None, anchored, int(newest))


def _readable(database: Path, aside: Path) -> bool:
    """Whether the database opens. Its log is copied aside before, since SQLite throws away the log of a file that does not."""
    log = database.with_name(database.name + LOG)
    if log.exists():
        write_synced(aside.with_name(aside.name + LOG), log.read_bytes())
    return head_of(database) is not None


def _same_node(found: Copy, database: Path) -> None:
    """Result UIDs derive from the identity of the node: with another one the PACS would get everything twice."""
    if not database.exists():
        return
    try:
        with closing(sqlite3.connect(database, timeout=30)) as con:
            mine = con.execute("select value from node_fact where name = 'node_id'").fetchone()
    except sqlite3.DatabaseError:
        return  # what cannot be read is what the restore is for
    if mine and found.node_id != mine[0]:
        raise BackupError(f"{found.path} is of another node; move {database} away first if it is to take the place of this one")


def _verify(engine: sa.Engine, file: Path, key_file: Path) -> bool:
    """Whether the anchor lies beside the copy; BackupError when its audit chain does not hold."""
    anchor = file.with_name(file.name + ANCHOR)
    report = AuditLog(engine, key_file, anchor, make_key=False).verify(anchored=anchor.exists())
    if not report.ok:
        raise BackupError(f"{file} is not what was backed up: {report.problem}; take another copy")
    return anchor.exists()


def _tell(engine: sa.Engine, found: Copy, database: Path, key_file: Path, anchor_file: Path, at: str, aside: str | None) -> int:
    """The record that says so, in the chain of the backup; how many records of the replaced log are not in it."""
    head, anchors = head_of(database), read_anchors(anchor_file)
    newest = max(head[0] if head else 0, *(seq for seq, _, _ in anchors), 0)
    mine = found.head[0] if found.head else 0
    missing = max(0, newest - mine)
    audit = AuditLog(engine, key_file, anchor_file, make_key=False)
    with engine.begin() as conn:
        audit.append(conn, RESTORED, "operator", records=mine, records_replaced=missing, replaced_head=head and list(head),
                     replaced_anchor=list(anchors[-1][:2]) if anchors else None, replaced=aside, at=at)
    return missing


def rewind(engine: sa.Engine, anchor_file: Path, aside: Path) -> None:
    """Lines of the anchor file that name records of the replaced log alone go; the whole file is kept as `aside`.

    Whoever may write that file could take them away as well; that a restore did is a signed record of the log.
    """
    lines = read_anchors(anchor_file)
    with engine.connect() as conn:
        mine = {int(seq): mac for seq, mac in conn.execute(sa.select(audit_record.c.seq, audit_record.c.mac))} if lines else {}
    kept = [line for line in lines if mine.get(line[0]) == line[1]]
    if len(kept) < len(lines):
        write_synced(aside, anchor_file.read_bytes())
        write_synced(anchor_file, "".join(f"{seq} {mac} {at}\n" for seq, mac, at in kept).encode("ascii"))


def carry_marks(replaced: Path, new: Path) -> int:
    """What retention has deleted since the copy was made is known to the database that is replaced; how many instances. 0 if that cannot be read."""
    if not replaced.exists():
        return 0
    try:
        with closing(sqlite3.connect(replaced, timeout=30)) as con:
            gone = con.execute("select deleted_at, path from instance where deleted_at is not null").fetchall()
            empty = con.execute("select emptied_at, study_uid, series_uid from series where emptied_at is not null").fetchall()
    except sqlite3.DatabaseError:
        return 0
    with closing(sqlite3.connect(new)) as con, con:
        before = con.total_changes
        con.executemany("update instance set deleted_at = ? where path = ? and deleted_at is null", gone)
        count = con.total_changes - before
        con.executemany("update series set emptied_at = ? where study_uid = ? and series_uid = ? and emptied_at is null "
                        "and not exists (select 1 from instance i where i.series_id = series.id and i.deleted_at is null)", empty)
    return count


def head_of(database: Path) -> tuple[int, str] | None:
    """Head of the audit chain of a database that may be damaged; None when it cannot be told."""
    if not database.exists():
        return None
    try:
        with closing(sqlite3.connect(database, timeout=30)) as con:
            found = con.execute("select seq, mac from audit_record order by seq desc limit 1").fetchone()
    except sqlite3.DatabaseError:
        return None
    return found


def put_in_place(new: Path, database: Path, aside: Path) -> None:
    """Put the prepared file `new` in the place of `database`, which goes on as `aside`. At each moment one of them bears the name."""
    _settle(database)
    for suffix in (LOG, "-shm"):  # left only by a database that cannot be opened; another one must not meet them
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    if database.exists():
        os.link(database, aside)
    new.rename(database)
    sync_directory(database.parent)


def _settle(database: Path) -> None:
    """The write-ahead log goes into the file; what cannot be opened stays as it is."""
    if not database.exists():
        return
    try:
        with closing(sqlite3.connect(database, timeout=30)) as con:
            con.execute("pragma wal_checkpoint(truncate)")
            con.execute("pragma journal_mode=delete")
    except sqlite3.DatabaseError:
        pass
