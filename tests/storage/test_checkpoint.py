"""The write-ahead log is emptied beside the commits, and by them only where it would grow without bound."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from storage import checkpoint
from storage.checkpoint import Checkpointer


def left(engine: sa.Engine) -> int:
    """Pages that are only in the log, by its index (sqlite.org/walformat.html): mxFrame at byte 16, nBackfill at 96."""
    index = Path(f"{engine.url.database}-shm").read_bytes()
    return int.from_bytes(index[16:20], sys.byteorder) - int.from_bytes(index[96:100], sys.byteorder)


def write(conn: sa.Connection, rows: int) -> None:
    for _ in range(rows):
        with conn.begin():
            conn.exec_driver_sql("insert into node_fact values (hex(randomblob(8)), hex(randomblob(1500)))")


def test_the_log_is_emptied_beside_the_commits(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "EVERY", 10)
    made = Checkpointer(engine)
    with engine.connect() as conn:
        made.relieve(conn)
        write(conn, 2000)
        before = left(engine)
        assert before > 2000  # more than SQLite itself leaves: nobody has checkpointed
        made.committed(9)
        time.sleep(0.2)
        assert left(engine) == before  # not yet
        made.committed(1)
        for _ in range(200):
            if not left(engine):
                break
            time.sleep(0.05)
        assert left(engine) == 0
    made.close()
    made.committed(100)  # nobody is there any more, and that is no error


def test_without_the_thread_the_log_is_bounded_all_the_same(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "MOST_PAGES", 300)
    made = Checkpointer(engine)
    with engine.connect() as conn:
        made.relieve(conn)
        write(conn, 1000)
        assert left(engine) < 320
    made.close()
