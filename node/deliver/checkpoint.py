"""A pause of pynetdicom's reactor that holds, for associations on which we send.

Each association has a thread, the reactor, that takes whatever message arrives off the queue; a request pauses it and then waits for the
response. pynetdicom 3.0.4 takes a reactor for paused that has just been let go: on a busy machine that one takes the response, and the
request waits in vain until its association ends. Here the pause begins only when the reactor is really held.
"""

from __future__ import annotations

import threading
import time
from typing import Any


class Checkpoint(threading.Event):
    """Takes the place of an association's `_reactor_checkpoint`: `clear` comes back when the reactor waits for the next `set`."""

    def __init__(self, assoc: Any) -> None:
        super().__init__()
        self._assoc, self._lock, self._held = assoc, threading.Lock(), False
        self.set()

    def wait(self, timeout: float | None = None) -> bool:
        """The reactor waits here once in each of its rounds."""
        with self._lock:
            if self.is_set():
                return True
            self._held = True
        return super().wait(timeout)

    def clear(self) -> None:
        with self._lock:
            super().clear()
            self._held = False
        while not self._held and self._assoc.is_alive() and threading.current_thread() is not self._assoc:
            time.sleep(0.0001)


def steady(assoc: Any) -> Any:
    """Gives an association (established or not) its checkpoint; the association."""
    assoc._reactor_checkpoint = Checkpoint(assoc)
    return assoc
