"""SHA-256 of a data set while it comes: in the thread that receives it, and for a large object in one that helps.

Hashing is a third of the work on a byte. A helper does it on another core while the bytes are written and the next ones are read. It is one
for the whole process: where it is busy, as with many associations, or not awake in time, the receiving thread hashes by itself.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from queue import SimpleQueue

HELP_FROM = 4 * 2**20
"""Bytes of a data set that are hashed without help: below, waking a thread costs what it saves."""


class Helper:
    """A thread that hashes for others, started when it is needed first. Safe for many threads."""

    def __init__(self) -> None:
        self._asked: SimpleQueue[Digest] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.free = True
        """Whether it has nothing to do; may be out of date."""

    def ask(self, digest: Digest) -> None:
        """Works on `digest` soon."""
        self.free = False
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="digest", daemon=True)
                self._thread.start()
        self._asked.put(digest)

    def _run(self) -> None:
        while True:
            self._asked.get().settle()
            self.free = self._asked.empty()


class Digest:
    """Of one data set; one thread calls `update` and the results, `settle` is for any."""

    def __init__(self, helper: Helper) -> None:
        self._helper = helper
        self._hash = hashlib.sha256()
        self._size = 0
        self._lock = threading.Lock()
        self._left: deque[bytes | memoryview] = deque()

    def update(self, pieces: tuple[bytes | memoryview, ...]) -> None:
        """Takes `pieces` in order. They must hold until the next call of any method of this object returns."""
        self._size += sum(map(len, pieces))
        if self._size <= HELP_FROM:
            for piece in pieces:
                self._hash.update(piece)
            return
        self.settle()
        self._left.extend(pieces)
        if self._helper.free:
            self._helper.ask(self)
        else:
            self.settle()

    def settle(self) -> None:
        """Hashes what is left; returns when nothing is."""
        with self._lock:
            while self._left:
                self._hash.update(self._left.popleft())

    def digest(self) -> bytes:
        """The 32 bytes of what was given."""
        self.settle()
        return self._hash.digest()
