"""Group commit: whoever waits shares one sync of each directory and one transaction (DESIGN section 8).

The file of an instance is synced and renamed by the thread that received it, so that the syncs of several associations overlap. What
follows is done by one thread for all that wait: the first one that comes leads, and what arrives meanwhile is the next group, led by its first. A
single association leads itself, without a hand-over to another thread. All groups write on one connection, whose cache so holds the newest pages.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from node.receive.turns import TURN
from storage.checkpoint import Checkpointer
from storage.objects import ObjectStore


@dataclass(eq=False)
class _Entry:
    path: str
    fact: Callable[[sa.Connection], Any]
    result: Any = None
    error: BaseException | None = None
    done: bool = False
    gate: threading.Lock = field(default_factory=threading.Lock)
    """Held until the entry is done, or is the one to lead next."""


class GroupCommit:
    """Makes placed files durable and writes their rows. Safe for many threads."""

    def __init__(self, engine: sa.Engine, store: ObjectStore) -> None:
        self._engine, self._store = engine, store
        self._conn: sa.Connection | None = None  # of whoever leads
        self._checkpointer = Checkpointer(engine)
        self._lock = threading.Lock()
        self._waiting: list[_Entry] = []
        self._led = False

    def commit(self, path: str, fact: Callable[[sa.Connection], Any]) -> Any:
        """Returns what `fact` returned once the name `path` (relative to the store) is durable and the transaction is committed.

        `fact` runs in this or another thread, again when its group failed. Raises what it raised, or the error of disk or database.
        """
        entry = _Entry(path, fact)
        with self._lock:
            self._waiting.append(entry)
            leads, self._led = not self._led, True
            if not leads:
                entry.gate.acquire()
        if not leads:
            with TURN.aside():
                entry.gate.acquire()  # until the leader lets it go
        if not entry.done:
            self._lead()
        if entry.error is not None:
            raise entry.error
        return entry.result

    def _lead(self) -> None:
        """Commits all that wait, then names who leads those that came meanwhile."""
        with self._lock:
            group, self._waiting = self._waiting, []
        try:
            self._together(group)
        finally:
            with self._lock:
                heir = self._waiting[0] if self._waiting else None
                self._led = heir is not None
            for entry in group:
                if not entry.done:  # an interrupt, not an error of its own
                    entry.error, entry.done = RuntimeError("the thread that led the group was interrupted"), True
            for entry in (*group, heir):
                if entry is not None and entry.gate.locked():
                    entry.gate.release()

    def _together(self, group: list[_Entry]) -> None:
        try:
            self._write(group)
        except Exception as error:
            # a sync that failed is never tried again: the system may have dropped what it could not write, and say so only once
            if len(group) == 1 or isinstance(error, OSError):
                for entry in group:
                    entry.error, entry.done = error, True
            else:  # one bad instance must cost only its own sender
                for entry in group:
                    self._together([entry])

    def _write(self, group: list[_Entry]) -> None:
        self._store.sync_folders(entry.path for entry in group)
        conn, self._conn = self._conn or self._connected(), None
        try:
            with conn.begin():
                for entry in group:
                    entry.result = entry.fact(conn)
        except BaseException:
            conn.close()  # the next group begins afresh
            raise
        self._conn = conn
        for entry in group:
            entry.done = True
        self._checkpointer.committed(len(group))

    def _connected(self) -> sa.Connection:
        conn = self._engine.connect()
        self._checkpointer.relieve(conn)
        return conn

    def close(self) -> None:
        """Gives the connection back, and ends what runs beside it; one more `commit` takes another."""
        self._checkpointer.close()
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()
