"""Copies of node.db while it is in use, and putting one back (docs/decisions/0019). SQLite only; a PostgreSQL server has tools of its own.

A copy is one file that SQLite's backup call made of one moment, checked, synced and then named; beside it lies the head of its audit
chain (`NAME.anchor`). What a restore replaces is kept beside the database.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from storage.database import newest_version
from storage.objects import make_folders, sync_directory

ANCHOR = ".anchor"
"""Suffix of the file that holds the head of a copy's audit chain: sequence, mac, time."""
PART = ".part"


class BackupError(Exception):
    """Why a copy cannot be made or put back; one line that says what to do."""


@dataclass(frozen=True)
class Copy:
    """A checked copy. `head` is the newest record of its audit chain, None while that is empty."""

    path: Path
    bytes: int
    version: str
    node_id: str
    head: tuple[int, str] | None


def back_up(database: Path, target: Path, now: str) -> Copy:
    """Copy `database` to the new file `target` while others use it; readers and writers go on. `now` is UTC text."""
    if not database.is_file():
        raise BackupError(f"there is no database at {database}")
    if target.exists():
        raise BackupError(f"{target} exists already, name another file")
    part = target.with_name(target.name + PART)
    try:
        make_folders(target.parent, synced=True)
        copy_database(database, part)
        found = inspect(part)
        if found.head is not None:
            write_synced(target.with_name(target.name + ANCHOR), f"{found.head[0]} {found.head[1]} {now}\n".encode("ascii"))
        part.rename(target)
        sync_directory(target.parent)
    except OSError as error:
        raise BackupError(f"{target} cannot be written ({error.strerror}), name a file where the node may write") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return Copy(target, found.bytes, found.version, found.node_id, found.head)


def copy_database(source: Path, target: Path) -> None:
    """The database as it is at one moment, as one synced file that needs no other beside it. BackupError when it cannot be read."""
    target.unlink(missing_ok=True)
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        with closing(sqlite3.connect(source, timeout=30)) as theirs, closing(sqlite3.connect(target)) as ours:
            theirs.backup(ours)  # in one step: a read transaction, which never waits for a writer nor holds one up
            ours.execute("pragma journal_mode=delete")
    except sqlite3.OperationalError as error:
        raise BackupError(f"{source} cannot be copied to {target} ({error}), make room or mend the file") from None
    except sqlite3.DatabaseError:
        raise BackupError(f"{source} is damaged or no database") from None
    handle = os.open(target, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def inspect(file: Path) -> Copy:
    """What a copy is, after a whole integrity check; BackupError for anything but a database of this program that is sound."""
    if not file.is_file():
        raise BackupError(f"there is no file {file}")
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as con:
            problem = con.execute("pragma integrity_check(1)").fetchone()[0]
            if problem != "ok":
                raise BackupError(f"{file} is damaged ({problem}), take another copy")
            version = con.execute("select version_num from alembic_version").fetchone()[0]
            node = con.execute("select value from node_fact where name = 'node_id'").fetchone()
            head = con.execute("select seq, mac from audit_record order by seq desc limit 1").fetchone()
    except (sqlite3.DatabaseError, TypeError):
        raise BackupError(f"{file} is no database of this program, or damaged") from None
    if version > newest_version():
        raise BackupError(f"{file} was made by a newer version of the node; install that version")
    return Copy(file, file.stat().st_size, version, node[0] if node else "", head)


def write_synced(path: Path, data: bytes) -> None:
    """A file whole or not at all under its name, and durable."""
    part = path.with_name(path.name + PART)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(handle, data)
        os.fsync(handle)
    finally:
        os.close(handle)
    part.replace(path)
    sync_directory(path.parent)


def expired(names: list[str], keep: int) -> list[str]:
    """Which of the scheduled copies (names that sort by time) go when `keep` of them stay. Pure."""
    return sorted(names)[:-keep] if keep else []
