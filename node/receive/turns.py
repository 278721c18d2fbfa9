"""One association works at a time, the others wait for their turn instead of for the interpreter.

Every call of the system gives Python's global lock away and asks for it again. With ten associations at once another thread has taken it
meanwhile, and the forty calls of one instance cost forty waits and changes of thread, half as much again as the work itself. A turn is
taken for all that came with one read, and put aside for whatever waits: for the peer, the disk, another association.

It is a courtesy and no lock: who waits for it longer than PATIENCE_SECONDS works without, so nobody can stop the others by keeping it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue

PATIENCE_SECONDS = 0.05


class Turns:
    """Of one process. Safe for many threads; a thread has at most one turn."""

    def __init__(self) -> None:
        self._free: SimpleQueue[None] = SimpleQueue()  # as wide as the turns that may be had at once
        self._free.put(None)
        self._mine = threading.local()

    @property
    def mine(self) -> bool:
        """Whether this thread has a turn."""
        return getattr(self._mine, "has", False)

    def __enter__(self) -> None:
        try:
            self._free.get(timeout=PATIENCE_SECONDS)
            self._mine.has = True
        except Empty:
            self._mine.has = False

    def __exit__(self, *_: object) -> None:
        if self.mine:
            self._mine.has = False
            self._free.put(None)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """For a wait inside a turn; nothing for a thread that has none."""
        if not self.mine:
            yield
            return
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()


TURN = Turns()
"""`with TURN:` around work on what came."""
