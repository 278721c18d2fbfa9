"""A pause of pynetdicom's reactor that holds, for associations on which we send.

Each association has a thread, the reactor, that takes whatever message arrives off the queue; a request pauses it and then waits for the
response. pynetdicom 3.0.4 takes a reactor for paused that has just been let go: on a busy machine that one takes the response, and the
request waits in vain until its association ends. Here the pause begins only when the reactor is really held.
"""

from __future__ import annotations

import threading
import time
from typing import Any


class AssociationEnded(RuntimeError):
    """The reactor found that the association is over before a request could begin."""


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
        """Raises AssociationEnded when there is no reactor to hold: nobody would wake the request."""
        with self._lock:
            if self.is_set():  # else it waits already, and will not say so again
                super().clear()
                self._held = False
        if threading.current_thread() is self._assoc:
            return
        while not self._held:
            if not self._assoc.is_alive():
                raise AssociationEnded("the association has ended")
            time.sleep(0.0001)


def steady(assoc: Any) -> Any:
    """Gives an association (established or not) its checkpoint; the association. Its requests raise RuntimeError when it has ended."""
    release = assoc.release

    def release_what_lives() -> None:
        try:
            release()
        except AssociationEnded:
            pass

    assoc._reactor_checkpoint, assoc.release = Checkpoint(assoc), release_what_lives
    return assoc
