"""Committed pages move from SQLite's write-ahead log into the database beside the commits, not inside them.

SQLite itself checkpoints in the commit that makes the log 1000 pages long, and that commit waits for two syncs and for pages all over the
file: the larger the index, the more of them. Here a thread does it with a connection of its own (PASSIVE: it waits for nobody and nobody
for it). The connection that commits does it only where the log has grown to MOST_PAGES all the same, which bounds the log.
"""

from __future__ import annotations

import logging
import threading

import sqlalchemy as sa

from storage.prepared import plainly

log = logging.getLogger("storage.checkpoint")

EVERY = 100
"""Changes (instances) between two checkpoints; each leaves some ten pages in the log."""
MOST_PAGES = 16384
"""Pages of 4096 bytes in the log."""


class Checkpointer:
    """Checkpoints `engine` in the background; does nothing for a database that is not SQLite. Safe for many threads."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._needed = engine.url.get_backend_name() == "sqlite"
        self._changes = 0
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False

    def relieve(self, conn: sa.Connection) -> None:
        """From now on `conn` checkpoints only when it must. Its owner calls `committed`."""
        if self._needed:
            plainly(conn, f"PRAGMA wal_autocheckpoint={MOST_PAGES}")

    def committed(self, changes: int) -> None:
        """So many changes are in the log now. Called by one thread at a time."""
        self._changes += changes
        if not self._needed or self._changes < EVERY or self._closed:
            return
        self._changes = 0
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
            self._thread.start()
        self._wake.set()

    def close(self) -> None:
        """Ends the thread; a checkpoint that runs is waited for."""
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._closed:
                return
            try:
                with self._engine.connect() as conn:
                    plainly(conn, "PRAGMA wal_checkpoint(PASSIVE)")
            except sa.exc.SQLAlchemyError as error:
                log.warning("the write-ahead log cannot be checkpointed now: %s", error)
