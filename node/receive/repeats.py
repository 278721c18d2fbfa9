"""What a peer makes us say is said once and then counted, so that nobody fills the log or the audit log from outside (pure, clock passed in)."""

from __future__ import annotations

import threading

QUIET_SECONDS = 60.0
"""In which the same event of the same peer is counted, not told again."""
PER_PEER, MOST = 16, 1024
"""Different events of one peer, and of all peers, that are told one by one in that time."""
OTHERS = "others"


class Repeats:
    """Counts by peer and event. Safe for many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}
        self._of_peer: dict[str, int] = {}

    def note(self, peer: str, what: str, now: float) -> int | None:
        """None where this is only counted; else how many before it were. `now` in seconds, monotonic."""
        with self._lock:
            key = self._key(peer, what, now)
            last, earlier = self._seen.get(key, (float("-inf"), 0))
            if now - last < QUIET_SECONDS:
                self._seen[key] = last, earlier + 1
                return None
            if key not in self._seen:
                self._of_peer[key[0]] = self._of_peer.get(key[0], 0) + 1
            self._seen[key] = now, 0
            return earlier

    def _key(self, peer: str, what: str, now: float) -> tuple[str, str]:
        """The event itself, or one that stands for all that are too many."""
        if (peer, what) in self._seen:
            return peer, what
        if len(self._seen) >= MOST:
            self._forget(now)
        if len(self._seen) >= MOST:
            return OTHERS, OTHERS
        return (peer, OTHERS) if self._of_peer.get(peer, 0) >= PER_PEER else (peer, what)

    def _forget(self, now: float) -> None:
        """Drops what would be told again anyway."""
        self._seen = {key: value for key, value in self._seen.items() if now - value[0] < QUIET_SECONDS}
        self._of_peer = {}
        for peer, _ in self._seen:
            self._of_peer[peer] = self._of_peer.get(peer, 0) + 1
