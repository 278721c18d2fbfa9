"""An audit log with records in it, and a hand that works on its table."""

from __future__ import annotations

import sqlite3

import sqlalchemy as sa

from storage.audit_log import AuditLog

N = 8
"""Records that `fill` appends."""


def fill(engine: sa.Engine, log: AuditLog, count: int = N, anchor: bool = True) -> None:
    for k in range(count):
        with engine.begin() as conn:
            log.append(conn, "received", "receiver", study_uid="1.2", series_uid=f"1.2.{k}", instances=k, peer="127.0.0.1", left_out=None)
    if anchor:
        log.anchor()


def raw(engine: sa.Engine, *statements: str) -> None:
    """What somebody does with the sqlite3 command."""
    con = sqlite3.connect(str(engine.url.database), timeout=20)
    for statement in statements:
        con.execute(statement)
    con.commit()
    con.close()


SWAP = ("update audit_record set seq = -1 where seq = 3", "update audit_record set seq = 3 where seq = 5",
        "update audit_record set seq = 5 where seq = -1")
COPY = "insert into audit_record select {}, at, event, actor, study_uid, series_uid, sop_uid, details, mac from audit_record where seq = 4"
SHIFT = "update audit_record set seq = seq + 100 where seq >= 4", "update audit_record set seq = seq - 99 where seq >= 104"
TAMPERING: dict[str, tuple[tuple[str, ...], int]] = {
    "edit details": (("update audit_record set details = '{\"instances\":99}' where seq = 4",), 4),
    "edit one character": (("update audit_record set details = replace(details, '127.0.0.1', '127.0.0.2') where seq = 4",), 4),
    "edit time": (("update audit_record set at = '2020-01-01T00:00:00.000000Z' where seq = 1",), 1),
    "edit event": (("update audit_record set event = 'delivered' where seq = 8",), 8),
    "edit actor": (("update audit_record set actor = 'operator' where seq = 2",), 2),
    "edit study": (("update audit_record set study_uid = '1.3' where seq = 5",), 5),
    "empty series": (("update audit_record set series_uid = null where seq = 5",), 5),
    "fill instance": (("update audit_record set sop_uid = '1.9' where seq = 5",), 5),
    "edit mac": (("update audit_record set mac = '00' || substr(mac, 3) where seq = 6",), 6),
    "details as blob": (("update audit_record set details = x'00ff' where seq = 4",), 4),
    "details no UTF-8": (("update audit_record set details = cast(x'7bff7d' as text) where seq = 4",), 4),
    "mac as blob": (("update audit_record set mac = cast(mac as blob) where seq = 4",), 4),
    "mac no UTF-8": (("update audit_record set mac = cast(x'ff' as text) where seq = 8",), 8),
    "delete first": (("delete from audit_record where seq = 1",), 1),
    "delete middle": (("delete from audit_record where seq = 4",), 4),
    "delete and close the gap": (("delete from audit_record where seq = 4", "update audit_record set seq = seq - 1 where seq > 4"), 4),
    "swap": (SWAP, 3),
    "insert before": ((COPY.format(0),), 0),
    "insert in between": ((*SHIFT, COPY.format(4).replace("seq = 4", "seq = 3")), 4),
    "insert at the end": ((COPY.format(9),), 9),
    "cut off one": (("delete from audit_record where seq = 8",), 8),
    "cut off three": (("delete from audit_record where seq > 5",), 6),
    "cut off all": (("delete from audit_record",), 1),
}
"""What was done -> statements, and the first record that does not hold."""
