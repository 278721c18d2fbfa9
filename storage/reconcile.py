"""At start, before the node listens: files and rows are made to agree (DESIGN section 8). Idempotent.

The synced, renamed file is the commit record: after a power cut the last rows may be gone, never a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from storage.audit_log import AuditLog
from storage.index import ReceivedInstance, admit
from storage.objects import ObjectStore, object_path
from storage.schema import instance

ReadHeader = Callable[[Path, str], ReceivedInstance | None]
"""(file, relative path) -> what reception would have known, or None when the file cannot be read. `storage` reads no DICOM itself."""


@dataclass
class Reconciled:
    """What was found: adopted files, rows without file (instance ids), files that nobody can read, swept part files."""

    adopted: list[str] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    parts: int = 0


def digest_of(path: Path, offset: int) -> str:
    """sha256 hex of a file from `offset` (the length of preamble and file meta) to its end."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(offset)
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def reconcile(engine: sa.Engine, store: ObjectStore, read_header: ReadHeader, audit: AuditLog) -> Reconciled:
    """Adopt files without rows as received, report rows without files, sweep part files; the audit log gets what was done."""
    result = Reconciled(parts=store.sweep_parts())
    with engine.execution_options(readonly=True).connect() as conn:
        rows = {row.path: row.id for row in conn.execute(sa.select(instance.c.id, instance.c.path))}
    present = set()
    for relative in store.walk():
        present.add(relative)
        if relative not in rows:
            _adopt(engine, store, relative, read_header, audit, result)
    result.lost = sorted(row for path, row in rows.items() if path not in present)
    if result.lost:
        with engine.begin() as conn:
            audit.append(conn, "files-lost", "reconcile", instances=result.lost[:100], count=len(result.lost))
    return result


def _adopt(engine: sa.Engine, store: ObjectStore, relative: str, read_header: ReadHeader, audit: AuditLog, result: Reconciled) -> None:
    found = read_header(store.path(relative), relative)
    # a file under a name that its own header does not derive was not written by us: it is reported, never indexed
    if found is None or relative not in (object_path(found.study_uid, found.series_uid, found.sop_uid, found.digest, again)
                                         for again in (False, True)):
        result.unreadable.append(relative)
        with engine.begin() as conn:
            audit.append(conn, "file-not-adopted", "reconcile", path=relative)
        return
    with engine.begin() as conn:
        admitted = admit(conn, found)
        audit.append(conn, "adopted", "reconcile", study_uid=found.study_uid, series_uid=found.series_uid, sop_uid=found.sop_uid,
                     kind=admitted.kind)
    result.adopted.append(relative)
