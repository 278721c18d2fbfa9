"""A complete data set becomes a durable file and a row: the service behind C-STORE, the same for both receive paths (PS3.4 annex B).

Order: header, duplicate check, file synced and renamed, directory synced, row committed; then the caller may answer SUCCESS.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import sqlalchemy as sa

from node.receive.admission import Command, Refusal, judge_header, own_result, with_stand_ins
from node.receive.group_commit import GroupCommit
from node.receive.header_scan import Header, scan
from node.receive.indexing import known_results, received_instance
from node.receive.session import Session
from node.receive.spool import Spool
from node.receive.turns import TURN
from storage import index
from storage.database import Readers
from storage.objects import ObjectStore

STRIPES = 64
"""Locks over SOP Instance UIDs: the same UID on two associations is admitted one after the other."""


class Keeper:
    """Makes received data sets durable and known. Safe for many threads; `device_uid` is ours, "" where none was made yet."""

    def __init__(self, engine: sa.Engine, store: ObjectStore, device_uid: str = "") -> None:
        self._readers, self._store, self._device_uid = Readers(engine), store, device_uid
        self._group = GroupCommit(engine, store)
        self._locks = [threading.Lock() for _ in range(STRIPES)]

    def keep(self, session: Session, command: Command, syntax: str, spool: Spool) -> Refusal | None:
        """What the data set in `spool` is refused for, None when the answer is SUCCESS. Errors of disk and database pass."""
        if spool.part is None:
            raise ValueError("nothing was received")
        header = spool.quick_header() or self._scan(spool, syntax)
        refusal = judge_header(command, header)
        if refusal is not None or header is None:
            return refusal
        header = with_stand_ins(header)
        with self._alone(command.sop_uid):
            duplicate = self._admit(session, header, syntax, spool)
        session.count(header.study_uid, header.series_uid, spool.size, duplicate)
        return None

    def close(self) -> None:
        """When nothing more is kept."""
        self._group.close()
        self._readers.close()

    @contextmanager
    def _alone(self, sop_uid: str) -> Iterator[None]:
        """No other association admits an instance of this UID meanwhile."""
        lock = self._locks[zlib.crc32(sop_uid.encode("utf-8", "replace")) % STRIPES]
        if not lock.acquire(blocking=False):
            with TURN.aside():
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @staticmethod
    def _scan(spool: Spool, syntax: str) -> Header | None:
        with spool.part.path.open("rb", buffering=8192) as file:
            file.seek(spool.meta_bytes)
            return scan(file, syntax)

    def _admit(self, session: Session, header: Header, syntax: str, spool: Spool) -> bool:
        """Whether the identical instance was here already."""
        with self._readers.connection() as conn:
            versions = index.versions(conn, header.sop_uid)
        again, digest = bool(versions), spool.digest
        for version in versions:
            if (version.digest, version.study_uid, version.series_uid) == (digest, header.study_uid, header.series_uid):
                if version.deleted_at is None and self._store.path(version.path).is_file():
                    return True
                again = "-" in Path(version.path).name  # lost, or deleted by retention: put it back under the name that the row has
        part = spool.part
        spool.prove()
        with TURN.aside() if self._store.synced else nullcontext():
            relative = part.place(header.study_uid, header.series_uid, header.sop_uid, digest, again)
        spool.part = None

        def fact(conn: sa.Connection) -> index.Admission:
            admission = index.admit(conn, received_instance(
                header, transfer_syntax=syntax, digest=digest, size=spool.size, path=relative, calling_ae=session.calling_ae,
                association_id=session.id, own=own_result(header, known_results(conn, self._device_uid))))
            if admission.kind == "restored" and not self._store.path(relative).is_file():
                raise RuntimeError("retention deleted the file while the same instance came again")  # nothing is acknowledged
            return admission

        return self._group.commit(relative, fact).kind == "duplicate"
