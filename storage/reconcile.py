"""At start, before the node listens: files and rows are made to agree (DESIGN section 8). Idempotent.

The synced, renamed file is the commit record: after a power cut the last rows may be gone, never a file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from heapq import nsmallest
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from blake3 import blake3

from storage import clock
from storage.audit_log import AuditLog, canonical
from storage.index import ReceivedInstance, admit, restore
from storage.objects import ObjectStore, object_path
from storage.prepared import Prepared
from storage.schema import audit_record, instance

ACTOR = "reconcile"
BATCH = 200
"""Files that are indexed in one commit."""
NAMED = 100
"""Instances or paths that one audit record names; it counts all."""

_BELOW = Prepared(sa.select(instance.c.path, instance.c.id, instance.c.deleted_at)
                  .where(instance.c.path >= sa.bindparam("low"), instance.c.path < sa.bindparam("high")))

ReadHeader = Callable[[Path, str], ReceivedInstance | None]
"""(file, relative path) -> what reception would have known, or None when the file cannot be read. `storage` reads no DICOM itself."""


@dataclass
class Reconciled:
    """What was found: adopted files, files that retention had let go and that are here (instance ids), rows without file (how many, and the first
    NAMED instance ids), files that are not ours, not whole or unreadable, swept part files."""

    adopted: list[str] = field(default_factory=list)
    restored: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    lost_count: int = 0
    unreadable: list[str] = field(default_factory=list)
    parts: int = 0


def digest_of(path: Path, offset: int) -> str:
    """BLAKE3 hex of a file from `offset` (the length of preamble and file meta) to its end."""
    digest = blake3()
    with path.open("rb") as file:
        file.seek(offset)
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def reconcile(engine: sa.Engine, store: ObjectStore, read_header: ReadHeader, audit: AuditLog) -> Reconciled:
    """Adopt files without rows as received, report rows without files, sweep part files; the audit log gets what was done.

    A file whose row says that retention deleted it was either not deleted yet when a process died, or it came again and a power cut took
    the row: it stays, and retention looks at it anew.
    """
    result = Reconciled(parts=store.sweep_parts())
    unknown, back, result.lost, result.lost_count = _differences(engine, store)
    unknown = store.in_order_of_reception(unknown)
    for at in range(0, len(unknown), BATCH):
        found = [(relative, _read(store, relative, read_header)) for relative in unknown[at:at + BATCH]]
        result.unreadable += [relative for relative, header in found if header is None]
        result.adopted += _adopt(engine, [header for _, header in found if header is not None], audit)
    result.restored = [row for row, _ in back]
    with engine.begin() as conn:
        for at in range(0, len(back), BATCH):
            restore(conn, [row for row, path in back[at:at + BATCH] if store.path(path).is_file()])  # a worker may finish its deletion
        if back:
            audit.append(conn, "files-restored", ACTOR, instances=result.restored[:NAMED], count=len(back))
        _report(conn, audit, "files-lost", instances=result.lost, count=result.lost_count)
        _report(conn, audit, "files-not-adopted", paths=result.unreadable[:NAMED], count=len(result.unreadable))
    return result


def _differences(engine: sa.Engine, store: ObjectStore) -> tuple[list[str], list[tuple[int, str]], list[int], int]:
    """Files without rows; rows (id, path) of files that retention let go and that are here; rows without files, the first NAMED ids and how many.

    One folder of the store after the other: memory stays small.
    """
    unknown: list[str] = []
    back: list[tuple[int, str]] = []
    lost: list[int] = []
    count = 0
    with engine.execution_options(readonly=True).connect() as conn:
        for folder in store.folders():
            rows = {path: (row, deleted) for path, row, deleted in _BELOW.rows(conn, low=folder + "/", high=folder + "0")}  # 0 follows /
            present = set(store.walk(folder))
            unknown += present - rows.keys()
            back += [(row, path) for path, (row, deleted) in rows.items() if deleted is not None and path in present]
            missing = [row for path, (row, deleted) in rows.items() if deleted is None and path not in present]
            lost, count = nsmallest(NAMED, lost + missing), count + len(missing)
    return unknown, sorted(back), lost, count


def _read(store: ObjectStore, relative: str, read_header: ReadHeader) -> ReceivedInstance | None:
    """What reception would have known of a file; None where that cannot be told, or where the file was not written by us."""
    path = store.path(relative)
    found = read_header(path, relative)
    # a file under a name that its own header does not derive is foreign: it is reported, never indexed
    if found is None or relative not in (object_path(found.study_uid, found.series_uid, found.sop_uid, found.digest, again)
                                         for again in (False, True)):
        return None
    received = datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime(clock.UTC_FORMAT)
    return replace(found, received_at=found.received_at or received)


def _adopt(engine: sa.Engine, found: list[ReceivedInstance], audit: AuditLog) -> list[str]:
    """Index files, and tell the audit log per series in the same commit; their paths."""
    adopted: list[str] = []
    counts: Counter[tuple[str, str]] = Counter()
    with engine.begin() as conn:
        for one in found:
            if admit(conn, one).kind != "duplicate":
                adopted.append(one.path)
                counts[one.study_uid, one.series_uid] += 1
        for (study_uid, series_uid), count in counts.items():
            audit.append(conn, "adopted", ACTOR, study_uid=study_uid, series_uid=series_uid, instances=count)
    return adopted


def _report(conn: sa.Connection, audit: AuditLog, event: str, count: int, **details: Any) -> None:
    """An event, unless nothing is to be said or the newest of its kind says the same: each start finds the same files."""
    last = conn.execute(sa.select(audit_record.c.details).where(audit_record.c.event == event, audit_record.c.actor == ACTOR)
                        .order_by(audit_record.c.seq.desc()).limit(1)).scalar()
    if count and last != canonical({**details, "count": count}).decode("ascii"):
        audit.append(conn, event, ACTOR, count=count, **details)
