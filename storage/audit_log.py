"""The audit chain: append-only records, each with a keyed digest over the one before (DESIGN section 5).

mac = HMAC-SHA-256(key, previous mac + canonical JSON of the record). The head (sequence, mac, time) is anchored in a file outside the
database, so that a cut tail or an old database put back is found as well. Only what is durable is anchored, so that rows which a power cut
took are no tampering: they are not anchored, and what is written next takes their numbers.
Event words follow DICOM PS3.15 A.5 where it has one; they are lower case, joined by dashes. No patient data, ever.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from storage import clock
from storage.objects import sync_directory
from storage.schema import audit_record, node_fact

KEY_BYTES = 32
MAX_DETAILS = 16_384
"""Characters of the details of one record; longer ones are cut to their names."""
MAX_ANCHORS = 2_000
"""Lines of the anchor file; the newest one vouches for all records before it, so older ones may go."""
RESTORED = "restored"
"""Event: a backup took the place of the database."""
ANCHORED = "audit_anchored"
"""Name of the node fact that holds the newest anchored sequence number: an anchor file must exist from then on."""
SIGNED = ("seq", "at", "event", "actor", "study_uid", "series_uid", "sop_uid", "details")


class AuditKeyError(Exception):
    """The key file cannot be read or made; one line that says what to do."""


@dataclass(frozen=True)
class Restored:
    """Record `seq` put a backup in the place of a newer log. `missing`: records of that log that this one does not hold, as far as known."""

    seq: int
    at: str
    missing: int


@dataclass(frozen=True)
class VerifyReport:
    """ok, the number of records seen, and otherwise the first sequence number that does not hold and what is wrong with it."""

    ok: bool
    records: int
    first_bad_seq: int | None = None
    problem: str = ""
    restored: tuple[Restored, ...] = ()
    """Restores of backups that the log tells of, oldest first."""


def canonical(record: dict[str, Any]) -> bytes:
    """The bytes that are signed: JSON with sorted keys, ASCII, no spaces."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str).encode("ascii")


def load_key(path: Path, make: bool = True) -> bytes:
    """The key, made with mode 0600 at first start. AuditKeyError when it is missing (and not to be made), too short or unreadable."""
    try:
        if not path.exists() and make:
            _make_key(path)
    except OSError as error:
        raise AuditKeyError(f"cannot make the audit key {path}: {error.strerror}; set storage.audit_key to a file the node may write") from None
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        raise AuditKeyError(f"cannot read the audit key {path}; restore it, without it the audit log cannot be verified") from None
    if len(key) < KEY_BYTES:
        raise AuditKeyError(f"the audit key {path} is too short; restore it from its copy")
    return key


def _make_key(path: Path) -> None:
    """A fresh key under its name whole or not at all: receiver and worker start at once, and the first of them wins."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, secrets.token_hex(KEY_BYTES).encode("ascii") + b"\n")
        os.fsync(handle)
        os.link(part, path)
    except FileExistsError:
        pass  # another process of this node was faster
    finally:
        os.close(handle)
        part.unlink()
    sync_directory(path.parent)


class AuditLog:
    """Appends to and verifies the chain. `key_file` and `anchor_file` may lie outside the database's folder."""

    def __init__(self, engine: sa.Engine, key_file: Path, anchor_file: Path, make_key: bool = True) -> None:
        self._engine, self._anchor_file = engine, Path(anchor_file)
        self._key = load_key(Path(key_file), make_key)

    def append(self, conn: sa.Connection, event: str, actor: str, *, study_uid: str | None = None, series_uid: str | None = None,
               sop_uid: str | None = None, **details: Any) -> int:
        """Add a record inside the caller's transaction, which must be a writing one; its sequence number."""
        last, before = _head(conn) or (0, "")
        seq = last + 1
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
        """Write the head of the chain to the anchor file, after making it durable; the head, None while the log is empty."""
        with self._engine.execution_options(readonly=True).connect() as conn:
            head = _head(conn)
        lines = self._anchors()
        if head is None or (lines and lines[-1][:2] == head):
            return head
        head = self._durable_head()
        if head is not None:
            self._write_anchor(head, len(lines))
        return head

    def _durable_head(self) -> tuple[int, str] | None:
        """The head, read inside a transaction whose commit is synced, and with it all that was committed before."""
        with self._engine.connect() as conn:
            sqlite = self._engine.dialect.name == "sqlite"
            raw = conn.connection.driver_connection
            usual = raw.execute("PRAGMA synchronous").fetchone()[0] if sqlite else None
            if sqlite:
                raw.execute("PRAGMA synchronous=FULL")  # outside a transaction, or it has no effect
            try:
                with conn.begin():
                    head = _head(conn)
                    if head is not None and not conn.execute(node_fact.update().where(node_fact.c.name == ANCHORED)
                                                             .values(value=str(head[0]))).rowcount:
                        conn.execute(node_fact.insert().values(name=ANCHORED, value=str(head[0])))
            finally:
                if sqlite:
                    raw.execute(f"PRAGMA synchronous={usual}")
        return head

    def _write_anchor(self, head: tuple[int, str], known: int) -> None:
        """Append the line of `head`; a file that has grown long keeps its newer half."""
        path = self._anchor_file
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        line = f"{head[0]} {head[1]} {clock.utc_now()}\n"
        if known >= MAX_ANCHORS:
            kept = "".join(f"{seq} {mac} {at}\n" for seq, mac, at in self._anchors()[-MAX_ANCHORS // 2:])
            part = path.with_name(path.name + ".new")
            _write_synced(part, (kept + line).encode("ascii"), os.O_TRUNC)
            part.replace(path)
        else:
            # a line that a power cut tore must not swallow this one
            torn = path.exists() and not path.read_bytes().endswith(b"\n")
            _write_synced(path, ("\n" * torn + line).encode("ascii"), os.O_APPEND)
        sync_directory(path.parent)

    def _anchors(self) -> list[tuple[int, str, str]]:
        return read_anchors(self._anchor_file)

    def verify(self, anchored: bool = True) -> VerifyReport:
        """Walk the chain from its first record; names the first one that does not hold, or that an anchor knows and the log does not.

        Not `anchored`: the chain alone, for a copy whose anchor is not at hand; records cut off its end are not noticed.
        """
        anchors: dict[int, str] = {}
        try:
            for seq, mac, _ in self._anchors() if anchored else []:
                if anchors.setdefault(seq, mac) != mac:
                    return VerifyReport(False, 0, seq, f"two anchors name different records {seq}: the log was replaced")
        except OSError as error:
            return VerifyReport(False, 0, None, f"the anchor file {self._anchor_file} cannot be read: {error.strerror}")
        count, restored = 0, []
        try:
            with _reading(self._engine, "surrogateescape") as conn:
                if anchored and not anchors and conn.execute(sa.select(node_fact.c.value).where(node_fact.c.name == ANCHORED)).scalar() is not None:
                    return VerifyReport(False, 0, None, f"the anchor file {self._anchor_file} is gone or empty, restore it: "
                                                        "without it nobody can tell whether records were cut off")
                before = ""
                for row in _rows(conn):
                    problem = self._problem(conn, row, count + 1, before, anchors)
                    if problem:
                        return VerifyReport(False, count, min(int(row["seq"]), count + 1), problem)
                    before, count = row["mac"], count + 1
                    if row["event"] == RESTORED:
                        restored.append(Restored(count, str(row["at"]), _details(row["details"]).get("records_replaced", 0)))
        except sa.exc.DatabaseError:
            return VerifyReport(False, count, count + 1, f"record {count + 1} or one after it cannot be read, the database is damaged")
        beyond = max((seq for seq in anchors if seq > count), default=None)
        if beyond is not None:
            which = f"record {beyond} was" if beyond == count + 1 else f"records {count + 1} to {beyond} were"
            return VerifyReport(False, count, count + 1, f"{which} cut off: an anchor names record {beyond}")
        return VerifyReport(True, count, restored=tuple(restored))

    def _problem(self, conn: sa.Connection, row: dict[str, Any], expected: int, before: str, anchors: dict[int, str]) -> str:
        """What is wrong with the row that should be record `expected`, "" when it holds."""
        seq = row["seq"]
        if seq > expected:
            return f"record {expected} is missing"
        if seq < expected:
            return f"record {seq} was put in"
        if not isinstance(row["mac"], str) or not self._holds(before, row):
            if expected == 1 and not self._any_holds(conn):
                return "record 1 does not hold, nor do the next ones: the log was signed with another key, or it was replaced"
            return f"record {seq} does not hold: it was changed, or another was put in its place"
        return "" if anchors.get(seq, row["mac"]) == row["mac"] else f"record {seq} is not the one that was anchored"

    def _holds(self, before: str, row: dict[str, Any]) -> bool:
        mac = self._mac(before, {name: row[name] for name in SIGNED})
        return hmac.compare_digest(mac.encode(), str(row["mac"]).encode("utf-8", "replace"))

    def _any_holds(self, conn: sa.Connection) -> bool:
        """Whether one of the first records holds after the one before it as it stands: then the key is right."""
        rows = list(_rows(conn, limit=20))
        return any(self._holds(str(one["mac"]), two) for one, two in itertools.pairwise(rows))

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
        with _reading(self._engine, "backslashreplace") as conn:
            rows = conn.execute(query.limit(limit) if limit else query).all()
        return [dict(row._mapping) | {"details": _details(row.details)} for row in reversed(rows)]


def read_anchors(file: Path) -> list[tuple[int, str, str]]:
    """(sequence, mac, time) of the whole lines of an anchor file, oldest first."""
    if not file.exists():
        return []
    lines = (line.split() for line in file.read_text(encoding="ascii", errors="replace").splitlines())
    return [(int(parts[0]), parts[1], parts[2]) for parts in lines
            if len(parts) == 3 and parts[0].isdigit() and len(parts[1]) == hashlib.sha256().digest_size * 2]


def _head(conn: sa.Connection) -> tuple[int, str] | None:
    """Sequence number and mac of the newest record."""
    last = conn.execute(sa.select(audit_record.c.seq, audit_record.c.mac).order_by(audit_record.c.seq.desc()).limit(1)).first()
    return None if last is None else (int(last.seq), str(last.mac))


@contextmanager
def _reading(engine: sa.Engine, errors: str) -> Iterator[sa.Connection]:
    """A reading connection; text that is no UTF-8, which only a tampering hand writes, is decoded by the rule `errors`."""
    with engine.execution_options(readonly=True).connect() as conn:
        raw = conn.connection.driver_connection
        if engine.dialect.name == "sqlite":
            raw.text_factory = lambda data: data.decode("utf-8", errors)
        try:
            yield conn
        finally:
            if engine.dialect.name == "sqlite":
                raw.text_factory = str


def _rows(conn: sa.Connection, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """Records in the order of their numbers."""
    query = sa.select(audit_record).order_by(audit_record.c.seq).limit(limit)
    for row in conn.execute(query, execution_options={"yield_per": 1000}):
        yield dict(row._mapping)


def _details(text: Any) -> Any:
    """Details of a record; what is no JSON any more stays as it is."""
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return str(text)


def _write_synced(path: Path, data: bytes, how: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | how, 0o600)
    try:
        os.write(handle, data)
        os.fsync(handle)
    finally:
        os.close(handle)
