"""Group commit: whoever waits shares one sync of each directory and one transaction (DESIGN section 8).

The file of an instance is synced and renamed by the thread that received it, so that the syncs of several associations overlap. What
follows is done by one thread for all that wait: the first one that comes leads, and what arrives meanwhile is the next group. A single
association leads itself, without a hand-over to another thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from storage.objects import ObjectStore


@dataclass(eq=False)
class _Entry:
    path: str
    fact: Callable[[sa.Connection], Any]
    result: Any = None
    error: Exception | None = None
    done: bool = False


class GroupCommit:
    """Makes placed files durable and writes their rows. Safe for many threads."""

    def __init__(self, engine: sa.Engine, store: ObjectStore) -> None:
        self._engine, self._store = engine, store
        self._lock, self._leading = threading.Lock(), threading.Lock()
        self._waiting: list[_Entry] = []

    def commit(self, path: str, fact: Callable[[sa.Connection], Any]) -> Any:
        """Returns what `fact` returned once the name `path` (relative to the store) is durable and the transaction is committed.

        `fact` runs in this or another thread, again when its group failed. Raises what it raised, or the error of disk or database.
        """
        entry = _Entry(path, fact)
        with self._lock:
            self._waiting.append(entry)
        with self._leading:
            if not entry.done:
                with self._lock:
                    group, self._waiting = self._waiting, []
                self._together(group)
        if not entry.done or entry.error is not None:
            raise entry.error or RuntimeError("the thread that led the group was interrupted")
        return entry.result

    def _together(self, group: list[_Entry]) -> None:
        try:
            self._write(group)
        except Exception as error:
            if len(group) == 1:
                group[0].error, group[0].done = error, True
            else:  # one bad instance must cost only its own sender
                for entry in group:
                    self._together([entry])

    def _write(self, group: list[_Entry]) -> None:
        self._store.sync_folders(entry.path for entry in group)
        with self._engine.begin() as conn:
            for entry in group:
                entry.result = entry.fact(conn)
        for entry in group:
            entry.done = True
