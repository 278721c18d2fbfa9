"""An index of many instances for the benchmark of reception: rows as reception writes them, without files behind them.

Keys are spread evenly over what pydicom's UIDs and the hashes of paths can be, and ascend with the rows: so every page of every index is
full, and each new instance falls between old ones. That is harder than what grows by itself, whose pages have room left.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from storage.database import migrate, open_engine

PER_SERIES = 200
PER_BATCH = 200_000
UID_PREFIX = "1.2.826.0.1.3680043.8.498."
"""What pydicom's `generate_uid` begins with, and so those that are sent."""
_NUMBERS = "(with recursive c(n) as (select :low union all select n + 1 from c where n + 1 < :high) select n from c)"
_SPREAD = ":prefix || printf('%019d', 1000000000000000000 + n * :step) || printf('%019d', n)"
"""A UID of 64 characters."""
_SERIES = f"""
insert into series (study_uid, series_uid, state, revision, first_at, last_at, first_mono, last_mono, boot_id, changes, calling_ae, modality,
                    manufacturer, manufacturer_model, station, device_serial, protocol, description, body_part, series_date)
select {_SPREAD}, {_SPREAD}, 'complete', 1, :at, :at, 1.0, 1.0, 'another', 1, 'SENDER', 'CT', 'SIMULATED', '', '', '', '', '', '', '20260101'
from {_NUMBERS}
"""
_INSTANCES = f"""
insert into instance (series_id, association_id, sop_uid, sop_class_uid, transfer_syntax, digest, bytes, path, current, arrival, calling_ae,
                      received_at, received_mono, instance_number, position_mm, own)
select n / :per + 1, 1, {_SPREAD}, '1.2.840.10008.5.1.4.1.1.2', '1.2.840.10008.1.2.1', lower(hex(randomblob(32))), 525000,
       printf('%02x/%016x/%016x/%016x.dcm', n * 256 / :rows, n / :per, n / :per, n), 1, 'new', 'SENDER', :at, 1.0, n % :per, 1.0 * (n % :per), 0
from {_NUMBERS}
"""


def fill(database: Path, rows: int) -> None:
    """A database with the node's tables and `rows` instances, PER_SERIES to a series. Ten million take some minutes and 10 GB."""
    engine = open_engine(database)
    migrate(engine)
    engine.dispose()
    conn = sqlite3.connect(database, isolation_level=None)
    for pragma in ("journal_mode=off", "synchronous=off", "cache_size=-200000", "locking_mode=exclusive"):
        conn.execute(f"pragma {pragma}")
    for table, count in ((_SERIES, -(-rows // PER_SERIES)), (_INSTANCES, rows)):
        for low in range(0, count, PER_BATCH):
            conn.execute("begin")
            conn.execute(table, {"prefix": UID_PREFIX, "step": 8 * 10**18 // count, "low": low, "high": min(low + PER_BATCH, count),
                                 "per": PER_SERIES, "rows": rows, "at": "2026-01-01T00:00:00.000000Z"})
            conn.execute("commit")
    conn.close()
    back = sqlite3.connect(database)
    back.execute("pragma journal_mode=wal")
    back.close()


def rows_of(database: Path) -> int:
    """How many instances a database has; the newest id, since no row is ever deleted here."""
    conn = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        return int(conn.execute("select coalesce(max(id), 0) from instance").fetchone()[0])
    finally:
        conn.close()
