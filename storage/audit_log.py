"""The audit chain: append-only records, each with a keyed digest over the one before (DESIGN section 5).

mac = HMAC-SHA-256(key, previous mac + canonical JSON of the record). The head (sequence, mac, time) is anchored in a file outside the
database, so that a cut tail or an old database put back is found as well. Only what is durable is anchored.
Event words follow DICOM PS3.15 A.5 where it has one; they are lower case, joined by dashes. No patient data, ever.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from storage import clock
from storage.objects import sync_directory
from storage.schema import audit_record

KEY_BYTES = 32
MAX_DETAILS = 16_384
"""Characters of the details of one record; longer ones are cut to their names."""


class AuditKeyError(Exception):
    """The key file cannot be read or made; one line that says what to do."""


@dataclass(frozen=True)
class VerifyReport:
    """ok, the number of records seen, and otherwise the first sequence number that does not hold and what is wrong with it."""

    ok: bool
    records: int
    first_bad_seq: int | None = None
    problem: str = ""


def canonical(record: dict[str, Any]) -> bytes:
    """The bytes that are signed: JSON with sorted keys, ASCII, no spaces."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str).encode("ascii")


def load_key(path: Path, make: bool = True) -> bytes:
    """The key, made with mode 0600 at first start. AuditKeyError when it is missing (and not to be made), too short or unreadable."""
    try:
        if not path.exists() and make:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.write(handle, secrets.token_hex(KEY_BYTES).encode("ascii") + b"\n")
                os.fsync(handle)
            finally:
                os.close(handle)
            sync_directory(path.parent)
    except FileExistsError:
        pass  # another process of this node was faster
    except OSError as error:
        raise AuditKeyError(f"cannot make the audit key {path}: {error.strerror}; set storage.audit_key to a file the node may write") from None
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        raise AuditKeyError(f"cannot read the audit key {path}; restore it, without it the audit log cannot be verified") from None
    if len(key) < KEY_BYTES:
        raise AuditKeyError(f"the audit key {path} is too short; restore it from its copy")
    return key


class AuditLog:
    """Appends to and verifies the chain. `key_file` and `anchor_file` may lie outside the database's folder."""

    def __init__(self, engine: sa.Engine, key_file: Path, anchor_file: Path, make_key: bool = True) -> None:
        self._engine, self._anchor_file = engine, Path(anchor_file)
        self._key = load_key(Path(key_file), make_key)

    def append(self, conn: sa.Connection, event: str, actor: str, *, study_uid: str | None = None, series_uid: str | None = None,
               sop_uid: str | None = None, **details: Any) -> int:
        """Add a record inside the caller's transaction, which must be a writing one; its sequence number."""
        last = conn.execute(sa.select(audit_record.c.seq, audit_record.c.mac).order_by(audit_record.c.seq.desc()).limit(1)).first()
        seq, before = (1, "") if last is None else (int(last.seq) + 1, str(last.mac))
        text = canonical({k: v for k, v in details.items() if v is not None}).decode("ascii")
        if len(text) > MAX_DETAILS:
            text = canonical({"cut": sorted(details)}).decode("ascii")
        record = {"seq": seq, "at": clock.utc_now(), "event": event, "actor": actor, "study_uid": study_uid, "series_uid": series_uid,
                  "sop_uid": sop_uid, "details": text}
        conn.execute(audit_record.insert().values(**record, mac=self._mac(before, record)))
        return seq

    def _mac(self, before: str, record: dict[str, Any]) -> str:
        return hmac.new(self._key, before.encode("ascii", "replace") + canonical(record), hashlib.sha256).hexdigest()

    def anchor(self) -> tuple[int, str] | None:
        """Write the head of the chain to the anchor file, after making the chain durable; the head, None while the log is empty."""
        with self._engine.connect() as conn:
            if self._engine.dialect.name == "sqlite":
                conn.exec_driver_sql("COMMIT")
                conn.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")  # syncs the log before it copies
                conn.exec_driver_sql("BEGIN")
            last = conn.execute(sa.select(audit_record.c.seq, audit_record.c.mac).order_by(audit_record.c.seq.desc()).limit(1)).first()
        if last is None:
            return None
        seq, mac = int(last.seq), str(last.mac)
        known = list(self._anchors())
        if known and known[-1][:2] == (seq, mac):
            return seq, mac
        made = not self._anchor_file.exists()
        self._anchor_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        line = f"{seq} {mac} {clock.utc_now()}\n".encode("ascii")
        handle = os.open(self._anchor_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(handle, line)
            os.fsync(handle)
        finally:
            os.close(handle)
        if made:
            sync_directory(self._anchor_file.parent)
        return seq, mac

    def _anchors(self) -> Iterator[tuple[int, str, str]]:
        if not self._anchor_file.exists():
            return
        for line in self._anchor_file.read_text(encoding="ascii", errors="replace").splitlines():
            parts = line.split()
            if len(parts) == 3 and parts[0].isdigit():
                yield int(parts[0]), parts[1], parts[2]

    def verify(self) -> VerifyReport:
        """Walk the chain from its first record; names the first one that does not hold, or that an anchor knows and the log does not."""
        anchors: dict[int, str] = {}
        for seq, mac, _ in self._anchors():
            if anchors.setdefault(seq, mac) != mac:
                return VerifyReport(False, 0, seq, "two anchors name different records: the log was replaced")
        before, expected, count = "", 1, 0
        with self._engine.execution_options(readonly=True).connect() as conn:
            for row in conn.execution_options(yield_per=1000).execute(sa.select(audit_record).order_by(audit_record.c.seq)):
                record = {name: row._mapping[name] for name in ("seq", "at", "event", "actor", "study_uid", "series_uid", "sop_uid", "details")}
                if row.seq != expected:
                    return VerifyReport(False, count, expected, f"record {expected} is missing")
                if not hmac.compare_digest(self._mac(before, record).encode(), str(row.mac).encode()):
                    return VerifyReport(False, count, int(row.seq), f"record {row.seq} was changed, or the one before it")
                if anchors.get(int(row.seq), row.mac) != row.mac:
                    return VerifyReport(False, count, int(row.seq), f"record {row.seq} is not the one that was anchored")
                before, expected, count = str(row.mac), expected + 1, count + 1
        beyond = sorted(seq for seq in anchors if seq >= expected)
        if beyond:
            return VerifyReport(False, count, expected, f"record {expected} and what followed were cut off: an anchor names record {beyond[-1]}")
        return VerifyReport(True, count)

    def records(self, series_uid: str | None = None, event: str | None = None, since: str | None = None,
                limit: int | None = None) -> list[dict[str, Any]]:
        """Records in order, filtered; `limit` keeps the newest."""
        query = sa.select(audit_record)
        if series_uid:
            query = query.where(audit_record.c.series_uid == series_uid)
        if event:
            query = query.where(audit_record.c.event == event)
        if since:
            query = query.where(audit_record.c.at >= since)
        query = query.order_by(audit_record.c.seq.desc())
        with self._engine.execution_options(readonly=True).connect() as conn:
            rows = conn.execute(query.limit(limit) if limit else query).all()
        return [dict(row._mapping) | {"details": json.loads(row.details)} for row in reversed(rows)]
