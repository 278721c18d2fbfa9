"""One association as the receiver sees it: its row, its counts per series, what it was refused; told to the audit log at its end."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from node.receive.admission import Refusal
from storage import index
from storage.audit_log import AuditLog

ACTOR = "receiver"
MAX_SERIES = 4096
"""Series of one association that are counted one by one; the rest shares one line."""


@dataclass
class SeriesCount:
    """What one association brought to one series."""

    instances: int = 0
    duplicates: int = 0
    bytes: int = 0


@dataclass
class Session:
    """Counts of one open association; `id` is its row."""

    id: int
    calling_ae: str
    called_ae: str
    peer: str
    series: dict[tuple[str, str], SeriesCount] = field(default_factory=dict)
    refusals: Counter[tuple[int, str]] = field(default_factory=Counter)
    instances: int = 0
    bytes: int = 0

    def count(self, study_uid: str, series_uid: str, size: int, duplicate: bool) -> None:
        """One acknowledged instance."""
        key = (study_uid, series_uid)
        if key not in self.series and len(self.series) >= MAX_SERIES:
            key = ("", "")
        entry = self.series.setdefault(key, SeriesCount())
        entry.instances += not duplicate
        entry.duplicates += duplicate
        entry.bytes += 0 if duplicate else size
        self.instances += not duplicate
        self.bytes += 0 if duplicate else size

    def refused(self, refusal: Refusal) -> bool:
        """Notes a refusal; True when it is the first of its kind on this association."""
        key = (int(refusal.status), refusal.comment)
        self.refusals[key] += 1
        return self.refusals[key] == 1

    def close(self, conn: sa.Connection, audit: AuditLog, how: str) -> None:
        """Closes the row and writes one event per series, and one with the counts of what was refused more than once."""
        index.close_association(conn, self.id, how, self.instances, self.bytes)
        common: dict[str, Any] = {"association": self.id, "calling_ae": self.calling_ae, "peer": self.peer, "how": how}
        for (study_uid, series_uid), entry in self.series.items():
            audit.append(conn, "received", ACTOR, study_uid=study_uid or None, series_uid=series_uid or None, instances=entry.instances,
                         duplicates=entry.duplicates, bytes=entry.bytes, **common)
        repeated = {f"0x{status:04X} {comment}": count for (status, comment), count in self.refusals.items() if count > 1}
        if repeated:
            audit.append(conn, "store-refused", ACTOR, times=repeated, **common)


class Sessions:
    """The associations that are open; safe for many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[Any, str] = {}  # its host

    def take(self, assoc: Any, host: str, limit: int, per_host: int) -> bool:
        """Reserves a place for `assoc` unless `limit` are taken, or `per_host` by its host; True when it has one."""
        with self._lock:
            if len(self._open) >= limit or list(self._open.values()).count(host) >= per_host:
                return False
            self._open[assoc] = host
            return True

    def leave(self, assoc: Any) -> None:
        with self._lock:
            self._open.pop(assoc, None)

    def __len__(self) -> int:
        with self._lock:
            return len(self._open)

    def associations(self) -> list[Any]:
        with self._lock:
            return list(self._open)
